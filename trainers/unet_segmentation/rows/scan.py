"""Looks into every picture and mask before anything is launched: whether it decodes, its size, its values. No torch.

A problem is told with the names of the files that have it, all problems of all files together.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from trainers.interface import DataError
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_rules import find_depth
from trainers.reading.pictures import DEEP, UnusableError
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.findings import Finding, describe_look, look_at_pairs
from trainers.unet_segmentation.rows.folders import MOST_NAMED, Found, Problems
from trainers.unet_segmentation.rows.pictures import (
    IGNORED,
    describe_values,
    to_classes,
)
from trainers.unet_segmentation.rows.rows_file import Rows

_UNEXPECTED = "mask with unexpected values"
_NOT_SOFT = frozenset({0, 1, 255})


def scan_pairs(data: DataConfig, train: Found, test: Found, known: KnownFiles) -> tuple[DataConfig, dict[str, Found]]:
    """Decodes every file of which nothing is known.

    Returns:
        The config with the values that the masks hold, and of `train` and `test` what was found.

    Raises:
        DataError: with all problems.
    """
    scans = {name: _look_at(data, found, known) for name, found in (("train", train), ("test", test))}
    depth, notes = find_depth([scan.largest for one in scans.values() for scan in one if scan.largest], data.bit_depth)
    if data.bit_depth is None:
        _stretch(scans["train"] + scans["test"], depth or 8)
    data = replace(_settle_values(data, scans["train"]), bit_depth=depth or 8)  # 8: none has 16 that are not known
    found = {"train": train, "test": test}
    counts = {name: _count_classes(data, one, scans[name]) for name, one in found.items()}
    problems = {name: _collect_problems(one, scans[name]) for name, one in found.items()}
    _refuse(data, found, problems, scans)
    good = {name: _take_good(data, name, one, scans[name], counts[name], problems[name]) for name, one in found.items()}
    return data, good | {"train": replace(good["train"], notes=good["train"].notes + notes)}


def _look_at(data: DataConfig, found: Found, known: KnownFiles) -> list[Finding]:
    pairs = list(zip(found.pictures, found.masks, strict=True))
    return [Finding.from_json(one) for one in known.look_at(describe_look(data), pairs, partial(look_at_pairs, data))]


def _stretch(scans: list[Finding], depth: int) -> None:
    """Sums of pictures whose 16 bits were read as a whole before it was known how many are in use."""
    factor = DEEP / (2**depth - 1)
    for scan in scans if depth < 16 else ():
        if scan.largest and scan.sums_C is not None and scan.squares_C is not None:
            scan.sums_C, scan.squares_C = scan.sums_C * factor, scan.squares_C * factor**2


def _settle_values(data: DataConfig, scans: list[Finding]) -> DataConfig:
    """Which values mean the classes, where the user has not said it."""
    if data.mask_values:
        return data
    if data.classes > 2:
        numbers = [number for number in range(data.classes + 1) if number != data.ignore_value]
        return replace(data, mask_values=tuple(numbers[: data.classes]))
    if data.ignore_value == 0:
        raise DataError(
            "data.ignore_value=0: expected another value, as 0 is the background of two classes; set data.mask_values"
        )
    largest = [int(scan.values[0][-1]) for scan in scans if scan.values is not None]
    known = [value for value in (255, 65535, 1) if value in largest]  # 1 beside 255 is a mistake in some of the masks
    return replace(data, mask_values=(0, known[0] if known else 255 if data.ignore_value == 1 else 1))


def _count_classes(data: DataConfig, found: Found, scans: list[Finding]) -> np.ndarray:
    """(N, C) pixels of each class; a mask with other values becomes a problem."""
    counts_NC = np.zeros((len(scans), data.classes), np.int64)
    for row, scan in enumerate(scans):
        if scan.problem or scan.values is None:
            continue
        try:
            classes = to_classes(scan.values[0], data)
            np.add.at(counts_NC[row], classes[classes != IGNORED], scan.values[1][classes != IGNORED])
            if data.soft_masks and scan.seen == _NOT_SOFT:
                raise UnusableError("has the values 0, 1 and 255: expected smooth edges with values in between")
        except UnusableError as error:
            mask = found.masks[row]
            assert mask is not None, "it was scanned"
            scan.problem, scan.detail = _UNEXPECTED, f"{mask.name} {error}"
            scan.is_of_mask = True
    return counts_NC


def _collect_problems(found: Found, scans: list[Finding]) -> Problems:
    problems = {what: list(names) for what, names in found.problems.items()}
    for row_id, scan in zip(found.ids, scans, strict=True):
        if scan.problem:
            problems.setdefault(scan.problem, []).append((row_id, scan.detail))
    return problems


def _refuse(
    data: DataConfig, found: dict[str, Found], problems: dict[str, Problems], scans: dict[str, list[Finding]]
) -> None:
    """Raises DataError where there is a problem that is not to be dropped: every one, or with `data.on_bad_row=drop`
    names that collide and pictures that are to be predicted and cannot be."""
    fatal: Problems = {}
    for what, names in [pair for one in found.values() for pair in one.fatal.items()]:
        fatal.setdefault(what, []).extend(name for name in names if name not in fatal.get(what, []))
    unfit = {
        row_id
        for row_id, scan in zip(found["test"].ids, scans["test"], strict=True)
        if scan.problem and not scan.is_of_mask
    }
    test = {what: [name for name in names if name[0] in unfit] for what, names in problems["test"].items()}
    undroppable = {**fatal, **{what: names for what, names in test.items() if names}}
    blocking = dict(undroppable)
    if data.on_bad_row == "error":
        blocking = dict(fatal)
        for part in problems.values():
            for what, names in part.items():
                blocking[what] = [*blocking.get(what, []), *names]
    if not blocking:
        return
    bad = {row_id for names in problems["train"].values() for row_id, _ in names}
    advice = "Correct the files"
    if data.on_bad_row == "error" and not undroppable and set(found["train"].ids) - bad:
        advice += ", or set data.on_bad_row=drop to go on without these pictures (they are listed in bad_rows.csv)"
    if _UNEXPECTED in blocking:
        advice += _advise_on_values(data, scans["train"] + scans["test"])
    causes = "".join(f"\n  {cause}" for cause in dict.fromkeys(c for one in found.values() for c in one.causes))
    raise DataError(f"{data.root} cannot be used:\n{_describe(blocking)}{causes}\n{advice}")


def _advise_on_values(data: DataConfig, scans: list[Finding]) -> str:
    """Which fields say what the masks' values mean, and which of them fits what was found."""
    advice = f"; data.classes={data.classes} and data.mask_values say which values mean a class"
    seen = {value for scan in scans for value in scan.seen} - {data.ignore_value}
    unknown = seen - set(data.mask_values)
    if 255 in seen and len(seen - {255}) > 1 and max(seen - {255}) < max(data.classes, 2):
        return advice + "; if 255 marks pixels that count nowhere, data.ignore_value=255 leaves them out"
    if len(unknown) == 1:
        advice += (
            f"; if {unknown.copy().pop()} marks pixels that count nowhere, "
            f"data.ignore_value={unknown.copy().pop()} leaves them out"
        )
    return advice + ("; data.soft_masks=true takes half as the border" if data.classes == 2 else "")


