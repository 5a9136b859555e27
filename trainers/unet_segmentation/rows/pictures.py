"""What is in the files: a picture as numbers, a mask as class numbers, and both at the scale that is trained on. No
torch.

`trainers/reading/pictures.py` decodes; what the numbers of a mask mean is decided here.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.reading.picture_files import IrregularError, open_regular
from trainers.reading.picture_rules import PictureRules
from trainers.reading.pictures import (
    Decoded,
    Opened,
    UnusableError,
    check_mode,
    decode,
    load,
    open_picture,
    read_samples,
    turn,
)
from trainers.unet_segmentation.config import DataConfig

IGNORED = 255  # the class of pixels that count nowhere
_MOST_BYTES = 2**29
_PLAIN = "expected one channel of class numbers"


def read_file(path: Path) -> bytes:
    """The bytes of a file of pictures.

    Raises:
        UnusableError: it is a pipe or a device, which could be waited for without end, or larger than any picture.
        OSError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                raise UnusableError(f"is larger than {_MOST_BYTES >> 20} MiB")
            return file.read()
    except IrregularError as error:
        raise UnusableError(str(error)) from None


def decode_picture(content: bytes, channels: int, rules: PictureRules) -> Decoded:
    """A picture, (C, H, W) uint8, or uint16 over its whole range.

    Raises:
        UnusableError: it is no picture, or one that is not read.
    """
    return decode(io.BytesIO(content), channels, rules)


def decode_mask(content: bytes, data: DataConfig) -> np.ndarray:
    """The values of a mask, (H, W) integers; of a palette the indices. Where it is transparent, they are 0.

    Raises:
        UnusableError: it is no picture, has colours, or does not say which values are meant.
    """
    opened = open_picture(io.BytesIO(content), data.max_pixels)
    mode = opened.picture.mode
    if opened.is_cut:
        raise UnusableError(f"is of mode {opened.stored}, of which only the upper 8 bits can be read: {_PLAIN}")
    if not opened.is_deep and mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        raise UnusableError(f"is of mode {mode}: {_PLAIN}")
    check_mode(opened)
    orientation = load(opened)
    return turn(_read_values(opened, data), orientation)


def _read_values(opened: Opened, data: DataConfig) -> np.ndarray:
    picture, mode = opened.picture, opened.picture.mode
    if opened.is_deep:
        return read_samples(picture)
    if mode in ("P", "PA"):
        values_HW = _read_palette(picture)
        return values_HW if mode == "P" else _lay_on_background(values_HW, picture, data)
    if "transparency" in picture.info:
        picture = picture.convert("RGBA" if mode == "RGB" else "LA")
    first_HW = read_samples(picture, 0).astype(np.uint8, copy=False)
    for band in picture.getbands()[1:3] if picture.mode.startswith("RGB") else ():
        if (read_samples(picture, band) != first_HW).any():
            raise UnusableError(f"has colours: {_PLAIN}")
    return _lay_on_background(first_HW, picture, data) if picture.mode.endswith("A") else first_HW


def _read_palette(picture: Image.Image) -> np.ndarray:
    """The indices; of a GIF, which has a palette in any case, the greys."""
    values_HW = read_samples(picture, 0)
    palette = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = [index for index, times in enumerate(picture.getchannel(0).histogram()) if times]
    colours = palette[[index for index in used if index < len(palette)]]
    is_grey = bool((colours == colours[:, :1]).all())
    if picture.format == "GIF":
        if not is_grey:
            raise UnusableError(f"has colours: {_PLAIN}")
        greys = np.arange(256, dtype=np.uint8)
        greys[: len(palette)] = palette[:, 0]
        shown_HW: np.ndarray = greys[values_HW]
        return shown_HW
    if is_grey and (np.diff(colours[:, 0]) < 0).any():
        raise UnusableError(
            f"is of mode {picture.mode} with greys that fall where its numbers rise, so that it is not known which "
            f"are meant: {_PLAIN}"
        )
    return values_HW


def _lay_on_background(values_HW: np.ndarray, picture: Image.Image, data: DataConfig) -> np.ndarray:
    """0 where nothing is drawn: transparent pixels are of the background.

    Raises:
        UnusableError: what is drawn cannot be told from it.
    """
    alpha_HW, mode = read_samples(picture, "A"), picture.mode
    low, high = int(alpha_HW.min()), int(alpha_HW.max())
    if low == 255:
        return values_HW
    if high == 0 and values_HW.min() != values_HW.max():
        raise UnusableError(f"is of mode {mode} and wholly transparent, with values below: {_PLAIN}")
    if not data.soft_masks and ((alpha_HW > 0) & (alpha_HW < 255)).any():
        raise UnusableError(
            f"is of mode {mode} and half transparent in places: {_PLAIN}, or data.soft_masks=true takes half as the "
            "border"
        )
    if high > 0 and not values_HW[alpha_HW > 0].any():
        raise UnusableError(
            f"is of mode {mode} and black where it is not transparent: which of both is meant? {_PLAIN}"
        )
    laid_HW: np.ndarray = (values_HW.astype(np.uint16) * alpha_HW + 127) // 255
    return laid_HW.astype(np.uint8)


def to_classes(values_HW: np.ndarray, data: DataConfig) -> np.ndarray:
    """Class numbers, (H, W) uint8, of a mask's values by `data.mask_values`; IGNORED where they are
    `data.ignore_value`.

    Raises:
        UnusableError: it holds other values; the first are named.
    """
    is_ignored_HW = np.zeros((), bool) if data.ignore_value is None else values_HW == data.ignore_value
    if data.soft_masks:
        soft_HW = (values_HW > data.mask_values[1] / 2).astype(np.uint8)
        return np.where(is_ignored_HW, np.uint8(IGNORED), soft_HW)
    classes_HW = np.full(values_HW.shape, data.classes, np.uint8)
    for number, value in enumerate(data.mask_values):
        classes_HW[values_HW == value] = number
    if is_ignored_HW.ndim:
        classes_HW[is_ignored_HW] = IGNORED
    if unknown := np.unique(values_HW[classes_HW == data.classes])[:4].tolist():
        raise UnusableError(
            f"has the values {', '.join(map(str, unknown))}: expected {describe_values(data.mask_values)}"
        )
    return classes_HW


def describe_values(values: tuple[int, ...]) -> str:
    """`0, 1, 2 and 3`."""
    return f"{', '.join(map(str, values[:-1]))} and {values[-1]}"


def scaled_size(height: int, width: int, data: DataConfig) -> tuple[int, int]:
    """Height and width at which a picture of this size is learned from and predicted."""
    if data.scaling == "keep":
        return height, width
    factor = data.size / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def scale_picture(picture_CHW: np.ndarray, data: DataConfig) -> np.ndarray:
    """A picture at that size, in its own dtype: bilinear, and smoothed where it shrinks."""
    _, tall, wide = picture_CHW.shape
    height, width = scaled_size(tall, wide, data)
    if (height, width) == (tall, wide):
        return picture_CHW
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
        for plane in picture_CHW
    ]
    scaled_CHW: np.ndarray = np.rint(np.stack([np.asarray(plane) for plane in planes]))
    return scaled_CHW.astype(picture_CHW.dtype)


def scale_mask(mask_HW: np.ndarray, data: DataConfig) -> np.ndarray:
    """A mask at that size: of each new pixel the nearest old one's class."""
    tall, wide = mask_HW.shape
    height, width = scaled_size(tall, wide, data)
    if (height, width) == (tall, wide):
        return mask_HW
    return np.asarray(Image.fromarray(mask_HW).resize((width, height), Image.Resampling.NEAREST))
