"""How long the command of a finished run takes to say that there is nothing to do, as the rows grow.

    python benchmarks/finished_run.py [--rows 0 200000]

A run of 60 rows is trained. Then so many files are put beside its pictures, one a row of CLIP and two a row of the
U-Net, and the run is remembered as one that has read them all: the same command has to look at each of them. Limit:
2 s and 10 µs a row. Times are wall and CPU seconds of the whole process, the median of five; `imports` is a process
that only loads the driver's modules and the family's. What grows with the predictions is not in it: the files of each
fold are read once, to compare their SHA-256.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.planning.ended import find_ended, note_end
from ray_jobs.runs.folder import RunFolder
from trainers.clip_regression.rows.synthetic_data import make_data
from trainers.reading.known_files import SETTLED_S
from trainers.unet_segmentation.rows.synthetic_data import make_data as make_pairs

SHORT = "data.max_rows=60 training.epochs=1 tracking.wandb=disabled run.dashboard=false run.name=ended"
FAMILIES = {
    "clip_regression": ("clip_multimodal_small", make_data, ("train_val",)),
    "unet_segmentation": ("unet_segmentation_small", make_pairs, ("images", "masks")),
}
MOST_LINKS = 30_000  # to a file: file systems allow some 65,000
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 200_000])
    sizes = parser.parse_args().rows
    for family, (recipe, make, folders) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as scratch:
            root = make(Path(scratch))
            words = [f"--config-name={recipe}", *SHORT.split(), f"data.root={root}", f"run.storage={scratch}/runs"]
            run(["ray_jobs/kfold.py", *words])
            load = f"import ray_jobs.driver.kfold, trainers.{family}.inventory"
            report(family, "imports", [measure(["-c", load]) for _ in range(REPEATS)])
            for num_rows in sizes:
                add_files([root / name for name in folders], num_rows)
                config = parse_kfold(words).config
                note_end(RunFolder(Path(scratch) / "runs" / "ended"), config, time.time_ns())
                assert find_ended(config) is not None, "the run is not remembered as one that has ended"
                report(family, num_rows, [measure(["ray_jobs/kfold.py", *words]) for _ in range(REPEATS)])


def add_files(folders: list[Path], number: int) -> None:
    """Files of 100 bytes, regular ones that share their content, until each folder has so many more."""
    for folder in folders:
        for row in range(number):
            if row % MOST_LINKS == 0:
                first = folder / f"further_{row:07d}.png"
                first.write_bytes(bytes(100))
            else:
                os.link(first, folder / f"further_{row:07d}.png")
    time.sleep(SETTLED_S + 1)


def run(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)


def measure(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    began, before = time.perf_counter(), os.times()
    run(words)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, cpu_s


def report(family: str, what: str | int, found: list[tuple[float, float]]) -> None:
    wall_s, cpu_s = (round(statistics.median(values), 2) for values in zip(*found, strict=True))
    name = {"part": what} if isinstance(what, str) else {"rows": what}
    print(json.dumps({"family": family, **name, "wall_s": wall_s, "cpu_s": cpu_s}), flush=True)


if __name__ == "__main__":
    main()
