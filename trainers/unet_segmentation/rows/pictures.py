"""What is in the files: a picture as numbers, a mask as class numbers, and both at the scale that is trained on. No torch.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainers.storage.picture_files import MAX_PICTURE_PIXELS, PICTURE_FORMATS, load_decoders
from trainers.unet_segmentation.config import DataConfig

load_decoders()
_MOST_BYTES = 2**29
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I")  # one channel of 16 bits


class UnusableError(Exception):
    """A file cannot be used; the message says why, without its name."""


def read_file(path: Path) -> bytes:
    """The bytes of a file of pictures.

    Raises:
        UnusableError: it is a pipe or a device, which could be waited for without end, or larger than any picture.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise UnusableError("is no regular file")
    if path.stat().st_size > _MOST_BYTES:
        raise UnusableError(f"is larger than {_MOST_BYTES >> 20} MiB")
    return path.read_bytes()


def decode_picture(content: bytes, channels: int) -> tuple[np.ndarray, str]:
    """A picture, (C, H, W) uint8 or uint16 of the file's whole range, and the kind of the file: grey, colour or 16 bits.

    Raises:
        UnusableError: it is no picture, or one that is not read.
    """
    picture = _open(content)
    if picture.mode in _DEEP_MODES:
        values_HW = np.asarray(picture).astype(np.int64)
        if values_HW.min() < 0 or values_HW.max() > 65535:
            raise UnusableError("has values outside of 16 bits")
        return np.repeat(values_HW[None].astype(np.uint16), channels, axis=0), "16 bits"
    if picture.mode == "F":
        raise UnusableError("holds floating-point numbers: expected 8 or 16 bits")
    kind = "grey" if picture.mode in ("1", "L", "LA") else "colour"
    if channels == 1:
        return np.asarray(picture.convert("L"))[None], kind
    return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1)), kind


def decode_mask(content: bytes) -> np.ndarray:
    """The values of a mask, (H, W) integers; of a palette the indices.

    Raises:
        UnusableError: it is no picture, or has colours.
    """
    picture = _open(content)
    if picture.mode in ("1", "L", "P", *_DEEP_MODES):
        return np.asarray(picture).astype(np.int64)
    if picture.mode not in ("LA", "RGB", "RGBA"):
        raise UnusableError(f"is of kind {picture.mode}: expected one channel of class numbers")
    values_HWC = np.asarray(picture.convert("RGB"))
    if (values_HWC != values_HWC[..., :1]).any():
        raise UnusableError("has colours: expected one channel of class numbers")
    return values_HWC[..., 0].astype(np.int64)


def to_classes(values_HW: np.ndarray, data: DataConfig) -> np.ndarray:
    """Class numbers, (H, W) uint8, of a mask's values by `data.mask_values`.

    Raises:
        UnusableError: it holds other values; the first are named.
    """
    if data.soft_masks:
        return (values_HW > data.mask_values[1] / 2).astype(np.uint8)
    classes_HW = np.full(values_HW.shape, data.classes, np.uint8)
    for number, value in enumerate(data.mask_values):
        classes_HW[values_HW == value] = number
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


def _open(content: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content), formats=PICTURE_FORMATS)
        if picture.width * picture.height > MAX_PICTURE_PIXELS:
            raise UnusableError(f"has {picture.width} x {picture.height} pixels, more than {MAX_PICTURE_PIXELS:,}")
        picture.load()
        return picture
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "no PNG, JPEG or WebP picture" if isinstance(error, UnidentifiedImageError) else error
        raise UnusableError(f"cannot be decoded: {reason}") from None
