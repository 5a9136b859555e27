"""Greedy selection with replacement: an ensemble grows by the model that helps it most, and is cut where it was best.

Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble Selection from Libraries of Models", section 2,
https://doi.org/10.1145/1015330.1015432; with 25 steps and the ties of AutoGluon's `EnsembleSelection`
(https://github.com/autogluon/autogluon, core/models/greedy_ensemble): errors count to 6 decimals once the first model
is chosen, if its error is above 1e-4; among equals a model that is in the ensemble already goes first, and of those the
first. AutoGluon draws that last choice at random.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemble.numbers.methods.spaces import from_space, to_space
from ensemble.numbers.metrics import check_models, finish, measure_error

NUM_STEPS = 25
_DECIMALS, _ROUND_ABOVE, _EQUAL = 6, 1e-4, 1e-12
_BLOCK_VALUES = 2**22
_SQUARED = {("msle", "z"), ("rmsle", "z"), ("mse", "raw"), ("rmse", "raw")}


def select_greedily(
    predictions_MN: np.ndarray, target_N: np.ndarray, metric: str = "msle", space: str = "z", num_steps: int = NUM_STEPS
) -> np.ndarray:
    """How often each model was chosen, as a share of the best prefix, (M,), adding up to 1.

    Where the metric is a squared error in the space itself, an ensemble's error follows from the (M, M) mean products
    of the models' errors, and no step looks at the rows again; else each step asks the metric of M averages of N rows.

    Args:
        predictions_MN: in the target's unit.
        target_N: the true values.
        metric: a name that `measure_error` knows.
        space: z (averages of log1p) or raw.
        num_steps: models chosen, counted with repetition.

    Raises:
        ValueError: values that do not fit together or are not finite; an unknown metric or space; no step.
    """
    predictions_MN, target_N = check_models(predictions_MN, target_N)
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: expected at least 1")
    num_models = len(predictions_MN)
    if num_models == 1:
        return np.ones(1)
    if (metric, space) in _SQUARED:
        ask = _ask_products(multiply_errors(predictions_MN, target_N, space), metric)
    else:
        ask = _ask_rows(predictions_MN, target_N, metric, space)
    order = _choose(ask, num_models, num_steps)
    return np.bincount(order, minlength=num_models) / len(order)


def multiply_errors(predictions_MN: np.ndarray, target_N: np.ndarray, space: str) -> np.ndarray:
    """Mean over the rows of the products of each two models' errors in a space, (M, M); blocks of rows bound the
    memory."""
    num_models, num_rows = predictions_MN.shape
    products_MM, width = np.zeros((num_models, num_models)), max(1, _BLOCK_VALUES // num_models)
    for start in range(0, num_rows, width):
        rows = slice(start, start + width)
        errors_MB = to_space(predictions_MN[:, rows], space) - to_space(target_N[rows], space)
        products_MM += errors_MB @ errors_MB.T
    products_MM /= num_rows
    return products_MM


def _choose(ask: Callable[[np.ndarray], np.ndarray], num_models: int, num_steps: int) -> list[int]:
    """The models in the order in which they were chosen, up to the first lowest error.

    Args:
        ask: the errors (M,) of the ensembles that a count of models (M,) and one model more make.
    """
    counts_M, is_rounded = np.zeros(num_models, int), False
    order: list[int] = []
    trajectory: list[float] = []
    for _ in range(num_steps):
        errors_M = ask(counts_M)
        if is_rounded:
            errors_M = errors_M.round(_DECIMALS)
        best = _break_tie(errors_M, counts_M)
        is_rounded = is_rounded or (not order and abs(errors_M[best]) > _ROUND_ABOVE)
        trajectory.append(errors_M[best].round(_DECIMALS) if is_rounded else errors_M[best])
        order.append(best)
        counts_M[best] += 1
    return order[: int(np.argmin(trajectory)) + 1]


def _break_tie(errors_M: np.ndarray, counts_M: np.ndarray) -> int:
    lowest = errors_M.min()
    equal = np.flatnonzero(np.abs(errors_M - lowest) <= _EQUAL * abs(lowest))
    used = equal[counts_M[equal] > 0]
    return int(used[0] if len(used) else equal[0])


def _ask_products(products_MM: np.ndarray, metric: str) -> Callable[[np.ndarray], np.ndarray]:
    def ask(counts_M: np.ndarray) -> np.ndarray:
        with_counts_M = products_MM @ counts_M
        squared_M: np.ndarray = counts_M @ with_counts_M + 2 * with_counts_M + products_MM.diagonal()
        squared_M = squared_M.clip(0) / (counts_M.sum() + 1) ** 2
        return finish(metric, squared_M)

    return ask


def _ask_rows(
    predictions_MN: np.ndarray, target_N: np.ndarray, metric: str, space: str
) -> Callable[[np.ndarray], np.ndarray]:
    def ask(counts_M: np.ndarray) -> np.ndarray:
        sum_N, size = np.zeros(len(target_N)), counts_M.sum() + 1
        for model in np.flatnonzero(counts_M):
            sum_N += counts_M[model] * to_space(predictions_MN[model], space)
        averages = ((sum_N + to_space(prediction_N, space)) / size for prediction_N in predictions_MN)
        return np.array([measure_error(metric, target_N, from_space(average_N, space)) for average_N in averages])

    return ask
