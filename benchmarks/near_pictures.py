"""Are pictures that were saved again found, and no others? And how long that takes.

    REAL_DATA_ROOT=… python benchmarks/near_pictures.py [--rows 100000]

Of the pictures of each data set every tenth is planted again: as JPEG of quality 60, at half its size, without 3 % of
its width and height, mirrored. Found is a planted one that is linked to its original. False is a picture that is linked
to another one of the data set; those of art_auction that are indeed the same object were looked at and are named.
The time is that of as many copies of thumbnails as there are rows, and of decoding one picture."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from trainers.reading.near_pictures import find_pairs, read_thumbnails

SETS = {"art_auction": "**/*.jpg", "cifar10_subset": "**/*.jpg", "lung_xray": "**/images/*"}
MOST = 3000


def save(picture: Image.Image, quality: int = 90) -> bytes:
    """As a JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def crop(picture: Image.Image) -> Image.Image:
    """Without 3 % of width and height, off one corner."""
    width, height = picture.size
    return picture.crop((0, 0, max(1, round(0.97 * width)), max(1, round(0.97 * height))))


def shrink(picture: Image.Image) -> Image.Image:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))


PLANTED: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG 60": lambda picture: save(picture, 60),
    "half size": lambda picture: save(shrink(picture)),
    "3 % cropped": lambda picture: save(crop(picture)),
    "mirrored": lambda picture: save(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def measure(root: Path, pattern: str) -> None:
    """Prints the shares of one data set."""
    paths = sorted(root.glob(pattern))[:MOST]
    began = time.perf_counter()
    originals = read_thumbnails(path.read_bytes() for path in paths)
    read_s = (time.perf_counter() - began) / len(paths)
    first, second = find_pairs(originals)
    linked = np.unique(np.concatenate([first, second]))
    shown = ", ".join(f"{paths[a].stem}-{paths[b].stem}" for a, b in list(zip(first, second, strict=True))[:6])
    print(f"{root.name}: {len(paths)} pictures, {read_s * 1e3:.2f} ms each to read")
    print(f"  linked to another: {len(linked)} ({len(linked) / len(paths):.2%}): {shown}")
    some = np.arange(0, len(paths), 10)
    for name, plant in PLANTED.items():
        planted = read_thumbnails(plant(Image.open(paths[number]).convert("RGB")) for number in some)
        a, b = find_pairs(np.concatenate([originals, planted]))
        found = {(x, y - len(paths)) for x, y in zip(a.tolist(), b.tolist(), strict=True) if y >= len(paths) > x}
        share = np.mean([(number, place) in found for place, number in enumerate(some.tolist())])
        print(f"  {name:12} found {share:.3f} of {len(some)}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=100_000)
    num_rows = arguments.parse_args().rows
    for name, pattern in SETS.items():
        measure(Path(os.environ["REAL_DATA_ROOT"]) / name, pattern)
    thumbnails = np.random.default_rng(0).integers(0, 256, (num_rows, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    began = time.perf_counter()
    find_pairs(thumbnails)
    print(f"{num_rows} thumbnails compared in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
