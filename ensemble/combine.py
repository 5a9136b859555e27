"""Combining the predictions of M models for N rows into one.

In z space the combination is done on log1p of the predictions: where the metric is a squared error of logs, the mean
there is the combination whose error is never above the models' mean error, while a mean of raw predictions is pulled
up by the largest (by Jensen's inequality it is never below the log mean).

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from typing import get_args

import numpy as np

from ensemble.config import Method, Space

METHODS, SPACES = get_args(Method), get_args(Space)


def combine(predictions_MN: np.ndarray, method: str, space: str, weights_M: np.ndarray | None = None) -> np.ndarray:
    """One prediction for each row.

    Args:
        predictions_MN: non-negative predictions in the target's unit.
        method: mean, median or weighted_mean.
        space: z (log1p) or raw.
        weights_M: for weighted_mean; adds up to 1.

    Returns:
        (N,) float64, in the target's unit.

    Raises:
        ValueError: unknown method or space, or weights that do not fit the models.
    """
    if method not in METHODS or space not in SPACES:
        raise ValueError(f"method {method!r}, space {space!r}: expected one of {METHODS} and one of {SPACES}")
    values_MN = np.asarray(predictions_MN, np.float64)
    if space == "z":
        values_MN = np.log1p(values_MN)
    if method == "mean":
        combined_N = values_MN.mean(axis=0)
    elif method == "median":
        combined_N = np.median(values_MN, axis=0)
    else:
        if weights_M is None or len(weights_M) != len(values_MN):
            found = "none" if weights_M is None else f"{len(weights_M)}"
            raise ValueError(f"weighted_mean of {len(values_MN)} models needs {len(values_MN)} weights, found {found}")
        combined_N = np.asarray(weights_M, np.float64) @ values_MN
    return np.expm1(combined_N) if space == "z" else combined_N


def weights_from_scores(scores_M: np.ndarray) -> np.ndarray:
    """Weights in inverse proportion to each model's validation error, (M,), adding up to 1.

    For independent unbiased models with these mean squared errors they are the weights of least variance
    (inverse-variance weighting). A model without error takes all the weight.
    """
    errors_M = np.asarray(scores_M, np.float64)
    if not (np.isfinite(errors_M).all() and (errors_M >= 0).all()):
        raise ValueError(f"validation scores {errors_M.tolist()}: expected finite numbers from 0")
    if (errors_M == 0).any():
        return (errors_M == 0) / (errors_M == 0).sum()
    return (1 / errors_M) / (1 / errors_M).sum()


def normalise_weights(weights: tuple[float, ...], num_models: int) -> np.ndarray:
    """Given weights scaled to add up to 1.

    Raises:
        ValueError: another number of weights than models.
    """
    if len(weights) != num_models:
        raise ValueError(f"ensemble.weights has {len(weights)} numbers for {num_models} fold models; give one for each")
    return np.asarray(weights, np.float64) / sum(weights)
