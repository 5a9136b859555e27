"""What a frozen encoder costs that runs once, beside one that runs again for each row in each epoch.

    REAL_DATA_ROOT=/path/to/data python benchmarks/frozen_features.py

Trains three folds of 30 epochs on the art auction lots with frozen encoders of ViT-B-32's shape (random weights: the
time is the same) and an empty cache, then again with what the first run has left. The run without the cache would take
hours: one epoch on the first 640 rows is measured instead, without and with the cache, and the difference gives the
seconds of a pass of one row, by which the whole is extrapolated."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_FOLDS, NUM_EPOCHS, NUM_MEASURED = 3, 30, 640
MODEL = (
    "--config-name=clip_multimodal_b32 model.pretrained=none model.allow_random_frozen=true data.target=price".split()
)
QUIET = "tracking.wandb=disabled run.dashboard=false".split()
SMALL = f"training.epochs=1 data.max_rows={NUM_MEASURED} data.test_table=".split()


def main() -> None:
    data = Path(os.environ["REAL_DATA_ROOT"]) / "art_auction"
    num_train, num_test = (len(pd.read_csv(data / f"{name}.csv")) for name in ("train_val", "test"))
    with tempfile.TemporaryDirectory() as storage:
        words = [*MODEL, *QUIET, f"data.root={data}", f"run.storage={storage}"]
        whole = [*words, f"training.epochs={NUM_EPOCHS}"]
        seconds = {
            "empty cache": measure("first", whole),
            "full cache": measure("second", whole),
            "full cache, 1 epoch": measure("small", [*words, *SMALL]),
            "no cache, 1 epoch": measure("uncached", [*words, *SMALL, "features.cache=false"]),
        }
    passes = count_passes(NUM_MEASURED, 0, 1)
    pass_s = (seconds["no cache, 1 epoch"] - seconds["full cache, 1 epoch"]) / passes
    all_passes = count_passes(num_train, num_test, NUM_EPOCHS)
    extrapolated = seconds["full cache, 1 epoch"] + pass_s * all_passes
    table = Table("run", "rows", "epochs", "seconds")
    for name, value in seconds.items():
        is_small = name.endswith("1 epoch")
        table.add_row(name, str(NUM_MEASURED if is_small else num_train), "1" if is_small else "30", f"{value:,.1f}")
    table.add_row("no cache, extrapolated", str(num_train), "30", f"{extrapolated:,.0f}")
    Console().print(table)
    print(
        f"a row's pass takes {1000 * pass_s:.1f} ms (by {passes:,} passes); without the cache there are {all_passes:,}"
    )
    print(
        f"with an empty cache 1/{extrapolated / seconds['empty cache']:.0f} of the time without (limit 1/40), with a "
        f"full one 1/{extrapolated / seconds['full cache']:.0f}"
    )


def count_passes(num_train: int, num_test: int, num_epochs: int) -> int:
    """How often a row goes through the encoders without the cache: to train and validate in each epoch of each fold,
    and for the predictions of best and final."""
    predicted = 2 * (num_train + NUM_FOLDS * num_test)
    return num_epochs * NUM_FOLDS * num_train + predicted


def measure(name: str, words: list[str]) -> float:
    """Wall seconds of a run from its start to its exit."""
    began = time.monotonic()
    command = [sys.executable, "ray_jobs/kfold.py", *words, f"run.name={name}"]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
