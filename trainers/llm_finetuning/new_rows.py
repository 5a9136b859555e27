"""New questions to answer: found, checked before anything is launched, and read in blocks. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.interface import DataError
from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.questions.table import Question, place_table, read_questions, to_parquet

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
    id_column: ClassVar = "id"
    inputs: ClassVar[Mapping[str, tuple[str, ...]]] = {}

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


def find_train_rows(config: Config) -> NewRows:
    """The run's own training table, as new rows.

    Raises:
        DataError: it is not there any more.
    """
    data = config.data
    rows = find_new_rows([config], place_table(data, data.train_table))
    return replace(rows, config=replace(rows.config, data=replace(rows.config.data, on_bad_row=data.on_bad_row)))


def find_test_rows(config: Config) -> NewRows:
    """The run's own test table, as new rows.

    Raises:
        DataError: it has none, or it is not there any more.
    """
    data = config.data
    path = place_table(data, data.test_table) if data.test_table else None
    if path is None or not path.is_file():
        raise DataError(f"data.root={data.root}: the run has no test questions: expected --blend, or --data FILE")
    return find_new_rows([config], path)


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
