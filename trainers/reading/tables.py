"""Reads a table as text, for all families: every cell a str, nothing interpreted ("NA" stays "NA"), missing cells "".

CSV (packed or not) and Parquet, whole or in blocks of rows. What is wrong with a file is one sentence with the line.
"""

from __future__ import annotations

import contextlib
import lzma
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.interface import DataError
from trainers.reading.table_files import CsvFile, TableFormat, examine, is_parquet, open_unpacked, refuse_other_kinds

_AS_TEXT = {"dtype": str, "keep_default_na": False, "na_filter": False}
NAMED_TWICE = "named_twice"  # in `frame.attrs`: names that several columns of the file have


def read_frame(path: Path, given: TableFormat | None = None) -> pd.DataFrame:
    """The whole table.

    Args:
        path: the table.
        given: what the user says of CSV files.

    Raises:
        DataError: the file is missing, no table, or it does not say how it is to be read.
    """
    if not _is_parquet(path):
        file = _examine_lines(path, given)
        with _telling_of(path, file), open_unpacked(path) as source:
            return _check_csv(file, pd.read_csv(source, sep=file.separator, encoding=file.encoding, **_AS_TEXT))
    with _telling_of(path):
        return _as_text(_name_index(pd.read_parquet(path)))


def read_typed(path: Path, given: TableFormat | None = None, *, as_text: Sequence[str] = ()) -> pd.DataFrame:
    """The whole table as pandas reads it: numbers as numbers, empty cells as missing.

    Args:
        path: the table.
        given: what the user says of CSV files.
        as_text: columns of CSV files that are left as they are.

    Raises:
        DataError: as `read_frame`.
    """
    if _is_parquet(path):
        with _telling_of(path):
            frame = _name_index(pd.read_parquet(path))
    else:
        file = _examine_lines(path, given)
        with _telling_of(path, file), open_unpacked(path) as source:
            types = dict.fromkeys(as_text, str)
            frame = pd.read_csv(source, sep=file.separator, encoding=file.encoding, dtype=types, low_memory=False)
        if not isinstance(frame.index, pd.RangeIndex):
            raise DataError(f"{path}: its rows have more cells than its header has names ({list_names(frame)})")
    frame.columns = frame.columns.map(str)
    if frame.columns.has_duplicates:
        raise DataError(f"the table has several columns of one name: {list_names(frame)}")
    return frame


def read_blocks(
    path: Path, num_rows: int, columns: Sequence[str] | None = None, given: TableFormat | None = None
) -> Iterator[pd.DataFrame]:
    """The table in blocks of `num_rows` rows, the last one smaller; one without rows where the table has none. Lines
    that are too short are not looked for (`check_lines`).

    Args:
        path: the table.
        num_rows: of a block.
        columns: which; None: all.
        given: as for `read_frame`.

    Raises:
        DataError: as `read_frame`, when what is wrong is met.
    """
    file = None if _is_parquet(path) else examine(path, given or TableFormat())
    with _telling_of(path, file):
        blocks = _read_parquet(path, num_rows, columns) if file is None else _read_csv(file, num_rows)
        for frame in blocks:
            yield frame if columns is None else frame[list(columns)]


def check_lines(path: Path, given: TableFormat | None = None) -> None:
    """Raises DataError where a line of a CSV file has more or fewer cells than its header."""
    if not _is_parquet(path):
        _examine_lines(path, given)


def _examine_lines(path: Path, given: TableFormat | None) -> CsvFile:
    file = examine(path, given or TableFormat())
    with _telling_of(path, file):
        if wrong := file.find_ragged_line():
            raise DataError(f"{path}: no readable table: {wrong}")
    return file


def _is_parquet(path: Path) -> bool:
    if not path.is_file():
        raise DataError(f"{path}: no such table; set data.root to its folder, or data.train_table to its name")
    refuse_other_kinds(path)
    return is_parquet(path)


def _read_csv(file: CsvFile, num_rows: int) -> Iterator[pd.DataFrame]:
    """All columns: pandas would not refuse a row with too many cells if it were told which to read."""
    with (
        open_unpacked(file.path) as source,
        pd.read_csv(source, sep=file.separator, encoding=file.encoding, chunksize=num_rows, **_AS_TEXT) as chunks,
    ):
        for chunk in chunks:
            is_plain = isinstance(chunk.index, pd.RangeIndex)
            yield _check_csv(file, chunk.reset_index(drop=True) if is_plain else chunk)


def _check_csv(file: CsvFile, frame: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{file.path}: its rows have more cells than its header has names ({list_names(frame)})")
    text = frame.fillna("").astype(object)
    text.attrs[NAMED_TWICE] = [name for name, times in Counter(file.header).items() if times > 1 and name]
    return text


def _read_parquet(path: Path, num_rows: int, columns: Sequence[str] | None) -> Iterator[pd.DataFrame]:
    """A file's own groups of rows have any size: what a block still lacks is taken from the next."""
    with pq.ParquetFile(path) as file:
        waiting = file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)
        num_blocks = 0
        for batch in file.iter_batches(num_rows, columns=columns):
            waiting = pa.concat_tables([waiting, pa.table(batch)])
            while len(waiting) >= num_rows:
                yield _as_text(_name_index(waiting.slice(0, num_rows).to_pandas()))
                waiting, num_blocks = waiting.slice(num_rows), num_blocks + 1
        if len(waiting) or not num_blocks:
            yield _as_text(_name_index(waiting.to_pandas()))


def _name_index(frame: pd.DataFrame) -> pd.DataFrame:
    """What pandas has kept as an index is a column like others, called `index` where it has no name; mere row numbers
    are none."""
    index = frame.index
    if not isinstance(index, pd.MultiIndex) and index.name is None:
        is_column = not pd.api.types.is_numeric_dtype(index) and "index" not in frame
        return frame.reset_index(drop=not is_column)
    names = [name for name in index.names if name is not None and name not in frame]
    return (frame.reset_index(names) if names else frame).reset_index(drop=True)


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    frame.columns = frame.columns.map(str)
    if frame.columns.has_duplicates:
        raise DataError(f"the table has several columns of one name: {list_names(frame)}")
    return frame.astype("string").fillna("").astype(object)


@contextlib.contextmanager
def _telling_of(path: Path, file: CsvFile | None = None) -> Iterator[None]:
    """What pandas and pyarrow say of a file, as DataError."""
    try:
        yield
    except UnicodeError:
        assert file is not None, "Parquet is no text"
        raise DataError(f"{path}: {file.explain_encoding()}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        cause = str(error).strip()
        if file is not None and "EOF inside string" in cause:
            cause = file.find_open_quote()
        raise DataError(f"{path}: no readable table: {cause}") from None
    except (pa.ArrowException, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise DataError(f"{path}: no readable table: {error}") from None
    except OSError as error:
        if error.errno is not None:  # the storage's; what is wrong with packed content has no number
            raise
        raise DataError(f"{path}: no readable table: {error}") from None


def shorten(text: str, length: int) -> str:
    """A text cut to a length."""
    return text if len(text) <= length else f"{text[:length]}…"


def list_names(frame: pd.DataFrame) -> str:
    """The names of a table's columns, for a message."""
    return shorten(", ".join(map(repr, frame.columns)), 1000)
