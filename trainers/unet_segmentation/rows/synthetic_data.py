"""Pictures that the project makes itself, so that a first run needs no download: bright and dark blobs on a noisy
ground.

The mask is the bright blobs; the dark ones, and a brightness that differs from picture to picture, are there to
mislead. Pictures come in fours of one "patient", whose ground is the same: folds that split patients would flatter."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.reading.data_folder import MADE_DATA
from trainers.storage.whole_files import write_whole

NUM_PATIENTS, NUM_TEST_PATIENTS, PICTURES_EACH, SIZE = 15, 3, 4, 64


def make_data(folder: Path) -> Path:
    """Writes images, masks, test_images and test_masks below `folder/made_data`, always the same ones.

    Returns:
        The folder to use as `data.root`. If it is already there and whole, it is left as it is.
    """
    root = folder / MADE_DATA
    if (root / "README.txt").exists():
        return root
    for patient in range(NUM_PATIENTS + NUM_TEST_PATIENTS):
        rng = np.random.default_rng([20_250_601, patient])
        ground = _draw_ground(rng)
        prefix = "" if patient < NUM_PATIENTS else "test_"
        for number in range(PICTURES_EACH):
            picture, mask = _draw(rng, ground)
            for kind, values in (("images", picture), ("masks", mask)):
                buffer = io.BytesIO()
                Image.fromarray(values).save(buffer, "PNG")
                write_whole(root / f"{prefix}{kind}" / f"p{patient:02d}_{number}.png", buffer.getvalue())
    write_whole(
        root / "README.txt", b"Made up by trainers/unet_segmentation/rows/synthetic_data.py.\n"
    )  # last: it is whole
    return root


def _draw_ground(rng: np.random.Generator) -> np.ndarray:
    """A smooth ground of this patient."""
    coarse = Image.fromarray(rng.normal(100, 25, (6, 6)).astype(np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _draw(rng: np.random.Generator, ground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its mask."""
    picture, mask = ground.copy(), np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(1, 3)):
        picture[_draw_blob(rng)] -= 45
    for _ in range(rng.integers(1, 4)):
        blob = _draw_blob(rng)
        picture[blob] = np.maximum(picture[blob], ground[blob] + 35)
        mask |= blob
    picture += rng.normal(0, 14, picture.shape) + rng.normal(0, 8)
    return np.clip(picture, 0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def _draw_blob(rng: np.random.Generator) -> np.ndarray:
    """An ellipse."""
    y, x = np.mgrid[:SIZE, :SIZE]
    centre, radius, angle = rng.uniform(10, SIZE - 10, 2), rng.uniform(4, 11, 2), rng.uniform(0, np.pi)
    along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
    across = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
    is_inside_HW: np.ndarray = (along / radius[0]) ** 2 + (across / radius[1]) ** 2 <= 1
    return is_inside_HW
