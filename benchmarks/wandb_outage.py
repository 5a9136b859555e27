"""Does training notice that the W&B server is gone?

    python benchmarks/wandb_outage.py [--seconds 60] [--rounds 3]

One K-fold run on made-up data with W&B online against a local stand-in server. Windows in which the server is well and
windows in which it is dead, hangs, or answers 500 take turns; each outage is compared with the well windows around it,
in the same run. What counts is the number of optimiser steps that all folds together do in a second, from the times in
the metric records; so a ratio of 0.98 means that a minute of outage makes that minute of training 2 % longer."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from support.wandb_server import StandInServer

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

NUM_FOLDS = 3
OUTAGES = ("dead", "hang", "500")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=60, help="length of a window")
    arguments.add_argument("--rounds", type=int, default=3, help="outages of each kind")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as home, StandInServer() as server:
        folder = RunFolder(Path(home) / "ray_results" / "outage")
        driver = _start(home, server.url)
        try:
            _wait_for_steps(folder, driver)
            windows = _take_turns(server, given.seconds, given.rounds)
        finally:
            driver.terminate()
            driver.wait(120)
        times = [
            row["time"]
            for fold in range(NUM_FOLDS)
            for row in read_lines(folder.fold_record(fold))
            if f"fold_{fold}/train/loss_step" in row
        ]
    _report(windows, times)


def _start(home: str, url: str) -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "RAY_"))}
    environment |= {"HOME": home, "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
    words = ["run.name=outage", "run.dashboard=false", "training.epochs=100000", "tracking.finish_timeout_s=0"]
    return subprocess.Popen(
        [sys.executable, "ray_jobs/kfold.py", *words], cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL
    )


def _wait_for_steps(folder: RunFolder, driver: subprocess.Popen) -> None:
    """Returns when every fold is well under way."""
    while any(len(read_lines(folder.fold_record(fold))) < 100 for fold in range(NUM_FOLDS)):
        if driver.poll() is not None:
            raise SystemExit("the run ended before it trained")
        time.sleep(1)


def _take_turns(server: StandInServer, seconds: float, rounds: int) -> list[tuple[str, float, float]]:
    windows = []
    for kind in [kind for _ in range(rounds) for outage in OUTAGES for kind in ("well", outage)] + ["well"]:
        if kind == "dead":
            server.die()
        else:
            server.fault = None if kind == "well" else kind
        began = time.time()
        time.sleep(seconds)
        windows.append((kind, began, time.time()))
        if kind == "dead":
            server.start()
        server.fault = None
        print(f"{kind:5s} {seconds:.0f} s", flush=True)
    return windows


def _report(windows: list[tuple[str, float, float]], times: list[float]) -> None:
    rates = [sum(began <= at < ended for at in times) / (ended - began) for _, began, ended in windows]
    ratios: dict[str, list[float]] = {kind: [] for kind in OUTAGES}
    for number in range(1, len(windows), 2):
        ratios[windows[number][0]].append(2 * rates[number] / (rates[number - 1] + rates[number + 1]))
    well = rates[::2]
    print(f"server well: {statistics.mean(well):.1f} steps/s, from {min(well):.1f} to {max(well):.1f} by window")
    for kind, values in ratios.items():
        print(f"  {kind:5s} {', '.join(f'{value:.3f}' for value in values)} of the rate around it")
    every = [value for values in ratios.values() for value in values]
    error = statistics.stdev(every) / len(every) ** 0.5 if len(every) > 1 else float("nan")
    print(f"outage {statistics.mean(every):.4f} ± {error:.4f} of the rate with a server that is well (limit: 0.98)")


if __name__ == "__main__":
    main()
