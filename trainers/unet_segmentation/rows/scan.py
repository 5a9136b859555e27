"""Looks into every picture and mask before anything is launched: whether it decodes, its size, its values. No torch.

A problem is told with the names of the files that have it, all problems of all files together.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainers.interface import DataError
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.folders import MOST_NAMED, Found, Problems
from trainers.unet_segmentation.rows.pictures import (
    UnusableError,
    decode_mask,
    decode_picture,
    describe_values,
    read_file,
    to_classes,
)
from trainers.unet_segmentation.rows.rows_file import Rows, digest

_THREADS = 4
_UNEXPECTED = "mask with unexpected values"
_MOST_VALUES = 300  # of a mask that are remembered: more are no classes


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
    data = _settle_values(data, scans["train"])
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
    largest = [int(scan.values[0][-1]) for scan in scans if scan.values is not None]
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
            mask = found.masks[row]
            assert mask is not None, "it was scanned"
            scan.problem, scan.detail = _UNEXPECTED, f"{mask.name} {error}"
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
    fatal: Problems = {}
    blocking: Problems = {}
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
        shown = "; ".join(f"{row_id}: {detail}" if detail else row_id for row_id, detail in names[:MOST_NAMED])
        lines.append(f"  {what} ({len(names)}): {shown}{'; …' if len(names) > MOST_NAMED else ''}")
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
