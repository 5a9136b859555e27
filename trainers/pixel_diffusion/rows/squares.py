"""How a picture of any size becomes a small square one. No torch.

Shape suffixes: C colours, H height, W width.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from trainers.reading.picture_rules import PictureRules
from trainers.reading.pictures import decode_rgb


def read_square(content: bytes, size: int, rules: PictureRules) -> np.ndarray:
    """A picture's file as (C, H, W) uint8 of this size.

    Raises:
        UnusableError: it is no picture, or no rule says how it is to be read.
    """
    return np.ascontiguousarray(
        np.asarray(make_square(decode_rgb(io.BytesIO(content), rules), size)).transpose(2, 0, 1)
    )


def make_square(picture: Image.Image, size: int) -> Image.Image:
    """The middle of a picture whose shorter side is scaled to a size: halved by box filters while it is twice as large,
    then bicubic, as the method's program does."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))
