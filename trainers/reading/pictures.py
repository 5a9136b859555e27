"""What is in the file of a picture: the one place that decodes, for all families. docs/data.md has the rules as a
table.

A picture is turned as its EXIF orientation says, transparency is laid on a stated colour, and 16 bits are scaled by the
bits that are in use. What these rules do not settle is refused, with the file's mode; nothing is cut off or dropped in
silence. No torch.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

# All plugins here: Pillow would import the one that it needs in whichever thread is first.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    Image,
    ImageColor,  # noqa: F401
    ImageOps,  # noqa: F401
    ImagePalette,  # noqa: F401
    Jpeg2KImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from trainers.reading.picture_rules import PICTURE_FORMATS, PictureRules, count_bits

DEEP = 65535  # white of 16 bits
_ORIENTATION = 0x0112
_BAND_PIXELS = 2**20  # converted at once: a large picture is in memory once decoded and once as an array
_COLOURS = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_GREYS = ("1", "L", "LA", "La")
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda values_HW: np.rot90(values_HW, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda values_HW: np.rot90(values_HW, -1),
    7: lambda values_HW: np.rot90(values_HW, 2).T,
    8: np.rot90,
}

# What Pillow's decoders raise of a damaged file.
_EXPECTED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    Warning,
)

Image.preinit()
Image.MAX_IMAGE_PIXELS = None  # PictureRules has the limit, looked at before anything is decoded


class UnusableError(Exception):
    """A file cannot be used; the message says why, without its name."""


class DamagedError(UnusableError):
    """It is not a whole picture.

    Args:
        cause: what its decoder says.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(f"cannot be decoded: {cause}")
        self.cause = cause


@dataclass(frozen=True)
class Opened:
    """A file as its header says it is; its pixels are read when they are wanted.

    Attributes:
        picture: lazily read, as it is stored.
        stored: Pillow's name of how samples are stored, such as RGB;16B.
    """

    picture: Image.Image
    stored: str

    @property
    def is_deep(self) -> bool:
        """Whether it has one channel of more than 8 bits."""
        return self.picture.mode.startswith("I")

    @property
    def is_cut(self) -> bool:
        """Whether Pillow gives only the upper half of its 16 bits."""
        return not self.is_deep and ";16" in self.stored

    @property
    def own_depth(self) -> int | None:
        """Bits in use, of 16, where the file says it."""
        if self.stored == "I;12":
            return 12
        return 16 if self.picture.format in ("PPM", "JPEG2000") else None  # Pillow has scaled them


@dataclass(frozen=True)
class Decoded:
    """A picture as numbers.

    Attributes:
        values_CHW: uint8, or uint16 over the whole range of 65,536 values; turned as viewers show it.
        kind: grey, colour or 16 bits.
        is_turned: by an EXIF orientation.
        is_transparent: somewhere.
        largest: value of a channel of 16 bits that does not say how many are in use; 0 of other files.
    """

    values_CHW: np.ndarray
    kind: str
    is_turned: bool
    is_transparent: bool
    largest: int


def open_picture(source: Path | IO[bytes], max_pixels: int) -> Opened:
    """Reads a header.

    Raises:
        DamagedError: it is no picture.
        UnusableError: it is too large, or has several pages.
    """
    try:
        picture = Image.open(source, formats=PICTURE_FORMATS)
        width, height = picture.size
        if width * height > max_pixels:
            raise UnusableError(f"has {width} x {height} pixels, more than {max_pixels:,} (data.max_pixels)")
        if picture.format == "TIFF" and (num_pages := picture.n_frames) > 1:  # type: ignore[attr-defined]
            raise UnusableError(f"has {num_pages} pages: expected one; save each page as a file of its own")
        return Opened(picture, _describe_storage(picture))
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DamagedError("cannot identify image file") from None
    except _EXPECTED as error:
        raise DamagedError(str(error) or type(error).__name__) from None


def _describe_storage(picture: Image.Image) -> str:
    """Pillow's raw mode of the first tile; empty where its decoder has none."""
    for tile in getattr(picture, "tile", ()):
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if args and isinstance(args[0], str):
            return str(args[0])
    return ""


