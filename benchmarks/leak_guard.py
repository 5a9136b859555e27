"""What the search for leaks costs before a run starts.

    python benchmarks/leak_guard.py [--rows 100000]

Made-up rows with texts of about 500 characters and pictures of 20 to 80 kB, most of which share their size with
another; one row in a hundred is a copy of another. Baseline: reading and checking the same tables and pictures, as
every start does. The pictures are a header, a hole and 4 KiB of noise, so that the disk holds them."""

from __future__ import annotations

import argparse
import io
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

from ray_jobs.config.folds import FoldsConfig
from ray_jobs.planning.folds import plan_folds
from ray_jobs.planning.leaks import count_leaks, find_leaks
from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.row_keys import collect_row_keys, hash_pictures
from trainers.clip_regression.rows.table import fingerprint_files, read_train_rows
from trainers.interface import Inventory

COPIES = 0.01


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=100_000)
    num_rows = arguments.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        make_data(Path(scratch), num_rows)
        data = DataConfig(root=scratch, test_table="")
        rows, read_s = _time(lambda: read_train_rows(data))
        _, fingerprint_s = _time(lambda: fingerprint_files(data, [rows]))
        _, pictures_s = _time(lambda: hash_pictures(rows.pictures, rows.ends, rows.known))
        keys, keys_s = _time(lambda: collect_row_keys(rows, None))
    inventory = Inventory(rows.ids, rows.target, "views", 0, "", row_keys=keys)
    print(f"{num_rows} rows")
    print(f"  reading and checking tables and pictures (baseline) {read_s + fingerprint_s:6.1f} s")
    print(f"  keys of pictures                                    {pictures_s:6.1f} s")
    print(f"  keys of texts                                       {keys_s - pictures_s:6.1f} s")
    search_s = _report_folds(inventory)
    print(
        f"search for leaks {keys_s + search_s:.1f} s, {(keys_s + search_s) / (read_s + fingerprint_s):.2f} of the "
        "baseline"
    )


def _report_folds(inventory: Inventory) -> float:
    plan = plan_folds(FoldsConfig(), inventory)
    leaks, search_s = _time(lambda: find_leaks(plan, inventory))
    print(f"  twins across folds                                  {search_s:6.1f} s: {count_leaks(leaks, inventory)}")
    for kind in ("random", "stratified"):
        folds = FoldsConfig(kind=kind, on_leak="group")
        plan, seconds = _time(lambda folds=folds: plan_folds(folds, inventory))
        assert not find_leaks(plan, inventory)
        print(f"  folds.on_leak=group, folds.kind={kind:<11}         {seconds:6.1f} s")
    return search_s


def make_data(root: Path, num_rows: int) -> None:
    """`train_val.csv` and its pictures."""
    rng = np.random.default_rng(0)
    header = io.BytesIO()
    Image.fromarray(np.zeros((224, 224, 3), np.uint8)).save(header, "JPEG")
    (root / "train_val").mkdir()
    texts: list[str] = []
    for row in range(num_rows):
        path = root / "train_val" / f"r{row}.jpg"
        if row and rng.random() < COPIES:
            other = int(rng.integers(row))
            path.write_bytes((root / "train_val" / f"r{other}.jpg").read_bytes())
            texts.append(texts[other])
            continue
        texts.append(" ".join(f"word{number}" for number in rng.integers(0, 50_000, 55)))
        with path.open("wb") as file:
            file.write(header.getvalue())
            file.seek(int(rng.integers(20_000, 80_000)))
            file.write(rng.bytes(4096) + b"\xff\xd9")
    frame = pd.DataFrame({"id": [f"r{row}" for row in range(num_rows)], "title": texts, "description": ""})
    frame["date"], frame["views"] = "2020-01-01", rng.integers(0, 10_000, num_rows)
    frame.to_csv(root / "train_val.csv", index=False)


def _time(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


if __name__ == "__main__":
    main()
