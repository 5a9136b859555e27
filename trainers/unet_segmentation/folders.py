"""Finds pictures and masks by their names, and looks into every one before anything is launched. No torch.

A problem is told with the names of the files that have it, all problems together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from trainers.interface import FORMULA, DataError
from trainers.picture_files import PictureFolder
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.pictures import (
    UnusableError,
    decode_mask,
    decode_picture,
    describe_values,
    read_file,
    to_classes,
)
from trainers.unet_segmentation.rows import Rows, digest

_THREADS, _MOST_NAMED = 4, 5
_UNEXPECTED = "mask with unexpected values"
_MOST_VALUES = 300  # of a mask that are remembered: more are no classes


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

    def take(self, places: Iterable[int]) -> Found:
        """Some of the pairs; what is wrong stays."""
        places = list(places)
        parts = ([values[n] for n in places] for values in (self.ids, self.pictures, self.masks))
        return replace(self, **dict(zip(("ids", "pictures", "masks"), parts, strict=True)))


def read_labels(data: DataConfig) -> Labels | None:
    """The table that `data.table` names, with the columns that are wanted of it.

    Raises:
        DataError: it is not there, lacks a column, or names a picture twice.
    """
    if data.table is None:
        return None
    import pandas as pd

    path = Path(data.root) / data.table
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
    columns = {name: frame[column].astype(str).tolist() for name, column in wanted.items() if column}
    if (
        twice := sorted({i for i in columns["id"] if columns["id"].count(i) > 1})[:_MOST_NAMED]
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
    for folder in filter(None, (pictures, found_masks)):
        for row_id in sorted(set(folder.several) & set(ids)):
            fatal.setdefault(f"several files of one name in {folder.root.name}/", []).append(
                (row_id, ", ".join(sorted(folder.several[row_id])))
            )
    if unsafe := [row_id for row_id in ids if FORMULA.search(row_id) or len(row_id) > 200]:
        fatal["name that a spreadsheet would run as a formula, or longer than 200 characters"] = [
            (i, "") for i in unsafe
        ]
    if lost := [row_id for row_id in ids if row_id not in pictures.suffix_of]:
        problems[f"no picture in {images.name}/, though the table names it"] = [(row_id, "") for row_id in lost]
    ids = [row_id for row_id in ids if row_id in pictures.suffix_of]
    paths: list[Path | None] = [None] * len(ids)
    if found_masks is not None:
        paths = [found_masks.find(row_id) for row_id in ids]
        if bare := [row_id for row_id, path in zip(ids, paths, strict=True) if path is None and needs_mask(row_id)]:
            problems[f"no mask of this name in {masks.name}/"] = [(row_id, "") for row_id in bare]
        if wanted is None and (lone := sorted(set(found_masks.suffix_of) - set(pictures.suffix_of))):
            problems[f"mask in {masks.name}/ without a picture in {images.name}/"] = [(row_id, "") for row_id in lone]
    return Found(ids, [pictures.find(row_id) for row_id in ids], paths, problems=problems, fatal=fatal)


@dataclass
class _Scan:
    """What is in a pair of files."""

    problem: str = ""
    detail: str = ""
    is_of_mask: bool = False  # the problem; the picture can be predicted
    kind: str = ""
    size: tuple[int, int] = (0, 0)
    digests: tuple[bytes, bytes] = (b"", b"")
    sums_C: np.ndarray | None = None
    squares_C: np.ndarray | None = None
    values: tuple[np.ndarray, np.ndarray] | None = None  # of the mask, and how often


def scan_pairs(data: DataConfig, train: Found, test: Found) -> tuple[DataConfig, dict[str, Found]]:
    """Decodes every file.

    Returns:
        The config with the values that the masks hold, and of `train` and `test` what was found.

    Raises:
        DataError: with all problems.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        scans = {
            name: list(pool.map(lambda pair: _scan(data, *pair), zip(found.pictures, found.masks, strict=True)))
            for name, found in (("train", train), ("test", test))
        }
    data = _settle_values(data, [scan for scan in scans["train"] if scan.values is not None])
    found = {"train": train, "test": test}
    counts = {name: _count_classes(data, one, scans[name]) for name, one in found.items()}
    problems = {name: _collect_problems(one, scans[name]) for name, one in found.items()}
    _refuse(data, found, problems, scans["test"])
    return data, {
        name: _take_good(data, name, one, scans[name], counts[name], problems[name]) for name, one in found.items()
    }


