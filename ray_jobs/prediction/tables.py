"""Writes a table block by block that appears whole or not at all, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ray_jobs.runs.files import escape_formula
from trainers.storage.whole_files import appearing_whole

TABLE_SUFFIXES = (".csv", ".parquet")
_ROWS_OF_A_GROUP = 65_536  # of a Parquet file: each has a header of its own


@contextmanager
def open_table(path: Path, names: Sequence[str]) -> Iterator[Callable[[pa.Table], None]]:
    """A function that adds rows to a table, which is in place once the block is left without an error.

    Args:
        path: ends in .parquet, else it is CSV.
        names: of the columns; the added rows have them in this order, whatever they are called there.
    """
    # Not .tmp: the run may be continued, which removes such files, while its models predict.
    with appearing_whole(path, ending=".part") as file:
        rows = (_ParquetRows if path.suffix == ".parquet" else _CsvRows)(file, names)
        yield rows.add
        rows.finish()


class _CsvRows:
    """Floats with all their digits, as in a submission."""

    def __init__(self, file: BinaryIO, names: Sequence[str]) -> None:
        self.text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self.writer = csv.writer(self.text, lineterminator="\n")
        self.writer.writerow(map(escape_formula, names))

    def add(self, rows: pa.Table) -> None:
        columns = [map(_show, column.to_pylist()) for column in rows.columns]
        self.writer.writerows(zip(*columns, strict=True))

    def finish(self) -> None:
        self.text.detach()


def _show(cell: str | float | None) -> str:
    if cell is None:
        return ""
    return escape_formula(cell) if isinstance(cell, str) else repr(float(cell))


class _ParquetRows:
    def __init__(self, file: BinaryIO, names: Sequence[str]) -> None:
        self.file, self.names = file, list(names)
        self.waiting: list[pa.Table] = []
        self.writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table) -> None:
        self.waiting.append(rows.rename_columns(self.names))
        if sum(map(len, self.waiting)) >= _ROWS_OF_A_GROUP:
            self._write()

    def finish(self) -> None:
        if self.waiting:
            self._write()
        assert self.writer is not None, "there is no table without rows"
        self.writer.close()

    def _write(self) -> None:
        table, self.waiting = pa.concat_tables(self.waiting), []
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.file, table.schema)
        self.writer.write_table(table)
