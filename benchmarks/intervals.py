"""What the ends of CV+ intervals cost, against making every sum of a prediction and a residual.

    python benchmarks/intervals.py [--rows 1000000]

Three folds; as many rows to predict as rows with a residual. The baseline partitions all sums of a thousand of these
rows, and has to have the same bits. CPU seconds of one thread, so that other programs count for less."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ensemble.numbers.intervals import predict_intervals

LEVEL, NUM_FOLDS, NUM_CHECKED = 0.9, 3, 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    num_rows = arguments.parse_args().rows
    rng = np.random.default_rng(0)
    target_N = rng.normal(size=num_rows)
    oof_N, fold_N = target_N + rng.normal(size=num_rows), np.arange(num_rows) % NUM_FOLDS
    tests_KT = rng.normal(size=num_rows) + 0.3 * rng.normal(size=(NUM_FOLDS, num_rows))

    began = time.process_time()
    low_T, high_T = predict_intervals(tests_KT, oof_N, target_N, fold_N, LEVEL, "raw")
    took_s = time.process_time() - began

    began, rank, residual_N = time.process_time(), math.ceil(LEVEL * (num_rows + 1)), np.abs(target_N - oof_N)
    for number in range(NUM_CHECKED):
        centre_N = tests_KT[fold_N, number]
        assert low_T[number] == np.partition(centre_N - residual_N, num_rows - rank)[num_rows - rank]
        assert high_T[number] == np.partition(centre_N + residual_N, rank - 1)[rank - 1]
    all_s = (time.process_time() - began) * num_rows / NUM_CHECKED
    print(
        f"{num_rows} rows by {num_rows} residuals: {took_s:.1f} CPU s; by every sum {all_s:.0f} CPU s (reckoned from "
        f"{NUM_CHECKED} rows, with the same bits): {took_s / all_s:.5f} of it"
    )


if __name__ == "__main__":
    main()