def _scan(data: DataConfig, picture: Path, mask: Path | None) -> _Scan:
    try:
        content = read_file(picture)
        values_CHW, kind = decode_picture(content, data.channels)
        scale = np.iinfo(values_CHW.dtype).max
        scaled = values_CHW.reshape(data.channels, -1).astype(np.float64) / scale
        scan = _Scan(
            kind=kind,
            size=values_CHW.shape[1:],
            digests=(digest(content), b""),
            sums_C=scaled.sum(1),
            squares_C=(scaled**2).sum(1),
        )
    except (UnusableError, OSError) as error:
        return _Scan("picture that cannot be used", f"{picture.name} {error}")
    if mask is None:
        return scan
    try:
        content = read_file(mask)
        mask_HW = decode_mask(content)
    except (UnusableError, OSError) as error:
        return replace(scan, problem="mask that cannot be used", detail=f"{mask.name} {error}", is_of_mask=True)
    if mask_HW.shape != scan.size:
        sizes = [f"{width} x {height}" for height, width in (scan.size, mask_HW.shape)]
        detail = f"picture {sizes[0]}, mask {sizes[1]}"
        return replace(scan, problem="mask of another size than its picture", detail=detail, is_of_mask=True)
    scan.digests = (scan.digests[0], digest(content))
    values, times = np.unique(mask_HW, return_counts=True)
    scan.values = (values[:_MOST_VALUES], times[:_MOST_VALUES])
    if data.soft_masks:
        half = (1 if values[-1] <= 1 else 255 if values[-1] <= 255 else 65535) / 2
        scan.values = (
            np.array([0, round(2 * half)]),
            np.array([times[values <= half].sum(), times[values > half].sum()]),
        )
    return scan


def _settle_values(data: DataConfig, scans: list[_Scan]) -> DataConfig:
    """Which values mean the classes, where the user has not said it."""
    if data.mask_values:
        return data
    if data.classes > 2:
        return replace(data, mask_values=tuple(range(data.classes)))
    largest = [int(scan.values[0][-1]) for scan in scans]
    known = [value for value in (255, 65535, 1) if value in largest]  # 1 beside 255 is a mistake in some of the masks
    return replace(data, mask_values=(0, known[0] if known else 1))


def _count_classes(data: DataConfig, found: Found, scans: list[_Scan]) -> np.ndarray:
    """(N, C) pixels of each class; a mask with other values becomes a problem."""
    counts_NC = np.zeros((len(scans), data.classes), np.int64)
    for row, scan in enumerate(scans):
        if scan.problem or scan.values is None:
            continue
        try:
            np.add.at(counts_NC[row], to_classes(scan.values[0], data), scan.values[1])
        except UnusableError as error:
            scan.problem, scan.detail = _UNEXPECTED, f"{found.masks[row].name} {error}"
            scan.is_of_mask = True
    return counts_NC


def _collect_problems(found: Found, scans: list[_Scan]) -> Problems:
    problems = {what: list(names) for what, names in found.problems.items()}
    for row_id, scan in zip(found.ids, scans, strict=True):
        if scan.problem:
            problems.setdefault(scan.problem, []).append((row_id, scan.detail))
    return problems


def _refuse(data: DataConfig, found: dict[str, Found], problems: dict[str, Problems], test_scans: list[_Scan]) -> None:
    """Raises DataError where there is a problem that is not to be dropped: every one, or with `data.on_bad_row=drop` names that
    collide and pictures that are to be predicted and cannot be."""
    fatal, blocking = {}, {}
    for what, names in [pair for one in found.values() for pair in one.fatal.items()]:
        fatal.setdefault(what, []).extend(name for name in names if name not in fatal.get(what, []))
    if data.on_bad_row == "drop":
        unfit = {
            i for i, scan in zip(found["test"].ids, test_scans, strict=True) if scan.problem and not scan.is_of_mask
        }
        test = {what: [name for name in names if name[0] in unfit] for what, names in problems["test"].items()}
        blocking = {what: names for what, names in test.items() if names}
    else:
        for part in problems.values():
            for what, names in part.items():
                blocking.setdefault(what, []).extend(names)
    blocking = {**fatal, **blocking}
    if not blocking:
        return
    advice = "Mend the files"
    if data.on_bad_row == "error" and not fatal:
        advice += ", or set data.on_bad_row=drop to go on without these pictures (they are listed in bad_rows.csv)"
    if _UNEXPECTED in blocking:
        advice += f"; data.classes={data.classes} and data.mask_values say which values mean a class"
        advice += ", data.soft_masks=true takes half as the border" if data.classes == 2 else ""
    raise DataError(f"{data.root} cannot be used:\n{_describe(blocking)}\n{advice}.")


