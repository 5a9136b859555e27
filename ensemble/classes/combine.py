"""Combining the class probabilities of M models into those of one.

Shape suffixes: M models, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METHODS = ("mean", "geometric_mean", "median", "weighted_mean", "simplex", "greedy")
_TINY = np.finfo(np.float64).tiny


def combine_classes(probability_MNC: np.ndarray, method: str, weights_M: np.ndarray | None = None) -> np.ndarray:
    """One set of probabilities for each row, (N, C), adding up to 1.

    The geometric mean is the mean of the logarithms, scaled to add up to 1: a class that one model holds impossible
    stays so (the logarithmic opinion pool, Genest and Zidek 1986, https://doi.org/10.1214/ss/1177013825). The median is
    that of each class, scaled likewise; where all are 0 it is the mean.

    Args:
        probability_MNC: of a row and a model adding up to 1.
        method: mean, geometric_mean, median or weighted_mean.
        weights_M: for weighted_mean; from 0, adding up to 1.

    Raises:
        ValueError: an unknown method, values that are not finite, or weights that do not fit the models.
    """
    probability_MNC = np.asarray(probability_MNC)
    num_models = len(probability_MNC)
    if not np.isfinite(probability_MNC).all():
        raise ValueError("a model predicts probabilities that are NaN or infinite")
    if method == "weighted_mean":
        if weights_M is None or len(weights_M) != num_models:
            found = "none" if weights_M is None else f"{len(weights_M)}"
            raise ValueError(f"weighted_mean of {num_models} models needs {num_models} weights, found {found}")
        # Model by model: what BLAS adds up in which order depends on how many rows there are.
        weights_M11 = np.asarray(weights_M, np.float64)[:, None, None]
        return _normalise((weights_M11 * probability_MNC).sum(axis=0))
    mean_NC: np.ndarray = probability_MNC.mean(axis=0)
    if method == "mean":
        return _normalise(mean_NC)
    if method == "median":
        middle_NC = np.median(probability_MNC, axis=0)
        return _normalise(np.where(middle_NC.sum(axis=1, keepdims=True) > 0, middle_NC, mean_NC))
    if method == "geometric_mean":
        log_NC = np.log(np.maximum(probability_MNC, _TINY)).mean(axis=0)
        return _normalise(np.exp(log_NC - log_NC.max(axis=1, keepdims=True)))
    raise ValueError(f"method {method!r}: expected one of mean, geometric_mean, median, weighted_mean")


def combine_folds(probability_FNC: np.ndarray, counts: Sequence[int], method: str) -> np.ndarray:
    """Of each member the combination of its fold models, (M, N, C).

    Args:
        probability_FNC: of all fold models, those of a member one after the other.
        counts: of fold models of each member.
        method: mean, median or geometric_mean.
    """
    parts = np.split(probability_FNC, np.cumsum(counts)[:-1])
    return np.stack([combine_classes(part, method) for part in parts])


def measure_disagreement(probability_MNC: np.ndarray, combined_NC: np.ndarray) -> np.ndarray:
    """Standard deviation over the models of the probability of the class that they say together, (N,)."""
    said_N = combined_NC.argmax(axis=1)
    spread_N: np.ndarray = probability_MNC[:, np.arange(len(said_N)), said_N].std(axis=0)
    return spread_N


def _normalise(values_NC: np.ndarray) -> np.ndarray:
    normalised_NC: np.ndarray = values_NC / values_NC.sum(axis=1, keepdims=True)
    return normalised_NC
