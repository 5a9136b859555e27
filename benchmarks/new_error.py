"""How often the interval of "error on new rows" holds it: simulated data sets of numbers, classes and masks.

    python benchmarks/new_error.py [--sets 500] [--of masks]

Each data set is drawn anew, divided into K folds, learned by a simple model in closed form and scored by the code of
the report. The truth is the mean error of the fold models on other rows: by how much it differs from a reference
model's on 4,000 of them, and that model's on 400,000. (The error on 4,000 rows alone has as much noise as that on 3,000
out-of-fold rows.) The interval of the bootstrap alone stands beside the widened one, and a share of how often the
latter also holds the error of a model of all rows, which learns from more of them and is a little better."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from ensemble.kinds import Kind, load_kind
from ensemble.members.new_error import estimate_new_error

NUM_DRAWS = 400
NUM_NEW, NUM_REFERENCE, REFERENCE_PARTS = 4_000, 20_000, 20
FOLDS, ROWS = (3, 5, 10), (300, 1000, 3000)
PLACES, FEATURES = 36, 8


@dataclass(frozen=True)
class World:
    """What data sets are drawn from, and how a model learns.

    Attributes:
        draw: n rows: what a model sees (n, ...), and the truth (n, ...).
        learn: a function of rows to predictions, from rows and truth.
        keep: truth and predictions, as the kind keeps them.
    """

    kind: Kind
    metric: str
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    learn: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
    keep: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

    def measure(self, predict: Callable[[np.ndarray], np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
        """The mean error of a model on rows."""
        return self.kind.measure_error(self.metric, *self.keep(y, predict(x)))


@dataclass(frozen=True)
class Reference:
    """A model, and its error on very many rows."""

    predict: Callable[[np.ndarray], np.ndarray]
    error: float


def build_reference(world: World) -> Reference:
    """A model of as many rows as there are in a part of those that score it."""
    rng = np.random.default_rng(0)
    predict = world.learn(*world.draw(rng, NUM_REFERENCE))
    errors = [world.measure(predict, *world.draw(rng, NUM_REFERENCE)) for _ in range(REFERENCE_PARTS)]
    return Reference(predict, float(np.mean(errors)))


def draw_numbers(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """60 features, a bent target, noise with heavy tails."""
    x = rng.normal(size=(num, 60))
    return x, x[:, :10].sum(axis=1) + np.abs(x[:, 0]) * 2 + 2 * rng.standard_t(5, num)


def learn_line(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression with next to no penalty: it overfits where rows are few."""
    weights = fit_line(np.column_stack([x, np.ones(len(x))]), y)
    return lambda new: np.column_stack([new, np.ones(len(new))]) @ weights


def fit_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of the columns."""
    weights: np.ndarray = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
    return weights


def draw_classes(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 50, 35 and 15 %, clouds in 30 dimensions."""
    y = rng.choice(3, num, p=[0.5, 0.35, 0.15])
    means = np.random.default_rng(5).normal(0, 0.35, (3, 30))
    return means[y] + rng.normal(size=(num, 30)) * (1 + 0.3 * (y[:, None] == 1)), y


def learn_clouds(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Linear discriminant analysis."""
    means = np.stack([x[y == number].mean(axis=0) for number in range(3)])
    inverse = np.linalg.inv(np.cov((x - means[y]).T) + 1e-6 * np.eye(x.shape[1]))
    shares = np.log(np.bincount(y, minlength=3) / len(y))

    def predict(new: np.ndarray) -> np.ndarray:
        scores = new @ inverse @ means.T - 0.5 * np.einsum("ci,ij,cj->c", means, inverse, means) + shares
        probability = np.exp(scores - scores.max(axis=1, keepdims=True))
        return probability / probability.sum(axis=1, keepdims=True)

    return predict


def draw_masks(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of 36 places with 8 features; each has a foreground of its own size and a contrast of its own. What a
    model sees of a place, (n, 36, 17): the features, their squares and a one."""
    size, contrast = rng.beta(2, 4, (num, 1)), rng.gamma(4, 0.25, (num, 1))
    y = (rng.random((num, PLACES)) < size).astype(int)
    drawn = rng.normal(size=(num, PLACES, FEATURES))
    drawn[:, :, :3] += (contrast * (2 * y - 1))[:, :, None]
    x = np.ones((num, PLACES, 2 * FEATURES + 1))
    x[:, :, :FEATURES] = drawn
    np.square(drawn, out=x[:, :, FEATURES:-1])
    return x, y


def learn_places(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Least squares on the places."""
    weights = fit_line(x.reshape(-1, x.shape[2]), y.reshape(-1))
    return lambda new: (new @ weights > 0.5).astype(int)


def keep_masks(y: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts, as the kind of maps keeps them."""
    places = np.full(len(y), PLACES)
    return np.column_stack([y.sum(axis=1), places]), np.column_stack([(y * said).sum(axis=1), said.sum(axis=1)])


def build_worlds() -> dict[str, World]:
    as_they_are = lambda y, predicted: (y, predicted)  # noqa: E731
    return {
        "numbers": World(load_kind("number"), "mse", draw_numbers, learn_line, as_they_are),
        "classes": World(load_kind("classes"), "log_loss", draw_classes, learn_clouds, as_they_are),
        "masks": World(load_kind("map"), "dice", draw_masks, learn_places, keep_masks),
    }


def try_once(world: World, reference: Reference, num_rows: int, num_folds: int, seed: int) -> tuple[bool, bool, bool]:
    """Of one data set whether its intervals hold the error of the fold models (bootstrap, widened), and the widened one
    that of a model of all rows."""
    rng = np.random.default_rng([seed, num_rows, num_folds])
    x, y = world.draw(rng, num_rows)
    new = world.draw(rng, NUM_NEW)
    shift = reference.error - world.measure(reference.predict, *new)
    fold = rng.permutation(num_rows) % num_folds
    errors, targets, predictions = [], [], []
    for number in range(num_folds):
        predict = world.learn(x[fold != number], y[fold != number])
        errors.append(shift + world.measure(predict, *new))
        target, prediction = world.keep(y[fold == number], predict(x[fold == number]))
        targets.append(target)
        predictions.append(prediction)
    kept = np.concatenate(targets), np.concatenate(predictions)
    found = estimate_new_error(world.kind, world.metric, *kept, num_folds, num_draws=NUM_DRAWS)
    error, of_all = float(np.mean(errors)), shift + world.measure(world.learn(x, y), *new)
    is_in_bootstrap = found.low - found.error <= found.widening * (error - found.error) <= found.high - found.error
    return is_in_bootstrap, found.low <= error <= found.high, found.low <= of_all <= found.high


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--sets", type=int, default=500)
    arguments.add_argument("--of", choices=tuple(build_worlds()), help="these data sets alone")
    given = arguments.parse_args()
    num_sets = given.sets
    worlds = {name: world for name, world in build_worlds().items() if given.of in (None, name)}
    references = {name: build_reference(world) for name, world in worlds.items()}
    print(f"{num_sets} data sets each; share of the intervals of 95 % that hold the error on new rows")
    print(f"{'':8} {'rows':>5} {'K':>3}  bootstrap  widened  of a model of all rows")
    for (name, world), num_rows, num_folds in itertools.product(worlds.items(), ROWS, FOLDS):
        held = np.array([try_once(world, references[name], num_rows, num_folds, seed) for seed in range(num_sets)])
        shares = "   ".join(f"{share:8.3f}" for share in held.mean(axis=0))
        print(f"{name:8} {num_rows:5} {num_folds:3} {shares}", flush=True)


if __name__ == "__main__":
    main()
