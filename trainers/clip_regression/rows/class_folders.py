"""Rows without a table: the folder of a picture is its class.

    root/<class>/*.png           or root/train_val/<class>/*.png, with `data.train_pictures` as its name
    root/test/*.png              rows to predict, if any; they may lie in folders of classes, too

A row's id is its class, `_` and the name of its picture, of a test row that lies in no class folder the name alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from trainers.clip_regression.config import DataConfig
from trainers.interface import DataError
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_files import Found, LeftOut, PictureFolder, is_wanted, look_at_pictures
from trainers.reading.picture_rules import PictureRules


@dataclass
class ClassFolders:
    """The pictures of folders of classes, as `table.Pictures`.

    Attributes:
        frame: id and class of each row; without a class of pictures that lie in no such folder.
        folders: by their class ("": none) the pictures.
        place_of: class and name in its folder, by id.
    """

    frame: pd.DataFrame
    folders: dict[str, PictureFolder]
    place_of: dict[str, tuple[str, str]]
    suffix_of: dict[str, str] = field(default_factory=dict)
    several: dict[str, list[str]] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def known(self) -> KnownFiles:
        """What looks at the pictures."""
        return next(iter(self.folders.values())).known

    @known.setter
    def known(self, known: KnownFiles) -> None:
        for folder in self.folders.values():
            folder.known = known

    @property
    def rules(self) -> PictureRules:
        """By which pictures are read."""
        return next(iter(self.folders.values())).rules

    @rules.setter
    def rules(self, rules: PictureRules) -> None:
        for folder in self.folders.values():
            folder.rules = rules

    def find_all(self, ids: Sequence[str]) -> list[Found]:
        """The picture of each row."""
        named = [self.place_of[row_id] for row_id in ids]
        places = [self.folders[label].find(stem) for label, stem in named]
        return look_at_pictures(self.known, self.rules, [place for place in places if place is not None])


def find_class_folders(data: DataConfig, *, is_test: bool) -> ClassFolders | None:
    """The rows of class folders; None where there is a training table, or where there are no two such folders.

    Raises:
        DataError: more is to be learned from than pictures.
    """
    if (data.folder / data.train_table).is_file() or not data.train_pictures:
        return None
    inner = data.folder / data.train_pictures
    base = inner if _list_classes(inner) else data.folder
    labels = _list_classes(base, () if base == inner else (data.train_pictures, data.test_pictures))
    if len(labels) < 2:
        return None
    _refuse_other_inputs(data, base)
    if not is_test:
        return _read_folders(data, {label: base / label for label in labels})
    place = data.folder / data.test_pictures if data.test_pictures else None
    if place is None or not place.is_dir():
        return None
    return _read_folders(data, {label: place / label for label in _list_classes(place)} or {"": place})


def _list_classes(folder: Path, others: Sequence[str] = ()) -> list[str]:
    """The folders in a folder that hold pictures."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [one.name for one in entries if one.is_dir() and not one.name.startswith(".")]
    return sorted(name for name in names if name not in others and _has_pictures(folder / name))


def _has_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_wanted(entry.name) for entry in entries)


def _read_folders(data: DataConfig, places: dict[str, Path]) -> ClassFolders:
    folders = {label: PictureFolder(place, data.picture_rules) for label, place in places.items()}
    ids, labels, place_of, suffix_of, several = [], [], {}, {}, {}
    for label, folder in folders.items():
        for stem in sorted(folder.suffix_of):
            row_id = f"{label}_{stem}" if label else stem
            ids.append(row_id)
            labels.append(label)
            place_of[row_id], suffix_of[row_id] = (label, stem), folder.suffix_of[stem]
            if stem in folder.several:
                several[row_id] = folder.several[stem]
    left_out = LeftOut()
    for folder in folders.values():
        for key, num in folder.left_out.kinds.items():
            left_out.kinds[key] = left_out.kinds.get(key, 0) + num
    frame = pd.DataFrame({data.id_column: ids, data.target: labels}, dtype=object)
    return ClassFolders(frame, folders, place_of, suffix_of, several, left_out)


def _refuse_other_inputs(data: DataConfig, base: Path) -> None:
    """Raises DataError for columns, which there are none of."""
    named = {
        "data.text_columns=[]": data.text_columns,
        "data.date_column=none": data.date_column,
        "data.numeric_columns=[]": data.numeric_columns,
        "data.group_column=none": data.group_column,
        "data.fold_column=none": data.fold_column,
    }
    if wanted := [word for word, value in named.items() if value]:
        raise DataError(
            f"{base} holds a folder of pictures for each class, and data.root has no table "
            f"{data.train_table}: nothing but pictures can be learned from. Set {' '.join(wanted)}, or add the table"
        )
    if data.task == "regression":
        raise DataError(
            f"{base} holds a folder of pictures for each class, and data.task=regression wants numbers: add "
            f"the table {data.train_table}, or set data.task=classification"
        )