def check_mode(opened: Opened) -> None:
    """Raises UnusableError where no rule says what the numbers of a picture mean."""
    picture, mode = opened.picture, opened.picture.mode
    if not opened.is_deep and mode not in (*_GREYS, *_COLOURS):
        what = "floating-point numbers" if mode == "F" else "colours that are not converted"
        raise UnusableError(f"is of mode {mode}, {what}: expected 8 or 16 bits, grey or RGB")
    if mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info:
        raise UnusableError("is of mode CMYK without Adobe's mark, so it may be inverted: save it as RGB")
    if opened.is_deep and "transparency" in picture.info:
        raise UnusableError(f"is of mode {mode} with a transparent value: save it without transparency")
    if picture.format == "TIFF":
        _check_tiff(opened)


def _check_tiff(opened: Opened) -> None:
    tags, mode = opened.picture.tag_v2, opened.picture.mode  # type: ignore[attr-defined]
    if opened.is_deep and tags.get(262) == 0:
        raise UnusableError(f"is of mode {mode} with 0 as white: save it with 0 as black")
    if mode == "L" and tags.get(339, (1,))[0] == 2:
        raise UnusableError("is of mode L with negative numbers: expected 0 to 255")
    if opened.stored.partition(";")[0] in ("LX", "PX", "RGBX", "RGBXX", "RGBXXX", "RGBAX", "RGBAXX", "CMYKX", "CMYKXX"):
        raise UnusableError(f"is of mode {opened.stored}: it has channels of which it does not say what they are")


def load(opened: Opened) -> int:
    """Reads the pixels.

    Returns:
        The EXIF orientation by which they still have to be turned; 1: they stand as viewers show them.

    Raises:
        DamagedError: they cannot be decoded.
    """
    try:
        opened.picture.load()
    except MemoryError:
        raise
    except _EXPECTED as error:
        raise DamagedError(str(error) or type(error).__name__) from None
    return read_orientation(opened.picture)


