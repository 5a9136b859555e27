"""Reads a table as text, whole or in blocks of rows: every cell a str, nothing interpreted ("NA" stays "NA"), missing cells ""."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.interface import DataError

MAX_HEADER_BYTES = 100_000  # pandas takes a minute for a million columns
_CSV = {"dtype": str, "keep_default_na": False, "na_filter": False, "encoding": "utf-8-sig"}


def read_frame(path: Path) -> pd.DataFrame:
    """The whole table.

    Raises:
        DataError: the file is missing, no table, or not UTF-8.
    """
    _refuse_no_table(path)
    with _telling_of(path):
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, **_CSV)
    return _as_text(path, frame)


def read_blocks(path: Path, num_rows: int, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """The table in blocks of `num_rows` rows, the last one smaller; one without rows where the table has none.

    Args:
        path: the table.
        num_rows: of a block.
        columns: which; None: all.

    Raises:
        DataError: as `read_frame`, when what is wrong is met.
    """
    _refuse_no_table(path)
    with _telling_of(path):
        blocks = _read_parquet(path, num_rows, columns) if path.suffix == ".parquet" else _read_csv(path, num_rows)
        for frame in blocks:
            text = _as_text(path, frame)
            yield text if columns is None else text[list(columns)]


def _read_csv(path: Path, num_rows: int) -> Iterator[pd.DataFrame]:
    """All columns: pandas would not refuse a row with too many cells if it were told which to read."""
    with pd.read_csv(path, chunksize=num_rows, **_CSV) as chunks:
        for chunk in chunks:
            is_plain = isinstance(chunk.index, pd.RangeIndex)
            yield chunk.reset_index(drop=True) if is_plain else chunk


def _read_parquet(path: Path, num_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    """A file's own groups of rows have any size: what a block still lacks is taken from the next."""
    with pq.ParquetFile(path) as file:
        waiting = file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)
        num_blocks = 0
        for batch in file.iter_batches(num_rows, columns=columns):
            waiting = pa.concat_tables([waiting, pa.table(batch)])
            while len(waiting) >= num_rows:
                yield waiting.slice(0, num_rows).to_pandas()
                waiting, num_blocks = waiting.slice(num_rows), num_blocks + 1
        if len(waiting) or not num_blocks:
            yield waiting.to_pandas()


def _refuse_no_table(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such table; set data.root to its folder, or data.train_table to its name")
    with path.open("rb") as file:
        if path.suffix != ".parquet" and len(file.readline(MAX_HEADER_BYTES + 1)) > MAX_HEADER_BYTES:
            raise DataError(f"{path}: no readable table: its header is longer than {MAX_HEADER_BYTES:,} bytes")


@contextlib.contextmanager
def _telling_of(path: Path) -> Iterator[None]:
    """What pandas and pyarrow say of a file, as DataError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save the table as UTF-8") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: no readable table: {error}") from None


def _as_text(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Raises DataError where a CSV file was read wrongly for what its header is."""
    if path.suffix == ".parquet":
        return frame.reset_index(drop=True).astype("string").fillna("").astype(object)
    separator = next((mark for mark in (";", "\t", "|") if mark in str(frame.columns[0])), None)
    if separator:
        raise DataError(f"{path}: its header is separated by {separator!r}; save the table with commas, or as .parquet")
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{path}: its rows have more cells than its header has names ({list_names(frame)})")
    return frame.fillna("").astype(object)


def shorten(text: str, length: int) -> str:
    """A text cut to a length."""
    return text if len(text) <= length else f"{text[:length]}…"


def list_names(frame: pd.DataFrame) -> str:
    """The names of a table's columns, for a message."""
    return shorten(", ".join(map(repr, frame.columns)), 1000)
