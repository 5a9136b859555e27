"""Pictures that the project makes itself: 16 by 16 pixels, one shape of one colour at one place. There are 3 · 11 · 11
· 6 = 2,178 of them, all equally likely: so the best possible denoiser is known, and with it the lowest possible loss.

Each picture is drawn by itself, so that some are there twice.

Shape suffixes: N pictures, H height, W width.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from trainers.reading.data_folder import MADE_DATA
from trainers.storage.whole_files import write_whole

SIZE, _SHAPE = 16, 6
NUM_TRAIN, NUM_TEST = 1536, 192
CLASSES = ("cross", "disc", "square")
_GROUND = 26
_COLOURS = np.array(
    [[255, 51, 51], [51, 255, 51], [51, 77, 255], [255, 255, 51], [255, 51, 255], [51, 255, 255]], np.uint8
)
_PLACES = SIZE - _SHAPE + 1


def make_data(folder: Path) -> Path:
    """Writes `<class>/*.png` and `test/<class>/*.png` below `folder/made_data`, always the same.

    Returns:
        The folder to use as `data.root`. If it is already there and whole, it is left as it is.
    """
    from PIL import Image

    root = folder / MADE_DATA
    if (root / "README.txt").exists():
        return root
    pictures_NHW3, label_N = list_pictures()
    drawn = np.random.default_rng(20_260_301).integers(len(label_N), size=NUM_TRAIN + NUM_TEST)
    for number, which in enumerate(drawn.tolist()):
        place = root / ("" if number < NUM_TRAIN else "test") / CLASSES[label_N[which]]
        place.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        Image.fromarray(pictures_NHW3[which]).save(content, "PNG")
        (place / f"{number:04d}.png").write_bytes(content.getvalue())
    write_whole(root / "README.txt", (__doc__ or "").encode())
    return root


def is_made(root: Path) -> bool:
    """Whether a folder holds these pictures."""
    return root.name == MADE_DATA and (root / "README.txt").exists()


def list_pictures() -> tuple[np.ndarray, np.ndarray]:
    """All pictures that there are, (N, H, W, 3) uint8, and the number of each one's class, (N,)."""
    shape = (len(CLASSES), _PLACES, _PLACES, len(_COLOURS))
    kind_N, row_N, column_N, colour_N = (index.ravel() for index in np.indices(shape))
    y, x = np.mgrid[:SIZE, :SIZE]
    inner_y, inner_x = y - row_N[:, None, None], x - column_N[:, None, None]
    is_inside = (inner_y >= 0) & (inner_y < _SHAPE) & (inner_x >= 0) & (inner_x < _SHAPE)
    middle = (_SHAPE - 1) / 2
    off_y, off_x = inner_y - middle, inner_x - middle
    masks = [
        (abs(off_y) <= 1) | (abs(off_x) <= 1),
        off_y**2 + off_x**2 <= (_SHAPE / 2) ** 2 - 0.5,
        np.full_like(is_inside, True),
    ]
    is_shape = np.choose(kind_N[:, None, None], masks) & is_inside
    ground = np.full(3, _GROUND, np.uint8)
    return np.where(is_shape[..., None], _COLOURS[colour_N][:, None, None], ground), kind_N