def _take_good(
    data: DataConfig, table: str, found: Found, scans: list[_Scan], counts_NC: np.ndarray, problems: Problems
) -> Found:
    """The rows that can be used; a picture that is only predicted can be, whatever is wrong with its mask.

    Raises:
        DataError: none is left to learn from.
    """
    bad = {row_id for names in problems.values() for row_id, _ in names}
    kept = [n for n, row_id in enumerate(found.ids) if found.is_test or row_id not in bad]
    if not kept and not found.is_test:
        raise DataError(f"{data.root}: every picture is bad, none is left to learn from:\n{_describe(problems)}")
    used, masks = [scans[n] for n in kept], [None if scans[n].problem else found.masks[n] for n in kept]
    rows = Rows(
        ids=np.array([found.ids[n] for n in kept], str),
        pictures=[str(found.pictures[n]) for n in kept],
        masks=[None if mask is None else str(mask) for mask in masks],
        picture_digests=[scan.digests[0] for scan in used],
        mask_digests=[scan.digests[1] for scan in used],
        height=np.array([scan.size[0] for scan in used], np.int64),
        width=np.array([scan.size[1] for scan in used], np.int64),
        sums_NC=np.array([scan.sums_C for scan in used]).reshape(len(kept), data.channels),
        squares_NC=np.array([scan.squares_C for scan in used]).reshape(len(kept), data.channels),
        counts_NC=counts_NC[kept],
    )
    done = "mask left out" if found.is_test else "dropped"
    bad_rows = tuple(
        {"table": table, "id": row_id, "problem": f"{what}{f': {detail}' if detail else ''}", "done": done}
        for what, names in problems.items()
        for row_id, detail in names
    )
    return replace(found, rows=rows, bad_rows=bad_rows, notes=_note(data, table, rows, used))


def _describe(problems: Problems) -> str:
    lines = []
    for what, names in problems.items():
        shown = "; ".join(f"{row_id}: {detail}" if detail else row_id for row_id, detail in names[:_MOST_NAMED])
        lines.append(f"  {what} ({len(names)}): {shown}{'; …' if len(names) > _MOST_NAMED else ''}")
    return "\n".join(lines)


def _note(data: DataConfig, table: str, rows: Rows, scans: list[_Scan]) -> tuple[str, ...]:
    """What is no mistake, but worth knowing.

    Raises:
        DataError: no training mask has any foreground.
    """
    notes = []
    has_mask = np.array([mask is not None for mask in rows.masks], bool)
    num_empty = int((rows.counts_NC[has_mask, 1:].sum(1) == 0).sum())
    if table == "train" and num_empty == len(rows):
        raise DataError(
            f"{data.root}: all {num_empty} masks are empty: every pixel has the value {data.mask_values[0]}. Expected some with "
            f"{describe_values(data.mask_values[1:]) if data.classes > 2 else data.mask_values[1]}; data.mask_values says which value means which class"
        )
    if num_empty:
        notes.append(
            f"{num_empty:,} of {int(has_mask.sum()):,} {table} masks are empty: such pictures are all background"
        )
    kinds = [scan.kind for scan in scans]
    if (num := kinds.count("colour")) and data.channels == 1:
        notes.append(f"{num:,} {table} pictures have colours and are read as grey; data.channels=3 reads colours")
    if num := kinds.count("16 bits"):
        notes.append(f"{num:,} {table} pictures have 16 bits; their whole range of 65,536 values is read")
    return tuple(notes)