def _take_good(
    data: DataConfig, table: str, found: Found, scans: list[Finding], counts_NC: np.ndarray, problems: Problems
) -> Found:
    """The rows that can be used; a picture that is only predicted can be, whatever is wrong with its mask.

    Raises:
        DataError: none is left to learn from.
    """
    bad = {row_id for names in problems.values() for row_id, _ in names}
    kept = [n for n, row_id in enumerate(found.ids) if found.is_test or row_id not in bad]
    if not kept and not found.is_test:
        causes = "".join(f"\n  {cause}" for cause in found.causes)
        raise DataError(
            f"{data.root}: no picture can be used: expected at least one without these "
            f"faults:\n{_describe(problems)}{causes}"
        )
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


def _note(data: DataConfig, table: str, rows: Rows, scans: list[Finding]) -> tuple[str, ...]:
    """What is no mistake, but worth knowing.

    Raises:
        DataError: all training masks hold one and the same class.
    """
    notes = []
    has_mask = np.array([mask is not None for mask in rows.masks], bool)
    counts_NC = rows.counts_NC[has_mask]
    if table == "train" and (counts_NC.sum(0) > 0).sum() == 1:
        _refuse_one_class(data, int(counts_NC.sum(0).argmax()), len(rows))
    num_empty = int((counts_NC[:, 1:].sum(1) == 0).sum())
    if num_empty:
        notes.append(f"{num_empty:,} of {len(counts_NC):,} {table} masks are empty: such pictures are all background")
    if data.classes == 2 and (num_full := int((counts_NC[:, 0] == 0).sum())):
        notes.append(f"{num_full:,} of {len(counts_NC):,} {table} masks are full: such pictures are all foreground")
    kinds = [scan.kind for scan in scans]
    if (num := kinds.count("colour")) and data.channels == 1:
        notes.append(f"{num:,} {table} pictures have colours and are read as grey; data.channels=3 reads colours")
    if num := sum(scan.is_turned for scan in scans):
        notes.append(
            f"{num:,} {table} pictures are turned as their EXIF orientation says; their masks have to fit what "
            "viewers show"
        )
    if num := sum(scan.is_transparent for scan in scans):
        notes.append(
            f"{num:,} {table} pictures are transparent in places, and laid on data.background={list(data.background)}"
        )
    return tuple(notes)


def _refuse_one_class(data: DataConfig, number: int, num_masks: int) -> None:
    what = "empty" if number == 0 else "full" if data.classes == 2 else "of one class"
    others = tuple(value for value in data.mask_values if value != data.mask_values[number])
    expected = describe_values(others) if len(others) > 1 else str(others[0])
    raise DataError(
        f"{data.root}: all {num_masks} masks are {what}: every pixel has the value "
        f"{data.mask_values[number]}. Expected some with "
        f"{expected}; data.mask_values says which value means which class"
    )
