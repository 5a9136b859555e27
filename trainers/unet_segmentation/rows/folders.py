"""Finds pictures and masks by their names, and what the table beside them says. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainers.interface import FORMULA, DataError
from trainers.storage.picture_files import PictureFolder
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.rows_file import Rows

MOST_NAMED = 5


Problems = dict[str, list[tuple[str, str]]]  # by what is wrong the names that have it, and a detail of each


@dataclass(frozen=True)
class Labels:
    """The table beside the pictures, by id."""

    ids: list[str]
    groups: list[str] | None
    folds: list[str] | None
    is_test: list[bool] | None


@dataclass(frozen=True)
class Found:
    """Pairs of files and what is wrong with them.

    Attributes:
        ids, pictures, masks: of each pair; None: no mask, and none is wanted.
        problems: what is wrong.
        fatal: likewise, of what cannot be dropped.
        rows: once they were scanned.
        notes: sentences for the user.
    """

    ids: list[str]
    pictures: list[Path]
    masks: list[Path | None]
    is_test: bool = False
    problems: Problems = field(default_factory=dict)
    fatal: Problems = field(default_factory=dict)
    rows: Rows | None = None
    bad_rows: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def good_rows(self) -> Rows:
        """`rows`, once they were scanned."""
        assert self.rows is not None
        return self.rows

    def take(self, places: Iterable[int]) -> Found:
        """Some of the pairs; what is wrong stays."""
        chosen = [(self.ids[n], self.pictures[n], self.masks[n]) for n in places]
        return replace(
            self,
            ids=[row_id for row_id, _, _ in chosen],
            pictures=[picture for _, picture, _ in chosen],
            masks=[mask for _, _, mask in chosen],
        )


def read_labels(data: DataConfig) -> Labels | None:
    """The table that `data.table` names, with the columns that are wanted of it.

    Raises:
        DataError: it is not there, lacks a column, or names a picture twice.
    """
    if data.table is None:
        return None
    import pandas as pd

    path = data.folder / data.table
    if not path.is_file() or path.suffix not in (".csv", ".parquet"):
        raise DataError(f"data.table: {path}: no such table; expected a .csv or .parquet file")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False) if path.suffix == ".csv" else pd.read_parquet(path)
    wanted = {name: getattr(data, f"{name}_column") for name in ("id", "group", "fold", "split")}
    if missing := [
        f"{column!r} (data.{name}_column)" for name, column in wanted.items() if column and column not in frame
    ]:
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; the table has {', '.join(map(str, frame.columns))}"
        )
    columns = {
        name: frame[column].astype(str).where(frame[column].notna(), "").tolist()
        for name, column in wanted.items()
        if column
    }
    if (
        twice := sorted({i for i in columns["id"] if columns["id"].count(i) > 1})[:MOST_NAMED]
        if frame[data.id_column].duplicated().any()
        else []
    ):
        raise DataError(f"{path}: {data.id_column!r} names pictures twice: {', '.join(twice)}")
    is_test = [value == data.test_split for value in columns["split"]] if "split" in columns else None
    return Labels(columns["id"], columns.get("group"), columns.get("fold"), is_test)


def find_pairs(
    images: Path, masks: Path | None, wanted: list[str] | None, needs_mask: Callable[[str], bool] = lambda row_id: True
) -> Found:
    """The pictures of a folder with their masks, by name.

    Args:
        images, masks: the folders; None: no masks.
        wanted: the only names to look at, in their order; None: all, sorted.
        needs_mask: whether a picture is learned from.

    Raises:
        DataError: a folder is not there or holds no picture.
    """
    for folder in (images, masks):
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder}: no such folder; set data.images and data.masks to folders below data.root")
    pictures, found_masks = PictureFolder(images), None if masks is None else PictureFolder(masks)
    fatal: Problems = {}
    problems: Problems = {}
    ids = sorted(pictures.suffix_of) if wanted is None else wanted
    if not ids or not pictures.suffix_of:
        raise DataError(f"{images} holds no picture: expected PNG, JPEG or WebP files")
    for listed in [pictures] if found_masks is None else [pictures, found_masks]:
        for row_id in sorted(set(listed.several) & set(ids)):
            fatal.setdefault(f"several files of one name in {listed.root.name}/", []).append(
                (row_id, ", ".join(sorted(listed.several[row_id])))
            )
    if unsafe := [row_id for row_id in ids if FORMULA.search(row_id) or len(row_id) > 200]:
        fatal["name that a spreadsheet would run as a formula, or longer than 200 characters"] = [
            (i, "") for i in unsafe
        ]
    if lost := [row_id for row_id in ids if row_id not in pictures.suffix_of]:
        problems[f"no picture in {images.name}/, though the table names it"] = [(row_id, "") for row_id in lost]
    ids = [row_id for row_id in ids if row_id in pictures.suffix_of]
    paths: list[Path | None] = [None] * len(ids)
    if masks is not None and found_masks is not None:
        paths = [found_masks.find(row_id) for row_id in ids]
        if bare := [row_id for row_id, path in zip(ids, paths, strict=True) if path is None and needs_mask(row_id)]:
            problems[f"no mask of this name in {masks.name}/"] = [(row_id, "") for row_id in bare]
        if wanted is None and (lone := sorted(set(found_masks.suffix_of) - set(pictures.suffix_of))):
            problems[f"mask in {masks.name}/ without a picture in {images.name}/"] = [(row_id, "") for row_id in lone]
    found = [pictures.root / f"{row_id}{pictures.suffix_of[row_id]}" for row_id in ids]
    return Found(ids, found, paths, problems=problems, fatal=fatal)
