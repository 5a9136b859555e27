"""Reads the training and the test table and checks every row. No torch: the driver runs this before anything starts.

Every problem is collected, counted and reported with its first offenders; a user mends a table in one go, not one
error at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.cells import (
    join_texts,
    read_folds,
    read_groups,
    read_numbers,
    read_target,
    read_time,
)
from trainers.clip_regression.rows.class_folders import find_class_folders
from trainers.clip_regression.rows.labels import hold_classes, number_labels, read_labels
from trainers.clip_regression.rows.problems import (
    Problems,
    check_ids,
    check_unique,
    list_bad_rows,
    refuse_problems,
)
from trainers.clip_regression.rows.text import LINK_COLUMNS
from trainers.interface import DataError
from trainers.reading.known_files import KnownFiles
from trainers.reading.likeness import explain_mismatch
from trainers.reading.picture_files import Found, LeftOut, PictureFolder, collect_left_out, digest_end
from trainers.reading.picture_rules import PictureRules
from trainers.reading.tables import NAMED_TWICE, read_frame
from trainers.storage.remote_files import RemoteFile
from trainers.values import describe_missing

SECONDS_PER_YEAR = 365.2425 * 86400


@dataclass(frozen=True)
class Rows:
    """The checked rows of one table; all arrays have N entries in table order.

    Attributes:
        ids: str.
        texts: the text columns joined, cut to MAX_TEXT_LENGTH characters (then cleaned where the config says so).
            Empty, as `pictures` may be, where features stand for them.
        time: float64 unix seconds, NaN without a date.
        numbers: (N, F) float64 in the order of `data.numeric_columns`, NaN where a cell is empty.
        target: float64, NaN for test rows; of classes their numbers in `classes`.
        pictures: each picture's file (links are followed), None where there is none or it is unreadable (the mean
            colour then).
        groups, folds: values of `data.group_column` ("" for a test row without one), `data.fold_column`, or None.
        bad_rows: the rows that were dropped or mended, and files that were left out.
        digests: by kind (picture, text) a hash of the content, (N, 16) uint8; only of rows that `rows_file.py` has
            read.
        largest: values of pictures with 16 bits that do not say how many are in use, of all rows of the table.
        notes: sentences for the user.
        classes: names of the classes, where the target is one; of a test table those that it holds.
        ends: as `Found.end`, of each picture; only of rows that were read of a table.
        known: what has looked at the pictures.
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
    largest: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    ends: list[bytes] = field(default_factory=list)
    known: KnownFiles = field(default_factory=KnownFiles)

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
            ends=[self.ends[i] for i in index] if self.ends else [],
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
            f"{root}: no such folder of the pictures of {Path(table).name}; set data.train_pictures and "
            "data.test_pictures, or data.train_pictures= to learn without pictures"
        )
    return PictureFolder(root, data.picture_rules)


class Pictures(Protocol):
    """A folder of pictures, by the ids of their rows: a `PictureFolder`, or one in object storage."""

    suffix_of: dict[str, str]
    several: dict[str, list[str]]
    left_out: LeftOut
    rules: PictureRules
    known: KnownFiles

    def find_all(self, ids: Sequence[str]) -> Sequence[Found]:
        """See `PictureFolder`."""


FolderOpener = Callable[[DataConfig, str, str], Pictures | None]  # as `open_pictures`


def read_train_rows(
    data: DataConfig, open_folder: FolderOpener = open_pictures, known: KnownFiles | None = None
) -> Rows:
    """The checked training rows.

    Args:
        data: whose root is a folder of this machine.
        open_folder: opens the folder of their pictures, if it is not below that root.
        known: looks at pictures on a disk.

    Raises:
        DataError: with every problem found; with `data.on_bad_row=drop` only for what cannot be dropped.
    """
    return _read_rows(data, data.train_table, data.train_pictures, open_folder, known or KnownFiles(), is_test=False)


def read_test_rows(
    data: DataConfig, open_folder: FolderOpener = open_pictures, known: KnownFiles | None = None
) -> Rows | None:
    """The checked test rows, or None where there is no test table. Test rows are never dropped."""
    if find_class_folders(data, is_test=True) is None and (
        not data.test_table or not (data.folder / data.test_table).exists()
    ):
        return None
    return _read_rows(data, data.test_table, data.test_pictures, open_folder, known or KnownFiles(), is_test=True)


def fingerprint_files(data: DataConfig, tables: list[Rows], weights: str | None = None) -> str:
    """SHA-256 over the bytes of the tables, and over name, size and a hash of the last 4 KiB of each picture and of a
    weights file; of a picture in object storage over name and content."""
    digest = hashlib.sha256()
    for name in (data.train_table, data.test_table):
        path = data.folder / name
        if name and path.is_file():
            digest.update(path.read_bytes())
        digest.update(b"\0")
    if not (data.folder / data.train_table).is_file():  # folders of classes: ids name them
        digest.update("\n".join(row_id for rows in tables for row_id in rows.ids).encode())
    for rows in tables:
        for picture, end in zip(rows.pictures, rows.ends, strict=True):
            if picture is not None:
                content = picture.digest if isinstance(picture, RemoteFile) else end
                digest.update(f"{picture.name}:".encode() + content)
    if weights and Path(weights).is_file():
        digest.update(f"{Path(weights).name}:".encode() + digest_end(Path(weights)))
    return digest.hexdigest()


