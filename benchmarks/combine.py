"""What combining many predictions costs, against copying them, and what greedy selection among many members takes.

    python benchmarks/combine.py [--rows 10000000] [--selection-rows 1000000]

Baseline: `np.copyto` of the same warm array of 5 models (float32) into another warm one. One thread each, in CPU
seconds, so that other programs on the machine count for less; the rate is of rows a second."""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)  # read as numpy is imported

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ensemble.config import METHODS, SPACES
from ensemble.numbers.methods.combine import combine
from ensemble.numbers.methods.greedy import select_greedily

ROUNDS, NUM_MODELS, NUM_MEMBERS = 5, 5, 50
LIMITS = {("mean", "raw"): 1 / 3, ("weighted_mean", "raw"): 1 / 3, ("median", "raw"): 1 / 8}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments.add_argument("--selection-rows", type=int, default=1_000_000)
    given = arguments.parse_args()
    measure_combining(given.rows)
    measure_selection(given.selection_rows)


def measure_combining(num_rows: int) -> None:
    """Prints the rate of each method in each space as a share of the baseline's, and its memory."""
    predictions_MN = np.random.default_rng(0).lognormal(5, 1.5, (NUM_MODELS, num_rows)).astype(np.float32)
    weights_M, copy_MN = np.arange(1, NUM_MODELS + 1) / 15, np.zeros_like(predictions_MN)
    works: dict[tuple[str, str], Callable[[], object]] = {("copyto", ""): lambda: np.copyto(copy_MN, predictions_MN)}
    for method in METHODS:
        for space in SPACES:
            works[method, space] = lambda m=method, s=space: combine(predictions_MN, m, s, weights_M)
    timed: dict[tuple[str, str], list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):  # interleaved: whatever else the machine does hits all of them
        for name, work in works.items():
            timed[name].append(_time(work, time.process_time))
    best = {name: min(values) for name, values in timed.items()}
    print(f"{num_rows} rows x {NUM_MODELS} models, float32, best of {ROUNDS}; np.copyto {best['copyto', '']:.3f} s")
    for (method, space), seconds in best.items():
        if method != "copyto":
            limit = f"  (limit {LIMITS[method, space]:.2f})" if (method, space) in LIMITS else ""
            memory = _measure_memory(works[method, space]) / 2**20
            rate = best["copyto", ""] / seconds
            print(f"  {method:15s} {space:4s} {seconds:6.3f} s, {rate:4.2f} of copyto, peak {memory:5.1f} MiB{limit}")
    print(f"  the result alone is {8 * num_rows / 2**20:.1f} MiB")


def measure_selection(num_rows: int) -> None:
    """Prints how long greedy selection takes where errors are squared in the space, and where each step asks the
    rows."""
    rng = np.random.default_rng(0)
    logs_N = rng.normal(5, 1.5, num_rows).astype(np.float32)
    predictions_MN = np.empty((NUM_MEMBERS, num_rows), np.float32)
    for model, strength in enumerate(np.linspace(0.3, 1, NUM_MEMBERS)):
        predictions_MN[model] = np.expm1(logs_N + strength * rng.normal(0, 1, num_rows)).clip(0)
    target_N = np.expm1(logs_N).clip(0)
    print(f"greedy selection, {NUM_MEMBERS} members x {num_rows} rows, 25 steps (limit 20 s)")
    for metric, space in (("msle", "z"), ("mae", "raw"), ("mae", "z")):
        began = time.process_time()
        seconds = _time(lambda m=metric, s=space: select_greedily(predictions_MN, target_N, m, s), time.perf_counter)
        print(f"  {metric:4s} in {space:4s} {seconds:6.2f} s, {time.process_time() - began:6.2f} CPU s")


def _time(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def _measure_memory(work: Callable[[], object]) -> int:
    """Most bytes allocated at once, result included."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
