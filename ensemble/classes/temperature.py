"""Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599,
section 4.2): probabilities p become p^(1/T), scaled to add up to 1. The likeliest class stays; T above 1 makes it less
sure. T is the one with the least log loss on rows that the model has not seen; what it is worth is scored on the rows
of a fold with the T of the other folds' rows.

Shape suffixes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from ensemble.classes.metrics import measure_error, row_losses
from ensemble.run import Columns

_MOST = 100.0  # and the least is one over it
_LEAST = np.finfo(np.float64).eps
_SHOWN = ("log_loss", "calibration_error")
_NUM_PARTS = 5


def fit_temperature(target_N: np.ndarray, probability_NC: np.ndarray) -> float:
    """The temperature with the least log loss, from 0.01 to 100. The loss has one minimum: it is convex in 1/T."""
    log_NC = np.log(np.maximum(probability_NC, _LEAST))

    def ask(log_temperature: float) -> float:
        return float(row_losses(target_N, _soften(log_NC, np.exp(log_temperature))).mean())

    found = minimize_scalar(ask, bounds=(-np.log(_MOST), np.log(_MOST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def scale_temperature(probability_NC: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    """Probabilities at a temperature, or at one for each row, (N, 1)."""
    return _soften(np.log(np.maximum(probability_NC, _LEAST)), temperature)


def scale_cross_fitted(columns: Columns, probability_NC: np.ndarray) -> np.ndarray:
    """Each row's probabilities at the temperature of the rows of other folds, (N, C); of folds in time of earlier ones,
    and the first folds' stay as they are.

    Args:
        columns: whose rows these are.
        probability_NC: as they are predicted.
    """
    scaled_NC = probability_NC.copy()
    for fold in np.unique(columns.fold_N):
        rest_N, held_N = columns.others(fold), columns.fold_N == fold
        if rest_N.any():
            temperature = fit_temperature(columns.target_N[rest_N], probability_NC[rest_N])
            scaled_NC[held_N] = scale_temperature(probability_NC[held_N], temperature)
    return scaled_NC


def with_parts(columns: Columns) -> Columns:
    """The rows with their folds or, where all are of one fold, in parts by chance."""
    if len(np.unique(columns.fold_N)) > 1:
        return columns
    parts = min(_NUM_PARTS, len(columns.fold_N))
    part_N = np.random.default_rng(0).permutation(len(columns.fold_N)) % parts
    return replace(columns, fold_N=part_N, is_ordered=False)


def describe_calibration(columns: Columns, probability_NC: np.ndarray) -> Mapping[str, Any]:
    """The temperature of all rows, and log loss and calibration error before and after, the latter cross-fitted.

    Returns:
        `temperature`, `before` and `after`, of each `log_loss` and `calibration_error`.
    """
    scaled_NC = scale_cross_fitted(columns, probability_NC)
    return {
        "temperature": fit_temperature(columns.target_N, probability_NC),
        "before": {name: measure_error(name, columns.target_N, probability_NC) for name in _SHOWN},
        "after": {name: measure_error(name, columns.target_N, scaled_NC) for name in _SHOWN},
    }


def _soften(log_NC: np.ndarray, temperature: float | np.ndarray) -> np.ndarray:
    scaled_NC = log_NC / temperature
    powers_NC = np.exp(scaled_NC - scaled_NC.max(axis=1, keepdims=True))
    softened_NC: np.ndarray = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return softened_NC