def read_orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or no sense in it. (Pillow turns TIFF files itself.)"""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # nothing in EXIF data is checked by Pillow, and viewers pass over what is damaged
        return 1
    return orientation if orientation in _TURNS else 1


def decode(source: IO[bytes], channels: int, rules: PictureRules) -> Decoded:
    """A picture as (C, H, W), grey or RGB.

    Raises:
        UnusableError: it is no picture, or no rule says how it is to be read.
    """
    opened = open_picture(source, rules.max_pixels)
    check_mode(opened)
    was_turned = opened.picture.format == "TIFF" and opened.picture.tag_v2.get(_ORIENTATION, 1) != 1  # type: ignore[attr-defined]
    orientation, picture = load(opened), opened.picture
    depth, largest = settle_depth(opened, rules)
    is_transparent = False
    kind = "16 bits" if opened.is_deep else "grey" if _is_grey(picture) else "colour"
    width, height = picture.size
    values_CHW = np.empty((channels, height, width), np.uint16 if opened.is_deep else np.uint8)
    for top, part in _cut(picture):
        is_transparent = is_transparent or _is_transparent(part)
        read = _read_deep(part, depth) if opened.is_deep else np.asarray(_flatten(part, channels, rules))
        values_CHW[:, top : top + part.height] = read if read.ndim == 2 else read.transpose(2, 0, 1)
    del picture, opened
    if orientation != 1:
        values_CHW = np.stack([_TURNS[orientation](plane) for plane in values_CHW])
    return Decoded(values_CHW, kind, was_turned or orientation != 1, is_transparent, largest)


def decode_rgb(source: IO[bytes], rules: PictureRules) -> Image.Image:
    """A picture in RGB with 8 bits.

    Raises:
        UnusableError: as `decode`.
    """
    opened = open_picture(source, rules.max_pixels)
    check_mode(opened)
    orientation = load(opened)
    depth, _ = settle_depth(opened, rules)
    if opened.is_deep:
        values_HW = (_read_deep(opened.picture, depth).astype(np.uint32) + 128) // 257
        picture = Image.fromarray(values_HW.astype(np.uint8)).convert("RGB")
    else:
        picture = _flatten(opened.picture, 3, rules)
    return picture if orientation == 1 else picture.transpose(_TRANSPOSES[orientation])


_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(values_HW: np.ndarray, orientation: int) -> np.ndarray:
    """Numbers as they are stored, turned as viewers show them."""
    return values_HW if orientation == 1 else np.ascontiguousarray(_TURNS[orientation](values_HW))


def _measure_largest(opened: Opened) -> int:
    """The largest value of 16 bits, as far as it is read. The picture has to be loaded.

    Raises:
        UnusableError: the values are none of 16 bits.
    """
    picture = opened.picture
    if opened.is_cut:
        bands = [band for band in picture.getbands() if band not in ("A", "a")]
        return 257 * max(int(picture.getchannel(band).getextrema()[1]) for band in bands)  # type: ignore[arg-type]
    low, high = DEEP, 0
    for _, part in _cut(picture):
        values_HW = np.asarray(part)
        low, high = min(low, int(values_HW.min())), max(high, int(values_HW.max()))
    if low < 0 or high > DEEP:
        raise UnusableError(f"is of mode {picture.mode} with values from {low} to {high}: outside of 16 bits")
    return high


def settle_depth(opened: Opened, rules: PictureRules) -> tuple[int, int]:
    """Bits in use of a picture's 16; and its `Decoded.largest`. It has to be loaded.

    Raises:
        UnusableError: the first is not known, or there is a larger value.
    """
    if not (opened.is_deep or opened.is_cut):
        return 16, 0
    largest, depth = _measure_largest(opened), rules.bit_depth
    if opened.is_cut:
        if depth == 16 or count_bits(largest) == 16:
            return 16, 0
        raise UnusableError(
            f"is of mode {opened.stored}, of which only the upper 8 bits can be read, and these are {largest // 257} "
            "at most: save it with 8 bits, or set data.bit_depth=16 if it is that dark"
        )
    if opened.own_depth is not None:
        return opened.own_depth, 0
    mode = opened.picture.mode
    if depth is None:
        if rules.finds_depth or count_bits(largest) == 16:
            return 16, largest
        raise UnusableError(
            f"is of mode {mode}, and how many of its 16 bits are in use is not known (its largest value is "
            f"{largest:,}): save it with 8 bits"
        )
    if largest >= 2**depth:
        raise UnusableError(f"is of mode {mode} and has the value {largest:,}: more than data.bit_depth={depth} allows")
    return depth, largest


def _is_grey(picture: Image.Image) -> bool:
    palette = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return picture.mode in _GREYS or (picture.mode == "P" and bool((palette == palette[:, :1]).all()))


def _is_transparent(part: Image.Image) -> bool:
    """Whether anything shows through."""
    return part.has_transparency_data and _to_rgba(part).getchannel("A").getextrema()[0] < 255  # type: ignore[operator]


def _to_rgba(part: Image.Image) -> Image.Image:
    return (part.convert("LA") if part.mode == "La" else part).convert("RGBA")


def read_samples(picture: Image.Image, channel: int | str | None = None) -> np.ndarray:
    """(H, W) numbers of one channel as they are stored; None: of the only one."""
    samples_HW: np.ndarray | None = None
    for top, part in _cut(picture):
        read_HW = np.asarray(part if channel is None else part.getchannel(channel))
        if samples_HW is None:
            samples_HW = np.empty((picture.height, picture.width), read_HW.dtype)
        samples_HW[top : top + part.height] = read_HW
    assert samples_HW is not None, "a picture has a row"
    return samples_HW


def _cut(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Bands of rows, and where each begins."""
    rows = max(1, _BAND_PIXELS // picture.width)
    if rows >= picture.height:
        yield 0, picture
        return
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _read_deep(part: Image.Image, depth: int) -> np.ndarray:
    """(H, W) uint16: the bits in use stretched over the whole range."""
    values_HW = np.asarray(part)
    if depth == 16:
        return values_HW.astype(np.uint16)
    white = 2**depth - 1
    stretched_HW: np.ndarray = (values_HW.astype(np.uint32) * DEEP + white // 2) // white
    return stretched_HW.astype(np.uint16)


def _flatten(part: Image.Image, channels: int, rules: PictureRules) -> Image.Image:
    """Grey or RGB, transparency laid on the background."""
    if part.has_transparency_data:
        part = _to_rgba(part)
        ground = Image.new("RGB", part.size, tuple(rules.background))
        ground.paste(part, (0, 0), part)
        part = ground
    return part.convert("L" if channels == 1 else "RGB")


def sum_pairwise(values_N: np.ndarray, map_to: Callable[[np.ndarray], np.ndarray]) -> float:
    """`map_to(values_N).sum()` to the bit, with no more than a part of it in memory: numpy halves a sum in the same
    way.

    Args:
        values_N: contiguous.
        map_to: gives float64 of each value alone.
    """
    if len(values_N) <= _BAND_PIXELS:
        return float(map_to(values_N).sum())
    middle = len(values_N) // 2
    middle -= middle % 8
    return sum_pairwise(values_N[:middle], map_to) + sum_pairwise(values_N[middle:], map_to)