def _read_rows(
    data: DataConfig, table: str, picture_folder: str, open_folder: FolderOpener, known: KnownFiles, *, is_test: bool
) -> Rows:
    path = data.folder / table
    labelled = find_class_folders(data, is_test=is_test)
    frame = read_frame(path, data.table_format) if labelled is None else labelled.frame
    check_columns(path, frame, data, is_test=is_test)
    if data.max_rows is not None and not is_test:
        frame = frame.iloc[: data.max_rows]
    if frame.empty:
        raise DataError(f"{path} holds no row: expected rows below the header")
    folder = labelled or open_folder(data, picture_folder, table)
    if labelled is not None:
        data = replace(data, task="classification")
    if folder is not None:
        folder.rules, folder.known = replace(folder.rules, finds_depth=data.bit_depth is None), known
    rows = _check_rows(frame, data, table, folder, is_test=is_test)
    notes, left_out = collect_left_out({} if folder is None else {picture_folder: folder.left_out})
    return replace(rows, notes=rows.notes + notes, bad_rows=rows.bad_rows + left_out, known=known)


def read_block(frame: pd.DataFrame, data: DataConfig, pictures: Pictures | None) -> Rows:
    """The checked rows of a block of the test table. Whatever is wrong with their content is mended and listed."""
    return _check_rows(frame, replace(data, on_bad_row="drop"), data.test_table, pictures, is_test=True)


def _check_rows(frame: pd.DataFrame, data: DataConfig, table: str, folder: Pictures | None, *, is_test: bool) -> Rows:
    path = data.folder / table
    ids = frame[data.id_column].to_numpy(object)
    fatal, bad = Problems(path), Problems(path)
    check_ids(ids, fatal)
    check_unique(ids, range(len(ids)), fatal)

    texts, link_counts = join_texts(frame, data)
    time = read_time(frame, ids, data, bad)
    numbers = read_numbers(frame, link_counts, ids, data, bad)
    target: np.ndarray = np.full(len(ids), np.nan)
    labels: np.ndarray | None = None
    if data.target in frame.columns and _is_class(frame, data):
        cells = frame[data.target].str.strip()
        labels = read_labels(cells, ids, data.target, Problems(path) if is_test else bad)
    elif not is_test:
        target = read_target(frame, ids, data, bad)
    found = [Found(None, None)] * len(ids)
    if folder is not None and not fatal.found:
        check_one_picture(ids, folder, fatal)
        found = _find_pictures(ids, folder, bad)
    folds = None if is_test else read_folds(frame, ids, data, bad)
    groups = read_groups(frame, ids, data, bad, is_test=is_test)

    refuse_problems(fatal, bad, len(ids), drops=data.on_bad_row == "drop", is_test=is_test)
    rows = Rows(
        ids=ids.astype(str),
        texts=texts,
        time=time,
        numbers=numbers,
        target=target,
        pictures=[None if one.problem else one.picture for one in found],
        ends=[b"" if one.problem else one.end for one in found],
        groups=groups,
        folds=folds,
        bad_rows=list_bad_rows(bad, table, "mended" if is_test else "dropped"),
        largest=tuple(one.largest for one in found if one.largest),
        notes=(bad.note_mended(len(ids)),) if bad.found and is_test else (),
    )
    if is_test:
        return rows if labels is None else replace(rows, classes=tuple(sorted({*labels.tolist()} - {""})))
    dropped = bad.rows
    kept = np.array([row for row in range(len(ids)) if row not in dropped], dtype=np.int64)
    if len(kept) == 0:
        raise DataError(
            f"{path}: no row can be used: expected at least one without these faults:\n{bad.describe(len(ids))}"
        )
    if labels is not None:
        classes, target[kept] = number_labels(labels[kept])
        rows = replace(rows, classes=classes)
    return rows.take(kept) if bad.found else rows


def _is_class(frame: pd.DataFrame, data: DataConfig) -> bool:
    """Whether the target is a class."""
    if data.task == "auto":
        return hold_classes(frame[data.target].str.strip())
    return data.task == "classification"


def list_inputs(data: DataConfig) -> dict[str, list[str]]:
    """The columns that a row is predicted from, by the field that names them; what can be made from the text is left
    out."""
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
    missing = [(name, key) for key, names in wanted.items() for name in names if name not in frame.columns]
    if missing:
        advice = "add these columns" if is_test else "set each of these fields to a column of the table"
        raise DataError(f"{path}: {describe_missing(missing, frame.columns)}; {advice}")
    twice = set(frame.attrs.get(NAMED_TWICE, ()))
    if several := [f"{name!r} ({key})" for key, names in wanted.items() for name in names if name in twice]:
        raise DataError(
            f"{path} has several columns {', '.join(several)}: expected one of each name; rename the others"
        )


def check_one_picture(ids: np.ndarray, folder: Pictures, fatal: Problems, first_row: int = 0) -> None:
    """Finds ids with several pictures."""
    for row, row_id in enumerate(ids if folder.several else (), start=first_row):
        if row_id in folder.several:
            fatal.add("several pictures of one id", row, row_id, ", ".join(sorted(folder.several[row_id])))


def _find_pictures(ids: np.ndarray, folder: Pictures, bad: Problems) -> list[Found]:
    found = list(folder.find_all(ids.tolist()))
    for row, one in enumerate(found):
        if one.problem:
            bad.add("picture missing or unreadable", row, ids[row], one.problem)
    missing = [row_id for row_id, one in zip(ids.tolist(), found, strict=True) if one.picture is None]
    if missing:
        bad.explain = partial(explain_mismatch, missing, folder.suffix_of)
    return found
