"""How many of the most suspicious rows are errors, where 3 % of the truth was spoiled.

    python benchmarks/suspicious_rows.py [--seeds 5]

Numbers: Friedman's function of 3,000 rows and scikit-learn's 442 patients with diabetes; a spoiled row has the target
of another. Classes: scikit-learn's 1,797 digits; a spoiled row has another class, drawn at random. Masks: 600 made-up
pictures, whose predicted maps are the true ones, blurred, with noise of a size of their own; a spoiled row has the mask
of another. Each row is judged by a model that was trained, out of fold, on data that is spoiled, too."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_diabetes, load_digits, make_friedman1
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ensemble.classes.files import build_class_table
from ensemble.config import EnsembleConfig
from ensemble.kinds import load_kind
from ensemble.members.suspects import judge_numbers
from trainers.predictions import PredictedMap

SHARE, FIRST = 0.03, 50


def choose_rows(rng: np.random.Generator, num: int) -> np.ndarray:
    """The rows that are spoiled, (S,)."""
    return rng.permutation(num)[: round(SHARE * num)]


def try_numbers(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Suspicion of each row, and the spoiled rows."""
    spoiled = choose_rows(rng, len(y))
    given = y.copy()
    given[spoiled] = y[rng.permutation(len(y))[: len(spoiled)]]
    spoiled = spoiled[given[spoiled] != y[spoiled]]
    model = HistGradientBoostingRegressor(max_iter=100, random_state=0)
    return judge_numbers(given, cross_val_predict(model, x, given, cv=5)), spoiled


def try_friedman(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return try_numbers(rng, *make_friedman1(3000, noise=1.0, random_state=int(rng.integers(2**31))))


def try_diabetes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return try_numbers(rng, *load_diabetes(return_X_y=True))


def try_digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Likewise of classes, by the kind's own judgement."""
    x, y = load_digits(return_X_y=True)
    spoiled = choose_rows(rng, len(y))
    given = y.copy()
    given[spoiled] = (y[spoiled] + rng.integers(1, 10, len(spoiled))) % 10
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300))
    probability = cross_val_predict(model, x, given, cv=5, method="predict_proba")
    names = tuple(map(str, range(10)))
    ids = np.arange(len(y)).astype(str)
    lines = build_class_table(ids, probability, given, names, fold=0, checkpoint="best", member="main")
    found = load_kind("classes").find_suspects(lines)
    assert found is not None
    return found.suspicion_N, spoiled


def draw_mask(rng: np.random.Generator) -> np.ndarray:
    """A mask of one to three discs, (48, 48)."""
    rows, columns = np.mgrid[:48, :48]
    discs = [(rng.uniform(8, 40), rng.uniform(8, 40), rng.uniform(3, 11)) for _ in range(rng.integers(1, 4))]
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 < radius**2 for y, x, radius in discs], axis=0).astype(np.uint8)


def try_masks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Likewise of masks, by the kind's own judgement of a file."""
    masks, kind = [draw_mask(rng) for _ in range(600)], load_kind("map")
    spoiled = choose_rows(rng, len(masks))
    given = list(masks)
    for row, other in zip(spoiled, rng.permutation(len(masks)), strict=False):
        given[row] = masks[other]
    tables = []
    for row, mask in enumerate(masks):
        noise = gaussian_filter(rng.normal(size=mask.shape), 3) * rng.gamma(2, 12)
        logit = 8 * (gaussian_filter(mask.astype(float), 1.5) - 0.5) + noise
        predicted = PredictedMap(f"r{row:03}", (1 / (1 + np.exp(-logit))).astype(np.float32)[None], given[row])
        tables.append(kind.tabulate(predicted, fold=0, checkpoint="best", member="main"))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "validation_best.parquet"
        pq.write_table(pa.concat_tables(tables), path)
        found = kind.find_suspects(kind.measure(path, EnsembleConfig()))
    assert found is not None
    return found.suspicion_N, spoiled


TRIALS: dict[str, Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "numbers, Friedman": try_friedman,
    "numbers, diabetes": try_diabetes,
    "classes, digits": try_digits,
    "masks, discs": try_masks,
}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, default=5)
    num_seeds = arguments.parse_args().seeds
    print(f"{SHARE:.0%} of the rows spoiled, {num_seeds} seeds")
    for name, attempt in TRIALS.items():
        shares, most, chance = [], [], []
        for seed in range(num_seeds):
            suspicion, spoiled = attempt(np.random.default_rng(seed))
            first = np.argsort(-suspicion, kind="stable")[:FIRST]
            shares.append(np.isin(first, spoiled).mean())
            most.append(min(1.0, len(spoiled) / FIRST))
            chance.append(len(spoiled) / len(suspicion))
        precision = f"{np.mean(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        bounds = f"at most {np.mean(most):.2f}, by chance {np.mean(chance):.2f}"
        print(f"  {name:18} precision of the first {FIRST}: {precision}; {bounds}", flush=True)


if __name__ == "__main__":
    main()
