"""Greedy selection of models whose predictions are numbers; `ensemble.members.greedy` chooses.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ensemble.members.greedy import NUM_STEPS, choose_greedily
from ensemble.numbers.methods.spaces import from_space, to_space
from ensemble.numbers.metrics import check_models, finish, measure_error

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
    if (metric, space) in _SQUARED:
        ask = _ask_products(multiply_errors(predictions_MN, target_N, space), metric)
    else:
        ask = _ask_rows(predictions_MN, target_N, metric, space)
    return choose_greedily(ask, len(predictions_MN), num_steps)


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
