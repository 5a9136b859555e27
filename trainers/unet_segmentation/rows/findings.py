"""What is in a picture and its mask: whether they decode, their size, their values. No torch.

Many files are read at the same time; a few of them are in memory decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainers.reading.known_files import Item
from trainers.reading.pictures import UnusableError, sum_pairwise
from trainers.reading.portions import THREADS
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.pictures import decode_mask, decode_picture, read_file
from trainers.unet_segmentation.rows.rows_file import digest

_MOST_VALUES = 300  # of a mask that are remembered: more are no classes
_AT_ONCE = 2**20  # pixels that are counted together
_DECODING = threading.Semaphore(4)
# Fields of the data that decide nothing of what is found in a pair of files.
_OTHER_FIELDS = frozenset(
    {"root", "images", "masks", "mask_suffix", "test_images", "test_masks", "table", "encoding", "separator"}
    | {"id_column", "split_column", "test_split", "group_column", "group_pattern", "near_duplicates", "fold_column"}
    | {"classes", "mask_values", "size", "scaling", "max_rows", "on_bad_row"}
)


@dataclass
class Finding:
    """What is in a pair of files."""

    problem: str = ""
    detail: str = ""
    is_of_mask: bool = False  # the problem; the picture can be predicted
    kind: str = ""
    is_turned: bool = False
    is_transparent: bool = False
    largest: int = 0  # see `reading.pictures.Decoded`
    size: tuple[int, int] = (0, 0)
    digests: tuple[bytes, bytes] = (b"", b"")
    sums_C: np.ndarray | None = None
    squares_C: np.ndarray | None = None
    values: tuple[np.ndarray, np.ndarray] | None = None  # of the mask without those that count nowhere, and how often
    seen: frozenset[int] = frozenset()  # all values of the mask

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, to the bit."""
        cells = dict(vars(self))
        for name in ("sums_C", "squares_C"):
            cells[name] = None if cells[name] is None else cells[name].tolist()
        cells["values"] = None if self.values is None else [one.tolist() for one in self.values]
        cells["digests"], cells["seen"] = [digest.hex() for digest in self.digests], sorted(self.seen)
        return cells

    @classmethod
    def from_json(cls, cells: dict[str, Any]) -> Finding:
        """What `to_json` has made of one."""
        arrays = {name: None if cells[name] is None else np.array(cells[name]) for name in ("sums_C", "squares_C")}
        values = None if cells["values"] is None else tuple(np.array(one, np.int64) for one in cells["values"])
        digests, size = tuple(map(bytes.fromhex, cells["digests"])), tuple(cells["size"])
        return cls(**cells | arrays | {"values": values, "digests": digests, "size": size, "seen": {*cells["seen"]}})


def describe_look(data: DataConfig) -> str:
    """All that decides what is found in files."""
    return f"pairs, by {sorted(item for item in asdict(data).items() if item[0] not in _OTHER_FIELDS)}"


def look_at_pairs(data: DataConfig, items: Sequence[Item]) -> list[tuple[Any, bool]]:
    """Decodes pictures and their masks; what is found in each pair is for `Finding.from_json`."""
    with ThreadPoolExecutor(THREADS) as pool:
        findings = pool.map(partial(_read_and_examine, data), items)
        return [(finding.to_json(), not finding.problem) for finding in findings]


def _read_and_examine(data: DataConfig, item: Item) -> Finding:
    picture, mask = item
    assert picture is not None
    contents = [None if place is None else _read(place) for place in item]
    with _DECODING:
        return _examine_pair(data, (picture, mask), contents)


def _read(place: Path) -> bytes | Exception:
    try:
        return read_file(place)
    except (UnusableError, OSError) as error:
        return error


def _examine_pair(
    data: DataConfig, names: tuple[Path, Path | None], contents: list[bytes | Exception | None]
) -> Finding:
    (picture, mask), (content, mask_content) = names, contents
    try:
        scan = _examine_picture(data, _require(content))
    except (UnusableError, OSError) as error:
        return Finding("picture that cannot be used", f"{picture.name} {error}")
    if mask is None:
        return scan
    try:
        content = _require(mask_content)
        mask_HW = decode_mask(content, data)
    except (UnusableError, OSError) as error:
        return replace(scan, problem="mask that cannot be used", detail=f"{mask.name} {error}", is_of_mask=True)
    if mask_HW.shape != scan.size:
        sizes = [f"{width} x {height}" for height, width in (scan.size, mask_HW.shape)]
        detail = f"picture {sizes[0]}, mask {sizes[1]}"
        if scan.is_turned:
            detail += (
                "; the picture is turned as its EXIF orientation says: draw the mask on what viewers show, or "
                "remove the tag"
            )
        return replace(scan, problem="mask of another size than its picture", detail=detail, is_of_mask=True)
    scan.digests = (scan.digests[0], digest(content))
    values, times = _count_values(mask_HW)
    scan.seen = frozenset(values[:_MOST_VALUES].tolist())
    if data.ignore_value is not None:
        counts = values != data.ignore_value
        values, times = values[counts], times[counts]
        if not len(values):
            problem = "mask in which no pixel counts"
            return replace(scan, problem=problem, detail=f"all are {data.ignore_value}", is_of_mask=True)
    scan.values = (values[:_MOST_VALUES], times[:_MOST_VALUES])
    if data.soft_masks:
        half = (1 if values[-1] <= 1 else 255 if values[-1] <= 255 else 65535) / 2
        scan.values = (
            np.array([0, round(2 * half)]),
            np.array([times[values <= half].sum(), times[values > half].sum()]),
        )
    return scan


def _require(content: bytes | Exception | None) -> bytes:
    """What was read; raises what reading has raised."""
    assert content is not None
    if isinstance(content, Exception):
        raise content
    return content


def _examine_picture(data: DataConfig, content: bytes) -> Finding:
    """Of what is as large as the picture nothing outlives this."""
    rules = replace(data.picture_rules, bit_depth=data.bit_depth, finds_depth=data.bit_depth is None)
    decoded = decode_picture(content, data.channels, rules)
    values_CHW = decoded.values_CHW
    scale, planes = np.iinfo(values_CHW.dtype).max, values_CHW.reshape(data.channels, -1)
    return Finding(
        kind=decoded.kind,
        is_turned=decoded.is_turned,
        is_transparent=decoded.is_transparent,
        largest=decoded.largest,
        size=values_CHW.shape[1:],
        digests=(digest(content), b""),
        sums_C=np.array([sum_pairwise(plane, lambda part: part.astype(np.float64) / scale) for plane in planes]),
        squares_C=np.array(
            [sum_pairwise(plane, lambda part: (part.astype(np.float64) / scale) ** 2) for plane in planes]
        ),
    )


def _count_values(mask_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a mask in rising order, and how often each is there."""
    times: dict[int, int] = {}
    flat = mask_HW.reshape(-1)
    for start in range(0, len(flat), _AT_ONCE):
        found, num = np.unique(flat[start : start + _AT_ONCE], return_counts=True)
        for value, times_there in zip(found.tolist(), num.tolist(), strict=True):
            times[value] = times.get(value, 0) + times_there
    values = sorted(times)
    return np.array(values, np.int64), np.array([times[value] for value in values], np.int64)
