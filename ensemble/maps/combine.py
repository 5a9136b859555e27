"""Combining probability maps of M models for one row into one, what its places are then said to be, and how right that
is.

A map has C channels: one, the probability of the foreground, or one for each class. Dice and IoU are of the classes but
the background.

Shape suffixes: M models, F fold models of all members, C channels, K classes but the background, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.config import MAP_METHODS

IGNORED = 255  # of a true map: places that count nowhere


def combine_maps(
    probability_MCHW: np.ndarray, method: str, weights_M: np.ndarray | None = None, threshold: float = 0.5
) -> np.ndarray:
    """One map, (C, H, W) float32.

    The median of several classes is scaled to add up to 1. With majority_vote each model has a vote for each place, and
    where votes are equal the mean probability decides: (votes + mean) / (M + 1), which is above a half just where the
    majority or, at a tie, the mean is. With another threshold, for votes and mean alike, the scale is bent so that it
    lies in the middle, and back.

    Args:
        probability_MCHW: from 0 to 1.
        method: mean, median, weighted_mean or majority_vote.
        weights_M: for weighted_mean; adds up to 1.
        threshold: of a single channel, from which on `choose_classes` will see foreground; above 0 and below 1.

    Raises:
        ValueError: unknown method, or weights that do not fit the models.
    """
    if method not in MAP_METHODS:
        raise ValueError(f"method {method!r}: expected one of {', '.join(MAP_METHODS)}")
    num_models = len(probability_MCHW)
    if method == "weighted_mean":
        if weights_M is None or len(weights_M) != num_models:
            raise ValueError(f"weighted_mean of {num_models} models needs {num_models} weights, found {weights_M}")
        return np.tensordot(np.asarray(weights_M, np.float64), probability_MCHW, 1).astype(np.float32)
    if method == "median":
        middle_CHW: np.ndarray = np.median(probability_MCHW, axis=0)
        total_HW = middle_CHW.sum(0)
        if len(middle_CHW) > 1:
            middle_CHW = middle_CHW / np.where(total_HW > 0, total_HW, 1)
        return middle_CHW.astype(np.float32)
    mean_CHW: np.ndarray = probability_MCHW.mean(0, dtype=np.float64)
    if method == "mean":
        return mean_CHW.astype(np.float32)
    if len(mean_CHW) == 1:
        votes_CHW = (probability_MCHW >= threshold).sum(0)
        share_CHW: np.ndarray = (votes_CHW + _bend(mean_CHW, threshold, 0.5)) / (num_models + 1)
        return _bend(share_CHW, 0.5, threshold).astype(np.float32)
    chosen_MHW = probability_MCHW.argmax(1)
    votes_CHW = np.stack([(chosen_MHW == number).sum(0) for number in range(len(mean_CHW))])
    share_CHW = (votes_CHW + mean_CHW) / (num_models + 1)
    return share_CHW.astype(np.float32)


def combine_folds(probability_FCHW: np.ndarray, counts: Sequence[int], method: str) -> np.ndarray:
    """Of each member the combination of its fold models' maps, (M, C, H, W).

    Args:
        probability_FCHW: of all fold models, those of a member one after the other.
        counts: of fold models of each member.
        method: mean or median.
    """
    parts = np.split(probability_FCHW, np.cumsum(counts)[:-1])
    return np.stack([combine_maps(part, method) for part in parts])


def _bend(values: np.ndarray, middle: float, becomes: float) -> np.ndarray:
    """From 0 to 1 as before, the middle elsewhere."""
    bent: np.ndarray = np.interp(values, (0, middle, 1), (0, becomes, 1))
    return bent


def measure_disagreement(probability_MCHW: np.ndarray) -> np.ndarray:
    """Standard deviation over the models at each place, (H, W) float32; of several classes that of the class where it
    is largest."""
    spread_HW: np.ndarray = probability_MCHW.std(0, dtype=np.float64).max(0)
    return spread_HW.astype(np.float32)


def choose_classes(probability_CHW: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The class of each place, (H, W) uint8: with one channel foreground (1) from the threshold on, else the
    likeliest."""
    if len(probability_CHW) == 1:
        classes_HW: np.ndarray = probability_CHW[0] >= threshold
    else:
        classes_HW = probability_CHW.argmax(0)
    return classes_HW.astype(np.uint8)


def count_places(predicted_HW: np.ndarray, true_HW: np.ndarray, num_classes: int) -> np.ndarray:
    """(3, K) int64: of each class but the background the places that are rightly said to be of it, that are said to be,
    and that are."""
    counts_HW = true_HW != IGNORED
    said, true = predicted_HW[counts_HW], true_HW[counts_HW]
    parts = (said[said == true], said, true)
    return np.stack([np.bincount(values, minlength=num_classes)[1:num_classes] for values in parts])


def score_counts(counts_3K: np.ndarray) -> dict[str, float]:
    """dice = 2 · right / (said + true) and iou = right / (said or true), each the mean over the classes that are
    somewhere; 1 where none is."""
    right_K, predicted_K, true_K = np.asarray(counts_3K, np.float64)
    known_K = predicted_K + true_K > 0
    if not known_K.any():
        return {"dice": 1.0, "iou": 1.0}
    right_K, predicted_K, true_K = right_K[known_K], predicted_K[known_K], true_K[known_K]
    return {
        "dice": float((2 * right_K / (predicted_K + true_K)).mean()),
        "iou": float((right_K / (predicted_K + true_K - right_K)).mean()),
    }
