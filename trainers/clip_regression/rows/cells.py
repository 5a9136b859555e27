"""The columns of a table as numbers and texts; each cell that is neither is noted with its row."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.problems import Problems
from trainers.clip_regression.rows.text import clean_text
from trainers.interface import DataError

MAX_TEXT_LENGTH = 10_000  # characters: encoders read 77 to 512 tokens, and tokenizers take long over long words
GROUPED = re.compile(r"[+-]?\d+([.,'’\s]\d+)*[.,'’\s]\d+")  # 1,234.5 or 1.234,5 or 1,5


def parse_dates(values: pd.Series) -> np.ndarray:
    """Unix seconds (float64, UTC) of ISO 8601 dates with or without time and zone; NaN where a value is no date."""
    texts = values.str.strip()
    texts = texts.where(texts.str.match(r"\d{4}"), "")  # pandas would read "now" and "today", too
    stamps = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601").dt.as_unit("us")
    microseconds = stamps.astype("int64").to_numpy(np.float64)
    return np.where(stamps.isna(), np.nan, microseconds / 1e6)


def parse_reference_date(data: DataConfig) -> float | None:
    """`data.reference_date` in unix seconds; None where it is not given.

    Raises:
        DataError: it is no date.
    """
    if data.reference_date is None:
        return None
    seconds = float(parse_dates(pd.Series([data.reference_date], dtype=object))[0])
    if np.isnan(seconds):
        raise DataError(f"data.reference_date={data.reference_date}: expected an ISO date such as 2025-06-30")
    return seconds


def join_texts(frame: pd.DataFrame, data: DataConfig) -> tuple[list[str], dict[str, np.ndarray]]:
    """The texts of the rows, and what is counted in them, by the name of its column."""
    texts, youtube, other = [""] * len(frame), np.zeros(len(frame)), np.zeros(len(frame))
    if data.text_columns:
        columns = [frame[name].tolist() for name in data.text_columns]
        for row, parts in enumerate(zip(*columns, strict=True)):
            text = " ".join(part for part in parts if part)[:MAX_TEXT_LENGTH]
            cleaned, youtube[row], other[row] = clean_text(text)
            texts[row] = cleaned if data.clean_text else text
    return texts, {"yt_link_count": youtube, "url_count": other, "has_yt_link": (youtube > 0).astype(np.float64)}


def read_time(frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems) -> np.ndarray:
    """Unix seconds, (N,), NaN where there is no date."""
    if not data.date_column:
        return np.full(len(ids), np.nan)
    time = parse_dates(frame[data.date_column])
    for row in np.flatnonzero(np.isnan(time)).tolist():
        bad.add(
            f"{data.date_column!r} is not an ISO date (2019-05-31 or 2019-05-31T18:00:00)",
            row,
            ids[row],
            repr(frame[data.date_column].iloc[row]),
        )
    return time


def read_numbers(
    frame: pd.DataFrame, made: dict[str, np.ndarray], ids: np.ndarray, data: DataConfig, bad: Problems
) -> np.ndarray:
    """(N, F), NaN where a cell is empty; what is made from the text where the table has no such column."""
    numbers = np.empty((len(ids), len(data.numeric_columns)))
    for position, name in enumerate(data.numeric_columns):
        if name not in frame.columns:
            numbers[:, position] = made[name]
            continue
        cells = frame[name].str.strip()
        numbers[:, position] = pd.to_numeric(cells, errors="coerce")
        for row in np.flatnonzero(~np.isfinite(numbers[:, position]) & (cells != "").to_numpy()).tolist():
            bad.add(f"{name!r} is not a finite number", row, ids[row], _show_cell(cells.iloc[row]))
            numbers[row, position] = np.nan
    return numbers


def read_target(frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems) -> np.ndarray:
    """(N,)."""
    cells = frame[data.target].str.strip()
    target: np.ndarray = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    for row in np.flatnonzero(~np.isfinite(target)).tolist():
        bad.add(f"target {data.target!r} is not a finite number", row, ids[row], _show_cell(cells.iloc[row]))
    for row in np.flatnonzero(target < 0).tolist():
        bad.add(f"target {data.target!r} is negative", row, ids[row], cells.iloc[row])
    return target


def read_folds(frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems) -> np.ndarray | None:
    """The user's own folds, (N,), or None."""
    if not data.fold_column:
        return None
    folds: np.ndarray = pd.to_numeric(frame[data.fold_column], errors="coerce").to_numpy(np.float64)
    for row in np.flatnonzero(~(np.isfinite(folds) & (folds >= -2) & (folds == np.round(folds)))).tolist():
        bad.add(f"fold column {data.fold_column!r} is not a whole number, at least -2", row, ids[row])
    return folds


def read_groups(
    frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems, *, is_test: bool
) -> np.ndarray | None:
    """Test rows need no group."""
    if not data.group_column or (is_test and data.group_column not in frame.columns):
        return None
    groups: np.ndarray = frame[data.group_column].to_numpy(str)
    for row in np.flatnonzero(groups == "").tolist() if not is_test else ():
        bad.add(f"group column {data.group_column!r} is empty", row, ids[row])
    return groups


def _show_cell(cell: str) -> str:
    """A cell that is no number, and why where that is plain."""
    return repr(cell) + ("; write 1234.5, without separators of thousands" if GROUPED.fullmatch(cell) else "")
