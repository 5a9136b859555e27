"""Are pictures that were saved again found, and no others? And how long that takes.

    REAL_DATA_ROOT=… python benchmarks/near_pictures.py
    python benchmarks/near_pictures.py --rows 100000

Of the pictures of each data set every tenth is planted again: as JPEG of quality 60, at half its size, without 3 % of
its width and height, mirrored. Found is a planted one that is linked to its original. False is a picture that is linked
to another one of the data set; those of art_auction that are indeed the same object were looked at and are named.
The time is that of so many made-up JPEG files of 128 x 128 pixels, in an empty folder for temporary files: of the check
of every start, which opens each header, of reading thumbnails, and of comparing them."""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from PIL import Image

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.table import read_train_rows
from trainers.reading.near_pictures import find_pairs, read_thumbnails

SETS = {"art_auction": "**/*.jpg", "cifar10_subset": "**/*.jpg", "lung_xray": "**/images/*"}
MOST, SIDE = 3000, 128


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
    originals = read_thumbnails(paths)
    read_s = (time.perf_counter() - began) / len(paths)
    first, second = find_pairs(originals)
    linked = np.unique(np.concatenate([first, second]))
    shown = ", ".join(f"{paths[a].stem}-{paths[b].stem}" for a, b in list(zip(first, second, strict=True))[:6])
    print(f"{root.name}: {len(paths)} pictures, {read_s * 1e3:.2f} ms each to read")
    print(f"  linked to another: {len(linked)} ({len(linked) / len(paths):.2%}): {shown}")
    some = np.arange(0, len(paths), 10)
    for name, plant in PLANTED.items():
        planted = read_thumbnails([plant(Image.open(paths[number]).convert("RGB")) for number in some])
        a, b = find_pairs(np.concatenate([originals, planted]))
        found = {(x, y - len(paths)) for x, y in zip(a.tolist(), b.tolist(), strict=True) if y >= len(paths) > x}
        share = np.mean([(number, place) in found for place, number in enumerate(some.tolist())])
        print(f"  {name:12} found {share:.3f} of {len(some)}", flush=True)


def measure_time(num_rows: int) -> None:
    """Prints what the check and the search for near pictures cost."""
    with tempfile.TemporaryDirectory() as scratch:
        make_data(Path(scratch), num_rows)
        rows = _tell_time("check of a start", lambda: read_train_rows(DataConfig(root=scratch, test_table="")))
        thumbnails = _tell_time("reading thumbnails", lambda: read_thumbnails(rows.pictures))
    first, _ = _tell_time("comparing", lambda: find_pairs(thumbnails))
    print(f"{num_rows} rows, {len(first)} pairs")


def make_data(root: Path, num_rows: int) -> None:
    """`train_val.csv` and its pictures, each of some 3 kB and like no other."""
    rng = np.random.default_rng(0)
    (root / "train_val").mkdir()
    for row in range(num_rows):
        rough = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        rough.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(root / "train_val" / f"r{row}.jpg", quality=80)
    frame = pd.DataFrame({"id": [f"r{row}" for row in range(num_rows)], "title": "", "description": ""})
    frame.assign(date="2020-01-01", views=1).to_csv(root / "train_val.csv", index=False)


def _tell_time(what: str, work: Callable[[], Any]) -> Any:
    cpu, began = _count_cpu_s(), time.perf_counter()
    result = work()
    print(f"  {what:18} {_count_cpu_s() - cpu:6.1f} CPU s, {time.perf_counter() - began:6.1f} s", flush=True)
    return result


def _count_cpu_s() -> float:
    """CPU time of this process and of those that it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int)
    num_rows = arguments.parse_args().rows
    if num_rows is not None:
        measure_time(num_rows)
        return
    for name, pattern in SETS.items():
        measure(Path(os.environ["REAL_DATA_ROOT"]) / name, pattern)


if __name__ == "__main__":
    main()
