"""Memory of a run as its rows grow: features of 512 numbers for picture and text, three folds at once.

    python benchmarks/memory.py [--rows 100000 1000000]

Makes a table with a picture for each row (links to a few files) and, in place of hours of encoding, fills the cache of
features with random numbers; everything else is a run as users start it, of one epoch with large batches. Memory is
what the driver and each of Ray's processes hold beside the page cache (anonymous and shared pages, read from /proc
every 0.5 s): the peak of each kind of process. Limit: 3 GB at 1,000,000 rows for the driver and for each fold. The
seconds by stage are what `benchmarks/scale.md` counts with."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from predict_memory import find_family

from ray_jobs.config.recipes import RECIPES
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.features import plan_features
from trainers.clip_regression.inputs.fold_inputs import read_tables
from trainers.clip_regression.inventory import take_inventory, write_inputs
from trainers.interface import Inventory

NUM_PICTURES = 50
MODEL = "--config-name=clip_multimodal_b32 model.pretrained=none model.allow_random_frozen=true"
TRAINING = "training.epochs=1 training.batch_size=4096 training.eval_batch_size=4096 training.horizontal_flip=false"
QUIET = "tracking.wandb=disabled run.dashboard=false run.name=memory"
KINDS = {"/fold ": "fold", "kfold.py": "driver"}


class FillingContext:
    """As much of a context as the plan of features asks for."""

    rank, world_size, device, num_threads = 0, 1, "cpu", 2

    def __init__(self, folder: RunFolder) -> None:
        self.inputs, self.cache, self.cache_uri = folder.inputs, folder.cache, None

    def retry_while_unavailable(self, what, do):
        return do()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    table = Table(
        "rows",
        "driver MiB",
        "fold MiB",
        "all MiB",
        "seconds",
        "check",
        "start",
        "train",
        "epoch",
        "combine",
    )
    for num_rows in arguments.parse_args().rows:
        with tempfile.TemporaryDirectory() as scratch:
            data, storage = Path(scratch) / "data", Path(scratch) / "runs"
            make_data(data, num_rows)
            subprocess.run([sys.executable, __file__, "fill", str(data), str(storage)], check=True)
            words = [*MODEL.split(), *TRAINING.split(), *QUIET.split(), f"data.root={data}", f"run.storage={storage}"]
            peaks, seconds = watch(["ray_jobs/kfold.py", *words])
            stages = read_stages(RunFolder(storage / "memory"))
        names = ("driver", "fold", "all")
        table.add_row(
            f"{num_rows:,}", *(f"{value:,.0f}" for value in (*(peaks[name] for name in names), seconds, *stages))
        )
        Console(width=120).print(table)
    print(
        f"at {num_rows:,} rows the driver takes {peaks['driver']:,.0f} MiB and a fold {peaks['fold']:,.0f} MiB (limit "
        "2,861)"
    )


def make_data(root: Path, num_rows: int) -> None:
    """Texts of about 60 characters, dates, targets, and a link to a picture for each row."""
    rng = np.random.default_rng(0)
    (root / "train_val").mkdir(parents=True)
    for number in range(NUM_PICTURES):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / f"{number}.jpg")
    ids = [f"r{number:07d}" for number in range(num_rows)]
    for row_id, number in zip(ids, draw_pictures(num_rows, seed=1), strict=True):
        os.symlink(f"../{number}.jpg", root / "train_val" / f"{row_id}.jpg")
    title = [f"video {number} of a series about things that are worth seeing" for number in range(num_rows)]
    date = (pd.Timestamp("2025-01-01") - pd.to_timedelta(rng.integers(0, 4000, num_rows), unit="D")).strftime(
        "%Y-%m-%d"
    )
    views = np.round(rng.lognormal(7, 2, num_rows)).astype(int)
    frame = {"id": ids, "channel": "c", "title": title, "date": date, "description": "", "views": views}
    pd.DataFrame(frame).to_csv(root / "train_val.csv", index=False)


def draw_pictures(num_rows: int, seed: int) -> list[int]:
    """Which picture each row links to, at random: one after another, the same blocks of rows would come again and
    again, and each is encoded once."""
    return np.random.default_rng(seed).integers(0, NUM_PICTURES, num_rows).tolist()


def fill_cache(data: Path, storage: Path) -> tuple[Config, Inventory]:
    """Writes random features where the run will look for them; gives what it would train on."""
    recipe = RECIPES["clip_multimodal_b32"]().trainer
    model = replace(recipe.model, pretrained=None, allow_random_frozen=True)
    training = replace(recipe.training, horizontal_flip=False)
    config: Config = replace(recipe, model=model, training=training, data=replace(recipe.data, root=str(data)))
    context = FillingContext(RunFolder(storage / "memory"))
    config, inventory = take_inventory(config, context.inputs)
    write_inputs(config, inventory, context.inputs)
    rng = np.random.default_rng(0)
    _, parts = plan_features(config, read_tables(config, context.inputs), context)
    for versions in parts["train"].values():
        blocks = versions[0].blocks
        for block in range(len(blocks.paths)):
            blocks.write(block, rng.standard_normal((len(blocks.positions(block)), *blocks.shape), np.float32))
    return config, inventory


def read_stages(folder: RunFolder) -> list[float]:
    """Seconds of the check of all rows, of Ray's start, of the training, of it one epoch of the slowest fold, and of
    the ensemble."""
    spent = read_json(folder.summary)["seconds"]
    rows = [json.loads(line) for fold in range(3) for line in folder.fold_record(fold).open()]
    epochs = [value for row in rows for name, value in row.items() if name.endswith("train/epoch_time")]
    return [spent["check"], spent["start_ray"], spent["train"], max(epochs), spent["ensemble"]]


def watch(words: list[str]) -> tuple[Counter, float]:
    """Runs a job; the peak in MiB of each kind of its processes and of all together, and its seconds."""
    began, peaks = time.monotonic(), Counter()
    job = subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    while job.poll() is None:
        found = [measure(pid) for pid in find_family(job.pid)]
        for kind, mib in found:
            peaks[kind] = max(peaks[kind], mib)
        peaks["all"] = max(peaks["all"], sum(mib for _, mib in found))
        time.sleep(0.5)
    if job.returncode:
        raise SystemExit(f"{words[0]} ended with {job.returncode}")
    return peaks, time.monotonic() - began


def measure(pid: int) -> tuple[str, float]:
    """Kind of a process, and what it holds beside the page cache in MiB; 0 of a process that has just ended."""
    with suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        status = Path(f"/proc/{pid}/status").read_text()
        held = sum(int(kib) for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+)", status, re.M)) / 1024
        return next((name for word, name in KINDS.items() if word in title), "other"), held
    return "other", 0.0


if __name__ == "__main__":
    if sys.argv[1:2] == ["fill"]:
        fill_cache(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
