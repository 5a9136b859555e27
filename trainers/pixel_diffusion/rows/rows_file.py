"""The checked rows of a run: what the driver leaves to the folds, and how they read it back. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from trainers.pixel_diffusion.config import DataConfig
from trainers.reading.data_folder import name_view
from trainers.storage.mapped_table import new_table

DIGEST_BYTES = 16
NO_LABEL = -1
_CLASSES = b"classes"


@dataclass(frozen=True)
class Rows:
    """Pictures that can be used.

    Attributes:
        ids: (N,) str.
        paths: (N,) of their files.
        digests_NK: (N, DIGEST_BYTES) uint8, of the files' bytes.
        label_N: number of each one's class in `classes`, NO_LABEL where it has none.
        classes: names, sorted; empty: there are none.
    """

    ids: np.ndarray
    paths: list[str]
    digests_NK: np.ndarray
    label_N: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Where these rows are, (n,) int64."""
        place = {row_id: number for number, row_id in enumerate(self.ids.tolist())}
        return np.array([place[row_id] for row_id in ids], np.int64)


def place_rows(inputs: Path, data: DataConfig, table: str) -> Path:
    """Where the rows of a table (train or test) are below a run's folder of inputs, for those who read them by this
    config."""
    seen = {name: value for name, value in asdict(data).items() if name not in ("max_pixels", "size")}
    return inputs / f"{table}-{name_view(seen, {})}.arrow"


def write_rows(path: Path, rows: Rows) -> None:
    """Writes rows for the folds.

    Raises:
        OSError: the storage does not take it.
    """
    columns = {
        "id": pa.array(rows.ids.tolist(), pa.string()),
        "path": pa.array(rows.paths, pa.string()),
        "digest": pa.array([one.tobytes() for one in rows.digests_NK], pa.binary(DIGEST_BYTES)),
        "label": pa.array(rows.label_N, pa.int32()),
    }
    table = pa.table(columns, metadata={_CLASSES: json.dumps(rows.classes).encode()})
    with new_table(path, table.schema) as writer:
        writer.write_table(table)


def read_rows(path: Path) -> Rows:
    """The rows of such a file.

    Raises:
        OSError: it is not there.
    """
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    digests = np.frombuffer(b"".join(table["digest"].to_pylist()), np.uint8).reshape(-1, DIGEST_BYTES)
    classes = tuple(json.loads(table.schema.metadata[_CLASSES]))
    return Rows(
        np.array(table["id"].to_pylist(), str),
        table["path"].to_pylist(),
        digests,
        table["label"].to_numpy().astype(np.int64),
        classes,
    )
