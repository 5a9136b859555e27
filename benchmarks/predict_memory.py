"""Whether predicting takes memory that grows with the table.

    python benchmarks/predict_memory.py [--rows 20000 200000]

Trains a short run on the made-up data, without pictures, and predicts tables of these numbers of rows (text of about 60
characters and date). Memory is what the driver and all of Ray's processes have together, pages that several share
counted once (proportional set size, read from /proc every 0.3 s): the peak, and the median of the last quarter of the
time. Baseline: the smallest table."""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TRAINING = "data.train_pictures= training.epochs=1 tracking.wandb=disabled run.dashboard=false run.name=memory"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    sizes = arguments.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        storage = f"run.storage={scratch}"
        subprocess.run(
            [sys.executable, "ray_jobs/kfold.py", storage, *TRAINING.split()],
            cwd=REPOSITORY,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        found = []
        for num_rows in sizes:
            table = Path(scratch) / f"new_{num_rows}.csv"
            write_table(Path(scratch) / "memory" / "made_data" / "test.csv", table, num_rows)
            found.append(watch(["ray_jobs/predict.py", "memory", "--data", str(table), storage]))
            print(
                f"  {table.stat().st_size / 2**20:.1f} MiB of rows: peak {found[-1][0]:,.0f}, level "
                f"{found[-1][1]:,.0f} MiB"
            )
    for name, smallest, largest in zip(("peak", "level"), found[0], found[-1], strict=True):
        print(f"{name} of the largest table: {largest / smallest:.2f} of the smallest's, {largest - smallest:+.0f} MiB")


def write_table(source: Path, path: Path, num_rows: int) -> None:
    """The rows of a table again and again, each with an id of its own."""
    with source.open(newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([f"r{number:09d}", *rows[number % len(rows)][1:]] for number in range(num_rows))


def watch(words: list[str]) -> tuple[float, float]:
    """Runs a job; peak and level of the memory of it and all its descendants in MiB."""
    job = subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    seen = []
    while job.poll() is None:
        seen.append(sum(measure_mib(pid) for pid in find_family(job.pid)))
        time.sleep(0.3)
    print(job.stdout.read().strip().splitlines()[-1])
    if job.returncode:
        raise SystemExit(f"{words[0]} ended with {job.returncode}")
    return max(seen), statistics.median(seen[len(seen) * 3 // 4 :])


def find_family(root: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    family, size = {root}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return family


def measure_mib(pid: int) -> float:
    """Proportional set size; 0 of a process that has just ended."""
    with suppress(OSError):
        return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
