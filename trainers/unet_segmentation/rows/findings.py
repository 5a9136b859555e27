"""What is in a picture and its mask: whether they decode, their size, their values. No torch.

No more than one of them is in memory decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainers.reading.pictures import UnusableError, sum_pairwise
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.pictures import decode_mask, decode_picture, read_file
from trainers.unet_segmentation.rows.rows_file import digest

_MOST_VALUES = 300  # of a mask that are remembered: more are no classes
_AT_ONCE = 2**20  # pixels that are counted together


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


def examine_pair(data: DataConfig, picture: Path, mask: Path | None) -> Finding:
    """Decodes a picture and its mask."""
    try:
        scan = _examine_picture(data, read_file(picture))
    except (UnusableError, OSError) as error:
        return Finding("picture that cannot be used", f"{picture.name} {error}")
    if mask is None:
        return scan
    try:
        content = read_file(mask)
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
