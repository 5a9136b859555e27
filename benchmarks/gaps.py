"""What a gap in time is worth where targets overlap: each row's target is known only some days later.

    python benchmarks/gaps.py [--series 200]

A daily series that wanders (AR(1), 0.97 a day). The target of a day is the mean of the next 20 days, so that a model
which is used today was trained on rows that are at least 20 days old: the others have no target yet. Nearest neighbours
of (day, value) learn it. Compared with its error in use, of the days that the folds of time validate, are the
out-of-fold errors of `folds.kind=time`, without and with `folds.gap=20d`, and of folds at random. Also how long a plan
of a million rows takes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ray_jobs.config.folds import FoldsConfig
from ray_jobs.planning.folds import FoldPlan, plan_folds
from trainers.interface import Inventory

HORIZON, NUM_DAYS, NUM_NEIGHBOURS, DAY_S = 20, 600, 5, 86_400.0
COUNT = 18  # folds of a month
KINDS = {
    "folds.kind=random": FoldsConfig(count=COUNT),
    "folds.kind=time": FoldsConfig(count=COUNT, kind="time"),
    "folds.kind=time folds.gap=20d": FoldsConfig(count=COUNT, kind="time", gap=f"{HORIZON}d"),
}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--series", type=int, default=200)
    ratios: dict[str, list[float]] = {name: [] for name in KINDS}
    for seed in range(arguments.parse_args().series):
        inventory, rows = make_series(seed)
        plans = {name: plan_folds(folds, inventory) for name, folds in KINDS.items()}
        in_use = measure(plans["folds.kind=time"], inventory, rows, age=HORIZON)
        for name, plan in plans.items():
            ratios[name].append(measure(plan, inventory, rows) / in_use)
    for name, values in ratios.items():
        print(f"{name:<32} out-of-fold MSE {np.mean(values):.2f} of the MSE in use (median {np.median(values):.2f})")
    big = Inventory(np.arange(10**6).astype(str), None, "", 0, "", time=np.arange(10**6) * 60.0)
    began = time.perf_counter()
    plan_folds(FoldsConfig(count=5, kind="time", gap="1d", max_train="90d"), big)
    print(f"a plan of a million rows with a gap and a window: {time.perf_counter() - began:.2f} s")


def make_series(seed: int) -> tuple[Inventory, np.ndarray]:
    """Rows of one series, and what their model sees of them, (N, 2)."""
    rng = np.random.default_rng(seed)
    value = np.zeros(NUM_DAYS + HORIZON)
    for day in range(1, len(value)):
        value[day] = 0.97 * value[day - 1] + rng.normal()
    target = np.array([value[day + 1 : day + 1 + HORIZON].mean() for day in range(NUM_DAYS)])
    days = np.arange(NUM_DAYS)
    rows = np.stack([days / 20.0, value[:NUM_DAYS]], axis=1)
    return Inventory(days.astype(str), target, "mean", 0, "", time=days * DAY_S), rows


def measure(plan: FoldPlan, inventory: Inventory, rows: np.ndarray, age: int = 0) -> float:
    """MSE on validated rows; with an age each row is predicted from rows that are older by so many days."""
    target, errors = inventory.require_target(), []
    for fold in range(plan.count):
        trains = plan.trains(fold)
        for row in np.flatnonzero(plan.fold == fold):
            known = np.flatnonzero(np.arange(NUM_DAYS) <= row - age) if age else np.flatnonzero(trains)
            near = known[np.argsort(((rows[known] - rows[row]) ** 2).sum(axis=1))[:NUM_NEIGHBOURS]]
            errors.append((target[near].mean() - target[row]) ** 2)
    return float(np.mean(errors))


if __name__ == "__main__":
    main()
