"""Pictures beside one another, as one. No torch."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_LEAST_SIDE = 64  # smaller pictures are shown larger
_GAP = 2


def encode_picture(picture_CHW: np.ndarray) -> bytes:
    """A picture, (3, H, W) uint8, as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture_CHW.transpose(1, 2, 0))).save(content, "PNG")
    return content.getvalue()


def lay_grid(pictures_NCHW: np.ndarray, columns: int) -> np.ndarray:
    """Pictures from left to right and from top to bottom on white, (3, H, W) uint8; small ones are enlarged by whole
    pixels."""
    factor = max(1, _LEAST_SIDE // pictures_NCHW.shape[-1])
    large = pictures_NCHW.repeat(factor, axis=2).repeat(factor, axis=3)
    number, colours, height, width = large.shape
    rows = -(-number // columns)
    grid = np.full((colours, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP), 255, np.uint8)
    for place, picture in enumerate(large):
        top, left = (place // columns) * (height + _GAP), (place % columns) * (width + _GAP)
        grid[:, top : top + height, left : left + width] = picture
    return grid
