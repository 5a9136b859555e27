"""How much the models of an ensemble differ.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

import numpy as np


def describe_spread(predictions_MN: np.ndarray) -> dict[str, float]:
    """The catalogue's statistics of the standard deviation across models, in the target's unit.

    Returns:
        `prediction_diversity` and `pred_std_mean` (mean over rows of the population standard deviation across
        models: two names of one number), `pred_std_max`, `pred_std_min`.
    """
    std_N = spread(predictions_MN)
    mean = float(std_N.mean())
    return {
        "prediction_diversity": mean,
        "pred_std_mean": mean,
        "pred_std_max": float(std_N.max()),
        "pred_std_min": float(std_N.min()),
    }


def spread(predictions_MN: np.ndarray) -> np.ndarray:
    """Population standard deviation across models for each row, (N,)."""
    return np.asarray(predictions_MN, np.float64).std(axis=0)
