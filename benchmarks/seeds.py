"""How often a comparison of a recipe with itself, trained with other seeds, says that one of the two is better.

    python benchmarks/seeds.py [--sets 1000]

Each data set is drawn anew. A small network learns it on three folds, ten times with other seeds: the first five are
one recipe, the others the same recipe once more. Both are compared by the code of the report (`comparison.rank`), of
one to five seeds each, by the interval over rows alone and by the one that holds what another seed changes. Of
intervals of 95 % that are right 5 % exclude zero."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ensemble.kinds import load_kind
from ensemble.members.comparison import Repeated, rank

NUM_ROWS, NUM_FEATURES, NUM_FOLDS, NUM_SEEDS = 300, 8, 3, 5
HIDDEN, NUM_STEPS, LEARNING_RATE, NUM_DRAWS = 16, 60, 0.03, 500
SEEDS = (1, 2, 3, 5)


def draw_rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Eight features, a bent target with noise."""
    x = rng.normal(size=(NUM_ROWS, NUM_FEATURES)).astype(np.float32)
    noise = rng.normal(size=NUM_ROWS).astype(np.float32)
    return x, np.sin(x[:, 0] * 2) + x[:, 1] * x[:, 2] + x[:, 3] / 2 + noise


def train(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, num_seeds: int) -> np.ndarray:
    """Out-of-fold predictions of so many trainings, (S, N): networks of one hidden layer, by Adam, all side by side."""
    fold_N = rng.permutation(NUM_ROWS) % NUM_FOLDS
    trains_F1N = np.stack([fold_N != fold for fold in range(NUM_FOLDS)])[:, None].astype(np.float32)
    shapes = [(NUM_FEATURES, HIDDEN), (1, HIDDEN), (HIDDEN, 1), (1, 1)]
    drawn = [rng.normal(size=(NUM_FOLDS, num_seeds, *shape)) / np.sqrt(shape[0] + 1) for shape in shapes]
    weights = [one.astype(np.float32) for one in drawn]
    moments = [(np.zeros_like(one), np.zeros_like(one)) for one in weights]
    for step in range(1, NUM_STEPS + 1):
        gradients = _find_gradients(x, y, weights, trains_F1N)
        for one, gradient, (mean, square) in zip(weights, gradients, moments, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient**2 - square)
            scale = np.sqrt(square / (1 - 0.99**step)) + 1e-8
            one -= LEARNING_RATE * mean / (1 - 0.9**step) / scale
    hidden, bias, last, shift = weights
    said_FSN = (np.maximum(x @ hidden + bias, 0) @ last + shift)[..., 0]
    return said_FSN[fold_N, :, np.arange(NUM_ROWS)].T


def _find_gradients(
    x: np.ndarray, y: np.ndarray, weights: list[np.ndarray], trains_F1N: np.ndarray
) -> list[np.ndarray]:
    """Of the mean squared error on the training rows."""
    hidden, bias, last, shift = weights
    active = np.maximum(x @ hidden + bias, 0)
    error = ((active @ last + shift)[..., 0] - y) * trains_F1N / trains_F1N.sum(axis=2, keepdims=True) * 2
    back = error[..., None] * np.swapaxes(last, 2, 3) * (active > 0)
    return [
        x.T @ back,
        back.sum(axis=2, keepdims=True),
        np.swapaxes(active, 2, 3) @ error[..., None],
        error.sum(axis=2)[..., None, None],
    ]


def compare(seed: int) -> list[tuple[bool, bool, float]]:
    """Of one data set, for each number of seeds: whether the interval over rows excludes zero, whether the one with
    seeds does, and how much wider that is."""
    rng, kind = np.random.default_rng(seed), load_kind("number")
    x, y = draw_rows(rng)
    alone_SN = train(x, y, rng, 2 * NUM_SEEDS)
    found = []
    for num in SEEDS:
        pair = [alone_SN[:num], alone_SN[NUM_SEEDS : NUM_SEEDS + num]]
        together = np.stack([one.mean(axis=0) for one in pair])
        ends = []
        for repeated in ([], [Repeated(one) for one in pair]):
            ranking = rank(kind, "mse", y, together, [0], repeated_C=repeated, num_draws=NUM_DRAWS)
            ends.append((ranking.difference_low_C[1], ranking.difference_high_C[1]))
        (low, high), (low_seeds, high_seeds) = ends
        found.append((low > 0 or high < 0, low_seeds > 0 or high_seeds < 0, (high_seeds - low_seeds) / (high - low)))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sets", type=int, default=1000)
    num_sets = arguments.parse_args().sets
    found = np.array([compare(seed) for seed in range(num_sets)], float)
    print(f"{num_sets} comparisons each; share of the intervals of 95 % that exclude zero")
    print("seeds  over rows  with seeds  wider by (median)")
    for place, num in enumerate(SEEDS):
        rows, seeds, wider = [*found[:, place].mean(axis=0)[:2], np.median(found[:, place, 2])]
        print(f"{num:5} {rows:10.3f} {seeds:11.3f} {wider:10.2f}")


if __name__ == "__main__":
    main()
