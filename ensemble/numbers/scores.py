"""Scores of predictions, and the predictor that any model has to beat."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import mean_absolute_error, mean_squared_error, mean_squared_log_error

from ensemble.numbers.metrics import is_mean_of_rows, measure_error


def score(target: np.ndarray, prediction: np.ndarray, metric: str = "msle") -> dict[str, float | None]:
    """msle, mae, mse and rmse of (n,) predictions, and another metric by its name: of a scorer of scikit-learn its own
    value, which is better the higher it is; None where the metric is not defined for these rows."""
    mse = float(mean_squared_error(target, prediction))
    is_below_zero = min(target.min(), prediction.min()) < 0
    scores: dict[str, float | None] = {
        "msle": None if is_below_zero else float(mean_squared_log_error(target, prediction)),
        "mae": float(mean_absolute_error(target, prediction)),
        "mse": mse,
        "rmse": mse**0.5,
    }
    return scores if metric in scores else scores | {metric: _measure(metric, target, prediction)}


def _measure(metric: str, target: np.ndarray, prediction: np.ndarray) -> float | None:
    try:
        error = measure_error(metric, target, prediction)
    except ValueError:
        return None
    return error if is_mean_of_rows(metric) else -error


def predict_constant(train_target: np.ndarray) -> float:
    """The best constant for MSLE: expm1 of the training rows' mean log1p; of equal targets exactly these. Where some
    are below zero, and MSLE is not meant, their mean."""
    if (train_target == train_target[0]).all():
        return float(train_target[0])
    if train_target.min() < 0:
        return float(train_target.mean())
    return float(np.expm1(np.log1p(train_target).mean()))
