"""Which pictures there are, and what is known of each: class, group, fold, whether a fold may learn from it. No torch.

    root/<class>/*.png                 classes are folders; test/<class>/*.png beside them
    root/*.png                         no classes; test/*.png beside them
    root/<pictures>/*.png, root/table  the table's rows, with columns of classes, groups, folds and of test rows

A picture's id is its name without the ending, with its class and `_` before it where classes are folders.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainers.interface import FORMULA, DataError
from trainers.pixel_diffusion.config import DataConfig
from trainers.reading.likeness import explain_mismatch
from trainers.reading.picture_files import PICTURE_SUFFIXES, LeftOut, PictureFolder, is_wanted
from trainers.values import describe_missing

_MOST_NAMED, _LONGEST_NAME = 5, 200


@dataclass(frozen=True)
class Listing:
    """Pictures, and what is known of each.

    Attributes:
        ids, paths: of each.
        labels: the class of each; empty: it has none.
        groups, folds: likewise, as the table has them; None: it has no such column.
        problems: what is wrong with rows that have no usable picture: id and problem.
        left_out: files that are no pictures, by the name of their folder.
    """

    ids: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] | None = None
    folds: list[str] | None = None
    problems: tuple[tuple[str, str], ...] = ()
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def take(self, places: Sequence[int]) -> Listing:
        """Some of the pictures, in that order."""
        groups, folds = (None if one is None else [one[place] for place in places] for one in (self.groups, self.folds))
        return replace(
            self,
            ids=[self.ids[place] for place in places],
            paths=[self.paths[place] for place in places],
            labels=[self.labels[place] for place in places],
            groups=groups,
            folds=folds,
        )


def list_rows(data: DataConfig) -> tuple[Listing, Listing]:
    """The pictures to learn from, and those that no fold learns from.

    Raises:
        DataError: there is none to learn from, names collide, or a table does not fit.
    """
    if data.table is not None:
        return _divide(data, _list_table(data))
    base = data.folder / data.pictures if data.pictures else data.folder
    train = list_folder(base, () if data.pictures else (data.test_pictures,))
    if not train.ids:
        left_out = "; ".join(said for name, one in train.left_out.items() for said in one.describe(name))
        raise DataError(
            f"{base} holds no picture: expected folders of classes with, or else files that end in "
            f"{', '.join(PICTURE_SUFFIXES)}" + (f"; {left_out}" if left_out else "")
        )
    test_place = data.folder / data.test_pictures
    test = list_folder(test_place) if data.test_pictures and test_place.is_dir() else Listing()
    if both := sorted(set(train.ids) & set(test.ids)):
        raise DataError(
            f"{base} and {test_place} both have a picture {both[0]!r} ({len(both):,} such names): expected each name "
            "once, as names are ids; rename them"
        )
    return keep_some(train, data.max_rows), test


def keep_some(rows: Listing, number: int | None) -> Listing:
    """The first so many rows, of all classes alike."""
    if number is None or number >= len(rows.ids):
        return rows
    seen: dict[str, int] = {}
    order = []
    for place, label in enumerate(rows.labels):
        order.append((seen.get(label, 0), place))
        seen[label] = seen.get(label, 0) + 1
    return rows.take(sorted(place for _, place in sorted(order)[:number]))


def list_folder(base: Path, others: Sequence[str] = ()) -> Listing:
    """The pictures of a folder's folders, which are their classes, or of the folder itself where there are none in its
    folders.

    Raises:
        DataError: there is no such folder, or names cannot be ids.
    """
    if not base.is_dir():
        raise DataError(f"{base}: no such folder; set data.root and data.pictures to one that holds pictures")
    with os.scandir(base) as entries:
        names = sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))
    classes = [name for name in names if name not in others and _holds_pictures(base / name)]
    places = {name: PictureFolder(base / name) for name in classes} or {"": PictureFolder(base)}
    rows = Listing(left_out={folder.root.name: folder.left_out for folder in places.values()})
    for label, folder in places.items():
        _refuse_several(folder, folder.suffix_of)
        for stem in sorted(folder.suffix_of):
            rows.ids.append(f"{label}_{stem}" if label else stem)
            rows.paths.append(folder.root / f"{stem}{folder.suffix_of[stem]}")
            rows.labels.append(label)
    _check_ids(base, rows.ids)
    return rows


def _holds_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_wanted(entry.name) for entry in entries)


def _list_table(data: DataConfig) -> tuple[Listing, list[bool]]:
    """The rows of a table that have a picture, and which of them are test rows."""
    from trainers.reading.tables import NAMED_TWICE, read_frame

    assert data.table is not None
    path = data.folder / data.table
    if not path.is_file():
        raise DataError(f"{path}: no such file; set data.table to a .csv or .parquet file below data.root")
    frame = read_frame(path, data.table_format)
    wanted = {name: getattr(data, f"{name}_column") for name in ("id", "label", "group", "fold", "split")}
    wanted = {name: column for name, column in wanted.items() if column}
    if missing := [(column, f"data.{name}_column") for name, column in wanted.items() if column not in frame]:
        raise DataError(f"{path}: {describe_missing(missing, frame.columns)}; set each to a column of the table")
    if several := sorted(set(wanted.values()) & set(frame.attrs.get(NAMED_TWICE, ()))):
        raise DataError(f"{path} has several columns {several[0]!r}: expected one of each name; rename the others")
    columns = {name: frame[column].tolist() for name, column in wanted.items()}
    ids = columns["id"]
    if twice := sorted(row_id for row_id, times in Counter(ids).items() if times > 1):
        raise DataError(
            f"{path}: {', '.join(map(repr, twice[:_MOST_NAMED]))} is in several rows of {data.id_column!r} "
            "(data.id_column): expected each picture in one row; remove the others"
        )
    if not ids:
        raise DataError(f"{path} holds no row: expected rows below the header")
    _check_ids(path, ids)
    folder = PictureFolder(data.folder / data.pictures if data.pictures else data.folder)
    _refuse_several(folder, set(ids))
    lost = [row_id for row_id in ids if row_id not in folder.suffix_of]
    if len(lost) == len(ids):
        raise DataError(
            f"{path}: no row of {data.id_column!r} has a picture of its name in {folder.root} "
            f"({explain_mismatch(lost, folder.suffix_of)}); set data.pictures to their folder"
        )
    problems = [(row_id, f"no picture of this name in {folder.root.name}/") for row_id in lost]
    labels = columns.get("label", [""] * len(ids))
    if data.label_column:
        problems += [(i, f"{data.label_column!r} is empty") for i, label in zip(ids, labels, strict=True) if not label]
    bad = {row_id for row_id, _ in problems}
    good = [place for place, row_id in enumerate(ids) if row_id not in bad]
    paths = [folder.root / f"{row_id}{folder.suffix_of.get(row_id, '')}" for row_id in ids]
    rows = Listing(ids, paths, labels, columns.get("group"), columns.get("fold"), tuple(problems))
    split = columns.get("split", [""] * len(ids))
    rows = replace(rows.take(good), left_out={folder.root.name: folder.left_out})
    return rows, [bool(data.split_column) and split[place] == data.test_split for place in good]


def _divide(data: DataConfig, listed: tuple[Listing, list[bool]]) -> tuple[Listing, Listing]:
    rows, is_test = listed
    train = [place for place, one in enumerate(is_test) if not one]
    test = [place for place, one in enumerate(is_test) if one]
    if not train or (data.split_column and not test):
        what = "every row has" if test else "no row has"
        raise DataError(
            f"{data.table}: {what} data.test_split={data.test_split} in {data.split_column!r}; set data.test_split to "
            "a value of some of its rows, or leave data.split_column out"
        )
    return keep_some(rows.take(train), data.max_rows), replace(rows.take(test), problems=(), left_out={})


def _refuse_several(folder: PictureFolder, ids: Sequence[str] | set[str] | dict[str, str]) -> None:
    if several := sorted(set(folder.several) & set(ids)):
        names = ", ".join(sorted(folder.several[several[0]]))
        raise DataError(
            f"{folder.root} has several pictures of one name: {names} ({len(several):,} such names): expected one of "
            "each, as names are ids; remove or rename the others"
        )


def _check_ids(place: Path, ids: Sequence[str]) -> None:
    def is_bad(row_id: str) -> bool:
        return not row_id or len(row_id) > _LONGEST_NAME or bool(FORMULA.search(row_id))

    tests: dict[str, Callable[[str], bool]] = {
        f"empty, longer than {_LONGEST_NAME} characters, or what a spreadsheet would run as a formula": is_bad
    }
    for what, test in tests.items():
        if found := [row_id for row_id in ids if test(row_id)]:
            raise DataError(f"{place}: {len(found):,} names are {what}, such as {found[0][:60]!r}; rename them")
    if twice := next((row_id for row_id, times in Counter(ids).items() if times > 1), None):
        raise DataError(
            f"{place}: two pictures have the id {twice!r}, of class and name; expected each once; rename one"
        )
