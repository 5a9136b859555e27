"""Weights of M models' class probabilities, given, by score, or fitted to rows that none of them has seen.

| method        | weights                           | fitted to  |
|---|---|---|
| weighted_mean | by error, or given                | the metric |
| simplex       | from 0, adding up to 1            | log loss   |
| greedy        | multiples of 1/25 or more, from 0 | the metric |

Shape suffixes: M models, N rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ensemble.classes.combine import combine_classes
from ensemble.classes.metrics import measure_error
from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.members.greedy import NUM_STEPS, choose_greedily
from ensemble.run import Columns

_LEAST = np.finfo(np.float64).eps


@dataclass(frozen=True)
class FittedClasses:
    """A combination whose weights are known; None: a method without."""

    how: Combination
    weights_M: np.ndarray | None = None

    def predict(self, predictions_MN: np.ndarray) -> np.ndarray:
        """Probabilities of each row, (N, C), from the models', (M, N, C)."""
        method = self.how.method if self.weights_M is None else "weighted_mean"
        return combine_classes(predictions_MN, method, self.weights_M)


def fit_classes(how: Combination, columns: Columns) -> FittedClasses:
    """The combination with weights that are fitted, if any are, to all rows."""
    probability_MNC, target_N = columns.oof_MN, columns.target_N
    if how.weights is not None:
        return FittedClasses(how, normalise_weights(how.weights, len(probability_MNC)))
    if how.method == "weighted_mean":
        return FittedClasses(how, weigh_by_error(how, target_N, probability_MNC))
    if how.method == "simplex":
        return FittedClasses(how, fit_simplex(probability_MNC, target_N))
    if how.method == "greedy":
        return FittedClasses(how, select_greedily(probability_MNC, target_N, how.metric))
    return FittedClasses(how)


def weigh_by_error(how: Combination, target_N: np.ndarray, probability_MNC: np.ndarray) -> np.ndarray:
    """Weights in inverse proportion to a power of each model's error, (M,)."""
    errors_M = np.array([measure_error(how.metric, target_N, one_NC) for one_NC in probability_MNC])
    return weights_from_scores(errors_M, how.weight_power)


def fit_simplex(probability_MNC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """The weights from 0, adding up to 1, with the least log loss of the weighted mean, (M,): stacking of predictive
    distributions (Yao et al. 2018, https://doi.org/10.1214/17-BA1091, section 3.2).

    The loss is convex in the weights, and of each row only the probabilities of its true class count. SciPy's SLSQP
    starts from equal weights."""
    true_MN = np.maximum(np.take_along_axis(probability_MNC, target_N[None, :, None], axis=2)[..., 0], _LEAST)
    num_models = len(true_MN)
    if num_models == 1:
        return np.ones(1)

    def ask(weights_M: np.ndarray) -> tuple[float, np.ndarray]:
        mixed_N = np.maximum(weights_M @ true_MN, _LEAST)
        return float(-np.log(mixed_N).mean()), -(true_MN / mixed_N).mean(axis=1)

    found = minimize(
        ask,
        np.full(num_models, 1 / num_models),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * num_models,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    weights_M: np.ndarray = np.clip(found.x, 0, None)
    return weights_M / weights_M.sum()


def select_greedily(
    probability_MNC: np.ndarray, target_N: np.ndarray, metric: str = "log_loss", num_steps: int = NUM_STEPS
) -> np.ndarray:
    """How often each model was chosen, as a share, (M,), see `ensemble.members.greedy`."""

    def ask(counts_M: np.ndarray) -> np.ndarray:
        sum_NC, size = np.tensordot(counts_M.astype(np.float64), probability_MNC, 1), counts_M.sum() + 1
        return np.array([measure_error(metric, target_N, (sum_NC + one_NC) / size) for one_NC in probability_MNC])

    return choose_greedily(ask, len(probability_MNC), num_steps)
