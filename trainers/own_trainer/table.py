"""Reads the tables of a run as pandas has them, and finds in them ids, target, groups, times and folds. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from trainers.interface import FORMULA, DataError
from trainers.own_trainer.config import DataConfig
from trainers.reading.table_files import is_table_name
from trainers.reading.tables import read_typed, shorten
from trainers.values import describe_missing

_TRAIN_NAMES, _TEST_NAMES = ("train", "train_val"), ("test",)
_ENDINGS = (".csv", ".parquet", ".csv.gz", ".tsv")
_SHOWN = 3


def find_train_table(data: DataConfig) -> Path:
    """The table of the rows to learn from.

    Raises:
        DataError: there is none, or several and nothing says which.
    """
    assert data.root is not None
    root = Path(data.root)
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such file or folder")
    if data.train_table:
        return root / data.train_table
    if found := _find_named(root, _TRAIN_NAMES):
        return found
    tables = sorted(path for path in root.iterdir() if is_table_name(path) and path.stem not in _TEST_NAMES)
    if len(tables) == 1:
        return tables[0]
    shown = ", ".join(path.name for path in tables[:9]) or "none"
    raise DataError(f"data.root={root} holds these tables: {shown}; set data.train_table to the one to learn from")


def find_test_table(data: DataConfig) -> Path | None:
    """The table of the rows to predict; None: there is none.

    Raises:
        DataError: it is named and not there.
    """
    assert data.root is not None
    root = Path(data.root)
    if not data.test_table:
        return _find_named(root, _TEST_NAMES) if root.is_dir() else None
    folder = root if root.is_dir() else root.parent
    places = [folder / data.test_table, Path(os.path.expanduser(data.test_table)).absolute()]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise DataError(f"data.test_table={data.test_table}: no such file, neither in {folder} nor as {places[1]}")
    return found


def _find_named(root: Path, names: Sequence[str]) -> Path | None:
    places = [root / f"{name}{ending}" for name in names for ending in _ENDINGS]
    return next((path for path in places if path.is_file()), None)


def read_rows(path: Path, data: DataConfig, *, is_test: bool) -> tuple[pd.DataFrame, np.ndarray]:
    """A table, and its rows' ids, (N,) str.

    Raises:
        DataError: it is no table, lacks columns, or its ids are not unique.
    """
    frame = read_typed(path, data.table_format, as_text=[data.id_column] if data.id_column else [])
    wanted = [(name, field) for name, field in data.roles.items() if not is_test or name == data.id_column]
    if missing := [(name, field) for name, field in wanted if name not in frame]:
        raise DataError(f"{path}: {describe_missing(missing, frame)}")
    if frame.empty:
        raise DataError(f"{path}: the table has a header and no rows")
    ids = np.array(frame[data.id_column].astype(str) if data.id_column else np.arange(len(frame)).astype(str), str)
    _check_ids(path, ids)
    return frame, ids


def _check_ids(path: Path, ids: np.ndarray) -> None:
    bad = [
        f"row {row + 1} (id {shorten(row_id, 60)!r}) is empty, or would be run as a formula by a spreadsheet"
        for row, row_id in enumerate(ids.tolist())
        if not row_id.strip() or not row_id.isprintable() or FORMULA.search(row_id)
    ]
    first: dict[str, int] = {}
    for row, row_id in enumerate(ids.tolist()):
        if row_id in first:
            bad.append(f"row {row + 1} has the id {shorten(row_id, 60)!r} of row {first[row_id] + 1}")
        first.setdefault(row_id, row)
    if bad:
        more = f", and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"{path}: ids name rows, once each: {'; '.join(bad[:_SHOWN])}{more}. Correct them, or leave data.id_column "
            "out: then rows are numbered"
        )


def is_number(column: pd.Series) -> bool:
    """Whether a column is of numbers, truth values not among them."""
    return bool(pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype))


def number_classes(target: pd.Series) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of a target's classes in the order of its values, and each row's number among them, (N,) int64."""
    values, number_N = np.unique(target.to_numpy(object if not is_number(target) else None), return_inverse=True)
    return tuple(map(name_class, values.tolist())), number_N.astype(np.int64)


def name_class(value: object) -> str:
    """A class by its name: 1 and 1.0 have the same."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_numbers(column: pd.Series, path: Path, what: str) -> np.ndarray:
    """A column as numbers, (N,) float64, NaN where a cell is empty.

    Raises:
        DataError: it is of something else.
    """
    if not is_number(column):
        texts = pd.to_numeric(column, errors="coerce")
        wrong = np.flatnonzero(texts.isna().to_numpy() & column.notna().to_numpy())
        example = f", such as {column.iloc[wrong[0]]!r} in row {wrong[0] + 1}" if len(wrong) else ""
        raise DataError(f"{path}: {what} {column.name!r} is no number in {len(wrong)} of {len(column)} rows{example}")
    numbers: np.ndarray = column.to_numpy(np.float64, na_value=np.nan)
    return numbers


def read_times(column: pd.Series, path: Path) -> np.ndarray:
    """A column of dates or numbers as numbers that grow with time, (N,) float64.

    Raises:
        DataError: a cell is neither.
    """
    if is_number(column):
        times = read_numbers(column, path, "the time column")
    else:
        stamps = pd.to_datetime(column, errors="coerce", utc=True, format=None if _is_date(column) else "ISO8601")
        times = np.where(stamps.isna(), np.nan, stamps.dt.as_unit("us").astype("int64").to_numpy(np.float64) / 1e6)
    if len(bad := np.flatnonzero(~np.isfinite(times))):
        raise DataError(
            f"{path}: the time column {column.name!r} is neither a number nor a date (2025-06-30) in {len(bad)} of "
            f"{len(column)} rows, such as {column.iloc[bad[0]]!r} in row {bad[0] + 1}"
        )
    return times


def _is_date(column: pd.Series) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column.dtype))


def read_folds(column: pd.Series, path: Path) -> np.ndarray:
    """The user's own folds, (N,) int.

    Raises:
        DataError: a cell is no whole number from -2.
    """
    folds = read_numbers(column, path, "the fold column")
    if len(bad := np.flatnonzero(~((folds >= -2) & (folds == np.round(folds))))):
        raise DataError(
            f"{path}: the fold column {column.name!r} is no whole number from -2 in {len(bad)} of {len(column)} rows, "
            f"such as {column.iloc[bad[0]]!r} in row {bad[0] + 1}"
        )
    return folds.astype(np.int64)


def hash_rows(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> list[np.ndarray]:
    """For each table a key of each row, (N,) uint64: equal where all these columns are."""
    shared = [name for name in columns if all(name in frame for frame in frames)]
    texts = [frame[shared].astype("string").fillna("") for frame in frames]
    return [np.maximum(pd.util.hash_pandas_object(one, index=False).to_numpy(np.uint64), 1) for one in texts]
