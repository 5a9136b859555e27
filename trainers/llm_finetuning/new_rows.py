"""New questions to answer: found, checked before anything is launched, and read in blocks. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.interface import DataError
from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.questions.table import Question, read_prepared, read_questions, to_parquet

PLACES = "a table of questions (.jsonl, .parquet) or a folder with one that is named as data.test_table says"


@dataclass(frozen=True)
class NewRows:
    """A table of questions.

    Attributes:
        path: the table.
        config: says what its columns mean.
        batch_rows: that are answered together.
    """

    path: Path
    config: Config
    batch_rows: int = 64
    PROBLEMS: ClassVar = "a problem"

    def check(self) -> int:
        """Reads all of it; returns the number of questions.

        Raises:
            DataError: it is no such table.
        """
        return len(self._read())

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """The questions in blocks."""
        table = pq.read_table(pa.BufferReader(to_parquet(self._read())))
        for start in range(0, len(table), num_rows):
            yield table.slice(start, num_rows)

    def _read(self) -> tuple[Question, ...]:
        return read_questions(self.path, self.config, needs=()).questions


@dataclass(frozen=True)
class KeptRows(NewRows):
    """Questions of a run's own training table, as its folds have them.

    Attributes:
        ids: of the questions.
    """

    ids: frozenset[str] = frozenset()

    def _read(self) -> tuple[Question, ...]:
        return tuple(one for one in read_prepared(self.path) if one.id in self.ids)


def find_kept_rows(config: Config, inputs: Path, ids: Sequence[str]) -> NewRows:
    """Some training rows of a run.

    Args:
        config: of the run.
        inputs: what `write_inputs` has written.
        ids: of the rows.
    """
    return KeptRows(inputs / "train.parquet", config, ids=frozenset(ids))


def find_new_rows(configs: Sequence[Config], place: Path) -> NewRows:
    """Finds the table.

    Args:
        configs: of the models that answer.
        place: a table, or a folder with one.

    Raises:
        DataError: there is no table.
    """
    path = place.absolute()
    if path.is_dir():
        names = dict.fromkeys((configs[0].data.test_table, "test.jsonl", "test.parquet"))
        path = next((path / name for name in names if name and (path / name).is_file()), path / "test.jsonl")
    if not path.is_file():
        raise DataError(f"{path}: no such file: expected {PLACES}")
    data = replace(configs[0].data, on_bad_row="error", fold_column=None)
    return NewRows(path, replace(configs[0], data=data))
