"""Reads the training and the test table and checks every row. No torch: the driver runs this before anything starts.

Every problem is collected, counted and reported with its first offenders; a user mends a table in one go, not one
error at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.frames import list_names, read_frame, shorten
from trainers.clip_regression.rows.text import LINK_COLUMNS, clean_text
from trainers.interface import FORMULA, DataError
from trainers.storage.picture_files import PictureFolder, read_end
from trainers.storage.remote_files import RemoteFile

MAX_TEXT_LENGTH = 10_000  # characters: encoders read 77 to 512 tokens, and tokenizers take long over long words
MAX_ID_LENGTH = 200  # characters; with a suffix it has to be the name of a file
SHOWN_OFFENDERS = 3
SECONDS_PER_YEAR = 365.2425 * 86400
# Paths, nothing at all, and characters that control terminals and the direction of text.
_UNSAFE_ID = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|^\.|^\s*$")


@dataclass
class Problems:
    """What is wrong with a table: {kind: [(row number, id, detail)]}, in the order in which it was found."""

    table: Path
    found: dict[str, list[tuple[int, str, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, row: int, row_id: str, detail: str = "") -> None:
        self.found[kind].append((row, shorten(row_id, MAX_ID_LENGTH), shorten(detail, 200)))

    def describe(self, num_rows: int) -> str:
        lines = []
        for kind, offenders in self.found.items():
            shown = ", ".join(
                f"row {row + 1} (id {row_id!r}{f': {detail}' if detail else ''})"
                for row, row_id, detail in offenders[:SHOWN_OFFENDERS]
            )
            more = f" and {len(offenders) - SHOWN_OFFENDERS} more" if len(offenders) > SHOWN_OFFENDERS else ""
            lines.append(f"  {kind}: {len(offenders)} of {num_rows} rows: {shown}{more}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Rows:
    """The checked rows of one table; all arrays have N entries in table order.

    Attributes:
        ids: str.
        texts: the text columns joined, cut to MAX_TEXT_LENGTH characters (then cleaned where the config says so). Empty, as
            `pictures` may be, where features stand for them.
        time: float64 unix seconds, NaN without a date.
        numbers: (N, F) float64 in the order of `data.numeric_columns`, NaN where a cell is empty.
        target: float64, NaN for test rows.
        pictures: each picture's file (links are followed), None where there is none or it is unreadable (the mean colour then).
        groups, folds: values of `data.group_column` ("" for a test row without one), `data.fold_column`, or None.
        bad_rows: the rows that were dropped or mended.
        digests: by kind (picture, text) a hash of the content, (N, 16) uint8; only of rows that `rows_file.py` has read.
    """

    ids: np.ndarray
    texts: list[str]
    time: np.ndarray
    numbers: np.ndarray
    target: np.ndarray
    pictures: list[Path | RemoteFile | None]
    groups: np.ndarray | None
    folds: np.ndarray | None
    bad_rows: tuple[dict[str, str], ...]
    digests: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: np.ndarray) -> Rows:
        """The rows at these positions."""
        return replace(
            self,
            ids=self.ids[index],
            texts=[self.texts[i] for i in index] if self.texts else [],
            time=self.time[index],
            numbers=self.numbers[index],
            target=self.target[index],
            pictures=[self.pictures[i] for i in index] if self.pictures else [],
            groups=None if self.groups is None else self.groups[index],
            folds=None if self.folds is None else self.folds[index],
            digests={kind: digest_NK[index] for kind, digest_NK in self.digests.items()},
        )


def open_pictures(data: DataConfig, folder: str, table: str) -> PictureFolder | None:
    """The folder of a table's pictures; None if none are used.

    Raises:
        DataError: there is no such folder.
    """
    if not data.train_pictures:
        return None
    root = data.folder / folder
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder of pictures for {Path(table).name}; set data.train_pictures and data.test_pictures, or "
            "data.train_pictures= to learn without pictures"
        )
    return PictureFolder(root)


class Pictures(Protocol):
    """A folder of pictures, by the ids of their rows: a `PictureFolder`, or one in object storage."""

    several: dict[str, list[str]]

    def find_all(self, ids: Sequence[str]) -> Sequence[tuple[Path | RemoteFile | None, str | None]]:
        """See `PictureFolder`."""


FolderOpener = Callable[[DataConfig, str, str], Pictures | None]  # as `open_pictures`


def read_train_rows(data: DataConfig, open_folder: FolderOpener = open_pictures) -> Rows:
    """The checked training rows.

    Args:
        data: whose root is a folder of this machine.
        open_folder: opens the folder of their pictures, if it is not below that root.

    Raises:
        DataError: with every problem found; with `data.on_bad_row=drop` only for what cannot be dropped.
    """
    return _read_rows(data, data.train_table, data.train_pictures, open_folder, is_test=False)


def read_test_rows(data: DataConfig, open_folder: FolderOpener = open_pictures) -> Rows | None:
    """The checked test rows, or None where there is no test table. Test rows are never dropped."""
    if not data.test_table or not (data.folder / data.test_table).exists():
        return None
    return _read_rows(data, data.test_table, data.test_pictures, open_folder, is_test=True)


def fingerprint_files(data: DataConfig, tables: list[Rows], weights: str | None = None) -> str:
    """SHA-256 over the bytes of the tables, and over name, size and last 4 KiB of each picture and of a weights file; of a picture in
    object storage over name and content."""
    digest = hashlib.sha256()
    for name in (data.train_table, data.test_table):
        path = data.folder / name
        if name and path.is_file():
            digest.update(path.read_bytes())
        digest.update(b"\0")
    files = [picture for rows in tables for picture in rows.pictures if picture is not None]
    if weights and Path(weights).is_file():
        files.append(Path(weights))
    for file in files:
        if isinstance(file, RemoteFile):
            digest.update(f"{file.name}:".encode() + file.digest)
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        digest.update(read_end(file, size, 4096))
    return digest.hexdigest()


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


def _read_rows(data: DataConfig, table: str, picture_folder: str, open_folder: FolderOpener, *, is_test: bool) -> Rows:
    path = data.folder / table
    frame = read_frame(path)
    check_columns(path, frame, data, is_test=is_test)
    if data.max_rows is not None and not is_test:
        frame = frame.iloc[: data.max_rows]
    if frame.empty:
        raise DataError(f"{path}: the table has a header and no rows")
    return _check_rows(frame, data, table, open_folder(data, picture_folder, table), is_test=is_test)


def read_block(frame: pd.DataFrame, data: DataConfig, pictures: Pictures | None) -> Rows:
    """The checked rows of a block of the test table. Whatever is wrong with their content is mended and listed."""
    return _check_rows(frame, replace(data, on_bad_row="drop"), data.test_table, pictures, is_test=True)


def _check_rows(frame: pd.DataFrame, data: DataConfig, table: str, folder: Pictures | None, *, is_test: bool) -> Rows:
    path = data.folder / table
    ids = frame[data.id_column].to_numpy(object)
    fatal, bad = Problems(path), Problems(path)
    check_ids(ids, fatal)
    check_unique(ids, range(len(ids)), fatal)

    texts, link_counts = _join_texts(frame, data)
    time = _read_time(frame, ids, data, bad)
    numbers = _read_numbers(frame, link_counts, ids, data, bad)
    target = np.full(len(ids), np.nan) if is_test else _read_target(frame, ids, data, bad)
    pictures: list[Path | RemoteFile | None] = [None] * len(ids)
    if folder is not None and not fatal.found:
        check_one_picture(ids, folder, fatal)
        pictures = _find_pictures(ids, folder, bad)
    folds = None if is_test else _read_folds(frame, ids, data, bad)
    groups = _read_groups(frame, ids, data, bad, is_test=is_test)

    _refuse_problems(fatal, bad, data, len(ids))
    rows = Rows(
        ids=ids.astype(str),
        texts=texts,
        time=time,
        numbers=numbers,
        target=target,
        pictures=pictures,
        groups=groups,
        folds=folds,
        bad_rows=_list_bad_rows(bad, table, "mended" if is_test else "dropped"),
    )
    if not bad.found or is_test:
        return rows
    dropped = {row for offenders in bad.found.values() for row, _, _ in offenders}
    kept = np.array([row for row in range(len(ids)) if row not in dropped], dtype=np.int64)
    if len(kept) == 0:
        raise DataError(f"{path}: every row is bad, none is left to learn from:\n{bad.describe(len(ids))}")
    return rows.take(kept)


def _refuse_problems(fatal: Problems, bad: Problems, data: DataConfig, num_rows: int) -> None:
    blocking = dict(fatal.found) if data.on_bad_row == "drop" else {**fatal.found, **bad.found}
    if not blocking:
        return
    advice = "Mend the table"
    if not fatal.found:
        advice += ", or set data.on_bad_row=drop to go on without bad training rows (they are listed in bad_rows.csv)"
    raise DataError(f"{fatal.table} cannot be used:\n{Problems(fatal.table, blocking).describe(num_rows)}\n{advice}.")


def _list_bad_rows(bad: Problems, table: str, done: str) -> tuple[dict[str, str], ...]:
    return tuple(
        {"table": table, "id": row_id, "problem": f"{kind}{f': {detail}' if detail else ''}", "done": done}
        for kind, offenders in bad.found.items()
        for _, row_id, detail in offenders
    )


def list_inputs(data: DataConfig) -> dict[str, list[str]]:
    """The columns that a row is predicted from, by the field that names them; what can be made from the text is left out."""
    made = LINK_COLUMNS if data.text_columns else ()
    return {
        "data.id_column": [data.id_column],
        "data.text_columns": list(data.text_columns),
        "data.date_column": [data.date_column] if data.date_column else [],
        "data.numeric_columns": [name for name in data.numeric_columns if name not in made],
    }


def check_columns(path: Path, frame: pd.DataFrame, data: DataConfig, *, is_test: bool) -> None:
    """Raises DataError where a table lacks columns."""
    wanted = list_inputs(data)
    if not is_test:
        wanted["data.target"] = [data.target]
        wanted["data.group_column"] = [data.group_column] if data.group_column else []
        wanted["data.fold_column"] = [data.fold_column] if data.fold_column else []
    missing = [f"{name!r} ({key})" for key, names in wanted.items() for name in names if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; the table has "
            f"{list_names(frame)}. Set the named field to a column that exists."
        )


def check_ids(ids: np.ndarray, fatal: Problems, first_row: int = 0) -> None:
    """Finds ids that cannot name a file or a line of a CSV table."""
    for row, row_id in enumerate(ids, start=first_row):
        if _UNSAFE_ID.search(row_id):
            fatal.add("id is empty or could be a path (it names a picture file)", row, row_id)
        elif FORMULA.search(row_id):
            fatal.add("id would be run as a formula by a spreadsheet that opens the submission", row, row_id)
        if len(row_id) > MAX_ID_LENGTH:
            fatal.add(f"id is longer than {MAX_ID_LENGTH} characters", row, row_id)


def check_unique(ids: Iterable[str], rows: Iterable[int], fatal: Problems) -> None:
    """Finds ids that are there twice."""
    seen: dict[str, int] = {}
    for row, row_id in zip(rows, ids, strict=True):
        if row_id in seen:
            fatal.add("duplicate id", row, row_id, f"first in row {seen[row_id] + 1}")
        seen.setdefault(row_id, row)


def _join_texts(frame: pd.DataFrame, data: DataConfig) -> tuple[list[str], dict[str, np.ndarray]]:
    texts, youtube, other = [""] * len(frame), np.zeros(len(frame)), np.zeros(len(frame))
    if data.text_columns:
        columns = [frame[name].tolist() for name in data.text_columns]
        for row, parts in enumerate(zip(*columns, strict=True)):
            text = " ".join(part for part in parts if part)[:MAX_TEXT_LENGTH]
            cleaned, youtube[row], other[row] = clean_text(text)
            texts[row] = cleaned if data.clean_text else text
    return texts, {"yt_link_count": youtube, "url_count": other, "has_yt_link": (youtube > 0).astype(np.float64)}


def _read_time(frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems) -> np.ndarray:
    if not data.date_column:
        return np.full(len(ids), np.nan)
    time = parse_dates(frame[data.date_column])
    for row in np.flatnonzero(np.isnan(time)).tolist():
        bad.add(
            f"{data.date_column!r} is no ISO date (2019-05-31 or 2019-05-31T18:00:00)",
            row,
            ids[row],
            repr(frame[data.date_column].iloc[row]),
        )
    return time


def _read_numbers(
    frame: pd.DataFrame, made: dict[str, np.ndarray], ids: np.ndarray, data: DataConfig, bad: Problems
) -> np.ndarray:
    numbers = np.empty((len(ids), len(data.numeric_columns)))
    for position, name in enumerate(data.numeric_columns):
        if name not in frame.columns:
            numbers[:, position] = made[name]
            continue
        cells = frame[name].str.strip()
        numbers[:, position] = pd.to_numeric(cells, errors="coerce")
        for row in np.flatnonzero(~np.isfinite(numbers[:, position]) & (cells != "").to_numpy()).tolist():
            bad.add(f"{name!r} is no finite number", row, ids[row], repr(cells.iloc[row]))
            numbers[row, position] = np.nan
    return numbers


def _read_target(frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems) -> np.ndarray:
    cells = frame[data.target].str.strip()
    target: np.ndarray = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    for row in np.flatnonzero(~np.isfinite(target)).tolist():
        bad.add(f"target {data.target!r} is no finite number", row, ids[row], repr(cells.iloc[row]))
    for row in np.flatnonzero(target < 0).tolist():
        bad.add(f"target {data.target!r} is negative", row, ids[row], cells.iloc[row])
    return target


def _read_folds(frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems) -> np.ndarray | None:
    if not data.fold_column:
        return None
    folds: np.ndarray = pd.to_numeric(frame[data.fold_column], errors="coerce").to_numpy(np.float64)
    for row in np.flatnonzero(~(np.isfinite(folds) & (folds >= -2) & (folds == np.round(folds)))).tolist():
        bad.add(f"fold column {data.fold_column!r} is no whole number from -2", row, ids[row])
    return folds


def _read_groups(
    frame: pd.DataFrame, ids: np.ndarray, data: DataConfig, bad: Problems, *, is_test: bool
) -> np.ndarray | None:
    """Test rows need no group."""
    if not data.group_column or (is_test and data.group_column not in frame.columns):
        return None
    groups: np.ndarray = frame[data.group_column].to_numpy(str)
    for row in np.flatnonzero(groups == "").tolist() if not is_test else ():
        bad.add(f"group column {data.group_column!r} is empty", row, ids[row])
    return groups


def check_one_picture(ids: np.ndarray, folder: Pictures, fatal: Problems, first_row: int = 0) -> None:
    """Finds ids with several pictures."""
    for row, row_id in enumerate(ids if folder.several else (), start=first_row):
        if row_id in folder.several:
            fatal.add("several pictures of one id", row, row_id, ", ".join(sorted(folder.several[row_id])))


def _find_pictures(ids: np.ndarray, folder: Pictures, bad: Problems) -> list[Path | RemoteFile | None]:
    found = folder.find_all(ids.tolist())
    for row, (_, problem) in enumerate(found):
        if problem:
            bad.add("picture missing or unreadable", row, ids[row], problem)
    return [None if problem else picture for picture, problem in found]
