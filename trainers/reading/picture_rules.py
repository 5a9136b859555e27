"""What a file of a picture does not say itself: the rules by which `pictures.py` reads it. Light: configs stand on
this.

Bits in use of 16 are found in all pictures of a run together, where nobody says how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainers.values import check_number, refuse

# Whatever the file is called. Other decoders run programs of their own, or take anything for a picture.
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF")
MAX_PICTURE_PIXELS = 50_000_000  # 150 MB decoded; a larger header is a mistake or a decompression bomb
BIT_DEPTHS = (8, 10, 12, 14, 16)
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class PictureRules:
    """What a file of a picture does not say itself.

    Attributes:
        bit_depth: bits in use of 16, where the file does not say how many; None: not known.
        background: what transparency is laid on: red, green and blue.
        max_pixels: of a picture; more are refused unread.
        finds_depth: the depth is being found: until then 16 bits are read as a whole.
    """

    bit_depth: int | None = None
    background: Sequence[int] = WHITE
    max_pixels: int = MAX_PICTURE_PIXELS
    finds_depth: bool = False

    def __post_init__(self) -> None:
        if self.bit_depth is not None and self.bit_depth not in BIT_DEPTHS:
            raise refuse("data.bit_depth", self.bit_depth, f"one of {', '.join(map(str, BIT_DEPTHS))}, or none")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise refuse("data.background", self.background, "red, green and blue, 0 to 255 each")
        check_number("data.max_pixels", self.max_pixels, least=1)


def count_bits(largest: int) -> int:
    """The fewest bits that cameras and scanners have and that hold a value."""
    return next(bits for bits in BIT_DEPTHS if largest < 2**bits)


def find_depth(largest: Sequence[int], bit_depth: int | None) -> tuple[int | None, tuple[str, ...]]:
    """How many bits of 16 are in use where pictures do not say it, and sentences for the user; None: no picture asks.

    Args:
        largest: value of each picture that does not say it.
        bit_depth: as the user has set it.
    """
    if not largest or bit_depth is not None:
        return bit_depth, ()
    depth = count_bits(max(largest))
    whole = "the whole range of 65,536 values is read" if depth == 16 else f"{depth} bits are taken to be in use"
    note = (
        f"{len(largest):,} pictures have 16 bits and do not say how many are in use; the largest value is "
        f"{max(largest):,}, so {whole} (data.bit_depth says otherwise)"
    )
    return depth, (note,)
