"""Rows whose truth is most likely wrong, by what models that have not seen them predict. Arrays in, scores out: the
higher, the more suspicious; comparable among the rows of a run.

Shape suffixes: N rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEAST_NEAR, _SHARE_NEAR = 30, 0.1  # rows of a similar prediction, by which a residual is judged
_TO_DEVIATION = 1.4826  # of a normal distribution, from the median absolute deviation


@dataclass(frozen=True)
class Suspects:
    """How suspicious each row is.

    Attributes:
        suspicion_N: the higher, the more.
        given, predicted: (N,) in words, what is said to be true and what is predicted.
        pictures: (N,) pictures of the rows with their predictions, by their paths below the run's folder; None: there
            are none.
    """

    suspicion_N: np.ndarray
    given: list[str]
    predicted: list[str]
    pictures: list[str] | None = None


def judge_numbers(target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    """The size of each standardised residual: its distance from the median of rows with a similar prediction, in their
    standard deviations (from the median absolute deviation, which errors among them do not move). Of log1p where that
    is defined and makes the target less skewed, as of prices."""
    from scipy.ndimage import median_filter

    is_defined = min(target_N.min(), prediction_N.min()) > -1
    if is_defined and _measure_skew(np.log1p(target_N)) < _measure_skew(target_N):
        target_N, prediction_N = np.log1p(target_N), np.log1p(prediction_N)
    order = np.argsort(prediction_N, kind="stable")
    residual_N = (target_N - prediction_N)[order]
    near = min(len(order), max(_LEAST_NEAR, round(_SHARE_NEAR * len(order))))
    centred_N = residual_N - median_filter(residual_N, near, mode="reflect")
    scale_N = _TO_DEVIATION * median_filter(np.abs(centred_N), near, mode="reflect")
    least = max(1e-3 * np.median(np.abs(centred_N)), np.finfo(float).tiny)
    score_N = np.empty(len(order))
    score_N[order] = np.abs(centred_N) / np.maximum(scale_N, least)
    return score_N


def _measure_skew(values_N: np.ndarray) -> float:
    """How far the median is from the middle between the quartiles, from 0 to 1 (Bowley's skewness, without its
    sign)."""
    low, middle, high = np.quantile(values_N, [0.25, 0.5, 0.75])
    return float(abs(low + high - 2 * middle) / (high - low)) if high > low else 0.0


def judge_classes(target_N: np.ndarray, probability_NC: np.ndarray) -> np.ndarray:
    """How much surer another class is than the given one, each beside how sure its own rows are on average.

    Confident learning (Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068): a class's threshold is the
    mean probability of it among the rows that are given it, so that a class of which the models are never sure is not
    suspected as a whole. Above 0: another class is more than as sure as it usually is, in relation.
    """
    num_classes = probability_NC.shape[1]
    size_C = np.bincount(target_N, minlength=num_classes)
    own_N = probability_NC[np.arange(len(target_N)), target_N]
    mean_C = np.bincount(target_N, own_N, minlength=num_classes) / np.maximum(size_C, 1)
    above_NC = probability_NC - np.where(size_C, mean_C, 1.0)
    own_N = above_NC[np.arange(len(target_N)), target_N].copy()
    above_NC[np.arange(len(target_N)), target_N] = -np.inf
    score_N: np.ndarray = above_NC.max(axis=1) - own_N
    return score_N


def judge_maps(dice_N: np.ndarray, confidence_N: np.ndarray) -> np.ndarray:
    """What is missing to a Dice of 1, times how sure the model is of its own map."""
    score_N: np.ndarray = (1 - dice_N) * confidence_N
    return score_N
