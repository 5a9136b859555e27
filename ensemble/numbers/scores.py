"""Scores of predictions, all by scikit-learn, and the predictor that any model has to beat."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import mean_absolute_error, mean_squared_error, mean_squared_log_error


def score(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """msle, mae, mse and rmse of (n,) predictions."""
    mse = float(mean_squared_error(target, prediction))
    return {
        "msle": float(mean_squared_log_error(target, prediction)),
        "mae": float(mean_absolute_error(target, prediction)),
        "mse": mse,
        "rmse": mse**0.5,
    }


def predict_constant(train_target: np.ndarray) -> float:
    """The best constant for MSLE: expm1 of the training rows' mean log1p."""
    return float(np.expm1(np.log1p(train_target).mean()))
