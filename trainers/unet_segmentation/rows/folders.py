"""Finds pictures and masks by their names, and what the table beside them says. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainers.interface import FORMULA, DataError
from trainers.reading.likeness import explain_mismatch, find_suffix
from trainers.reading.picture_files import PICTURE_SUFFIXES, LeftOut, PictureFolder
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.rows_file import Rows
from trainers.values import describe_missing

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
        causes: sentences on what may be behind names that do not meet.
        left_out: files that are no pictures, by the name of their folder.
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
    causes: tuple[str, ...] = ()
    left_out: dict[str, LeftOut] = field(default_factory=dict)

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
    from trainers.reading.tables import NAMED_TWICE, read_frame

    path = data.folder / data.table
    if not path.is_file():
        raise DataError(f"{path}: no such file; set data.table to a .csv or .parquet file below data.root")
    frame = read_frame(path, data.table_format)
    wanted = {name: getattr(data, f"{name}_column") for name in ("id", "group", "fold", "split")}
    if missing := [
        (column, f"data.{name}_column") for name, column in wanted.items() if column and column not in frame
    ]:
        advice = "set each of these fields to a column of the table"
        raise DataError(f"{path}: {describe_missing(missing, frame.columns)}; {advice}")
    if several := sorted(set(filter(None, wanted.values())) & set(frame.attrs.get(NAMED_TWICE, ()))):
        raise DataError(f"{path} has several columns {several[0]!r}: expected one of each name; rename the others")
    columns = {name: frame[column].tolist() for name, column in wanted.items() if column}
    is_twice = frame[data.id_column].duplicated()
    if twice := sorted(set(frame[data.id_column][is_twice]))[:MOST_NAMED]:
        raise DataError(
            f"{path}: {', '.join(map(repr, twice))} is in several rows of {data.id_column!r} (data.id_column): "
            "expected "
            "each picture in one row; remove the others"
        )
    if frame.empty:
        raise DataError(f"{path} holds no row: expected rows below the header")
    is_test = [value == data.test_split for value in columns["split"]] if "split" in columns else None
    return Labels(columns["id"], columns.get("group"), columns.get("fold"), is_test)


def find_pairs(
    data: DataConfig,
    images: Path,
    masks: Path | None,
    wanted: list[str] | None,
    needs_mask: Callable[[str], bool] = lambda row_id: True,
) -> Found:
    """The pictures of a folder with their masks, by name.

    Args:
        data: of the config.
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
    mask_of = {} if found_masks is None else name_masks(found_masks, data.mask_suffix)
    if masks == images and data.mask_suffix:
        for name in mask_of.values():
            del pictures.suffix_of[name]
    fatal, problems, causes = _check_names(pictures, found_masks, wanted), Problems(), []
    ids = sorted(pictures.suffix_of) if wanted is None else wanted
    if lost := [row_id for row_id in ids if row_id not in pictures.suffix_of]:
        problems[f"no picture in {images.name}/, though the table names it"] = [
            (row_id, f"{row_id}{ending} is there, and is not read") if ending else (row_id, "")
            for row_id in lost
            for ending in [pictures.left_out.ending_of.get(row_id)]
        ]
        causes.append(explain_mismatch(lost, pictures.suffix_of))
    ids = [row_id for row_id in ids if row_id in pictures.suffix_of]
    paths: list[Path | None] = [None] * len(ids)
    if masks is not None and found_masks is not None:
        paths = [found_masks.find(mask_of[row_id]) if row_id in mask_of else None for row_id in ids]
        if bare := [row_id for row_id, path in zip(ids, paths, strict=True) if path is None and needs_mask(row_id)]:
            problems[f"no mask of this name in {masks.name}/"] = [
                (row_id, f"{row_id}{data.mask_suffix}{ending} is there, and is not read") if ending else (row_id, "")
                for row_id in bare
                for ending in [found_masks.left_out.ending_of.get(row_id + data.mask_suffix)]
            ]
        of_pictures = {mask_of[row_id] for row_id in pictures.suffix_of if row_id in mask_of}
        lone = sorted(
            set(found_masks.suffix_of) - of_pictures - (set(pictures.suffix_of) if masks == images else set())
        )
        if wanted is None and lone:
            problems[f"mask in {masks.name}/ without a picture in {images.name}/"] = [(name, "") for name in lone]
        causes.append(_explain_masks(bare, lone))
    found = [pictures.root / f"{row_id}{pictures.suffix_of[row_id]}" for row_id in ids]
    left_out = {folder.root.name: folder.left_out for folder in (pictures, found_masks) if folder is not None}
    return Found(
        ids, found, paths, problems=problems, fatal=fatal, causes=tuple(filter(None, causes)), left_out=left_out
    )


def name_masks(masks: PictureFolder, suffix: str) -> dict[str, str]:
    """By the name of its picture each mask's own, without the ending."""
    return {name[: len(name) - len(suffix)]: name for name in masks.suffix_of if name.endswith(suffix)}


def _check_names(pictures: PictureFolder, masks: PictureFolder | None, wanted: list[str] | None) -> Problems:
    """What is wrong with names, whatever is in the files.

    Raises:
        DataError: there is no picture.
    """
    ids = sorted(pictures.suffix_of) if wanted is None else wanted
    if not ids or not pictures.suffix_of:
        left_out = "; ".join(pictures.left_out.describe(pictures.root.name))
        raise DataError(
            f"{pictures.root} holds no picture: expected files that end in {', '.join(PICTURE_SUFFIXES)}"
            + (f"; {left_out}" if left_out else "")
        )
    fatal: Problems = {}
    for listed in [pictures] if masks is None else [pictures, masks]:
        for row_id in sorted(set(listed.several) & set(ids)):
            fatal.setdefault(f"several files of one name in {listed.root.name}/", []).append(
                (row_id, ", ".join(sorted(listed.several[row_id])))
            )
    if unsafe := [row_id for row_id in ids if FORMULA.search(row_id) or len(row_id) > 200]:
        fatal["name that a spreadsheet would run as a formula, or longer than 200 characters"] = [
            (i, "") for i in unsafe
        ]
    return fatal


def _explain_masks(bare: list[str], lone: list[str]) -> str:
    """Why masks and pictures do not meet."""
    if not bare or not lone:
        return ""
    suffix, num = find_suffix(bare, lone)
    if suffix:
        return f"{num:,} of {len(bare):,} pictures without a mask have one with data.mask_suffix={suffix}"
    return explain_mismatch(bare, lone)
