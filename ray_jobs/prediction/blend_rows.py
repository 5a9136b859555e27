"""The blend set of a finished run as new rows: no fold has trained on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.errors import RunError
from ray_jobs.results.run_files import list_blend_ids
from ray_jobs.runs.folder import RunFolder


@dataclass(frozen=True)
class BlendRows:
    """Some rows of a table, by their ids.

    Attributes:
        rows: all of the training table, as the family's new rows.
        ids: of those that are read.
    """

    rows: Any
    ids: frozenset[str]

    @property
    def path(self) -> Path:
        """Where all rows are."""
        path: Path = self.rows.path
        return path

    @property
    def batch_rows(self) -> int:
        """Rows that are evaluated together."""
        number: int = self.rows.batch_rows
        return number

    def check(self) -> int:
        """Looks whether each row is still there; returns their number.

        Raises:
            RunError: one is not.
        """
        found = {row_id for block in self._read_all() for row_id in block[self.rows.id_column].to_pylist()}
        if missing := sorted(self.ids - found):
            raise RunError(
                f"{self.path}: {len(missing):,} of {len(self.ids):,} rows of the blend set are not there any more, "
                f"such as {missing[0]!r}: expected the data that the run was trained on"
            )
        return len(self.ids)

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """The rows in blocks, in the order of the table."""
        kept = pa.concat_tables(list(self._read_all()))
        for start in range(0, len(kept), num_rows):
            yield kept.slice(start, num_rows)

    def _read_all(self) -> Iterator[pa.Table]:
        wanted = pa.array(sorted(self.ids), pa.string())
        for block in self.rows.read(self.batch_rows):
            yield block.filter(pc.is_in(block[self.rows.id_column].cast(pa.string()), wanted))


def open_blend_rows(folder: RunFolder, rows: Any) -> BlendRows:
    """The blend set of a run.

    Args:
        folder: the run.
        rows: its training rows, of the family's `find_train_rows`.

    Raises:
        RunError: it has none.
    """
    ids = list_blend_ids(folder)
    if not ids:
        raise RunError(
            f"{folder.root.name} has no blend set, rows on which no fold has trained: expected a run with "
            "folds.blend_fraction=0.1 or so, or --data FILE with rows that it does not know"
        )
    return BlendRows(rows, frozenset(ids))
