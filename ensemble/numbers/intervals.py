"""Prediction intervals from the models of a cross-validation: CV+.

Barber, Candès, Ramdas and Tibshirani 2021, "Predictive inference with the jackknife+", Annals of Statistics 49(1),
486-507, https://doi.org/10.1214/20-AOS1965 (https://arxiv.org/abs/1905.02928), section 3.

Theorem 4: with K folds of n/K rows each, an interval of level 1 - α holds a new row's true value with a probability of
at least

    1 - 2α - min{ 2(1 - 1/K) / (n/K + 1), (1 - K/n) / (K + 1) },

whatever the model and the distribution. That is a mean over training sets and new rows, not a promise for any one of
them, and in practice coverage is near 1 - α. It needs that

- training rows and the new row are exchangeable, and rows were assigned to folds without looking at them;
- each fold's model comes from one fixed recipe, blind to the fold's validation rows and to the order of the rows: a
  checkpoint after a fixed number of epochs (`final`), not one chosen on those rows (`best`).

Shape suffixes: K folds, N rows with an out-of-fold prediction, T rows to predict.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np

from ensemble.numbers.methods.spaces import from_space, to_space
from ensemble.numbers.metrics import check_models
from ensemble.order_statistics import select_sum


class IntervalKind(StrEnum):
    """What stands behind an interval."""

    CV_PLUS = "cv+"
    """The conditions of theorem 4 hold: coverage is at least `bound_coverage`."""
    EMPIRICAL = "empirical"
    """The same computation without them: nothing is guaranteed."""


def interval_kind(folds_kind: str, checkpoint: str) -> IntervalKind:
    """Whether the folds and checkpoints of a run meet the conditions of theorem 4.

    Only `random` folds with the `final` checkpoint do. Stratified folds look at the target, the rows of a group are not
    exchangeable with another group's, predefined folds may be anything, and `best` was chosen on the validation rows.

    Args:
        folds_kind: random, stratified, grouped, stratified_grouped or predefined.
        checkpoint: best or final.

    Raises:
        ValueError: folds in the order of time: later rows are not exchangeable with earlier ones, and the models differ
            in how much they were trained on.
    """
    if folds_kind == "time":
        raise ValueError(
            "folds.kind=time: expected another kind of folds with ensemble.interval, as rows of another time are not "
            "exchangeable with those of the residuals; set ensemble.interval=none"
        )
    return IntervalKind.CV_PLUS if (folds_kind, checkpoint) == ("random", "final") else IntervalKind.EMPIRICAL


def bound_coverage(level: float, num_rows: int, num_folds: int) -> float:
    """The least coverage that theorem 4 guarantees at a level, for `num_rows` rows in folds of equal size."""
    by_size = 2 * (1 - 1 / num_folds) / (num_rows / num_folds + 1)
    by_count = (1 - num_folds / num_rows) / (num_folds + 1)
    return 1 - 2 * (1 - level) - min(by_size, by_count)


def predict_intervals(
    test_predictions_KT: np.ndarray,
    oof_prediction_N: np.ndarray,
    target_N: np.ndarray,
    fold_N: np.ndarray,
    level: float = 0.9,
    space: str = "z",
) -> tuple[np.ndarray, np.ndarray]:
    """The CV+ interval of each row to predict.

    Every row with an out-of-fold prediction puts its absolute residual on both sides of what its fold's model, which
    has not seen it, predicts for the new row. The interval goes from the ⌊α(n+1)⌋-th smallest of the lower values to
    the ⌈(1-α)(n+1)⌉-th smallest of the upper ones. Where there are too few rows for that, an end is infinite (0 in z
    space).

    Args:
        test_predictions_KT: each fold model's predictions, in the target's unit.
        oof_prediction_N: each row's prediction by the model of its fold.
        target_N: the true values.
        fold_N: each row's fold, from 0 to K - 1; each fold has a row. Rows without a fold are left out by the caller.
        level: 1 - α.
        space: where residuals are taken: z (the interval is wider for larger predictions, never below 0) or raw.

    Returns:
        Lower and upper ends, (T,) and (T,), in the target's unit.

    Raises:
        ValueError: values that do not fit together or are not finite; a level outside 0 to 1.
    """
    oof_1N, target_N = check_models(np.asarray(oof_prediction_N)[None], target_N)
    tests_KT, fold_N = to_space(test_predictions_KT, space), np.asarray(fold_N)
    _check_folds(fold_N, len(tests_KT), len(target_N), level)
    residual_N = np.abs(to_space(target_N, space) - to_space(oof_1N[0], space))
    num_rows, num_tests = len(target_N), tests_KT.shape[1]
    rank = math.ceil(round(level * (num_rows + 1), 9))  # from 1; without the rounding, 0.9 · 10 could be above 9
    low_T, high_T = np.full(num_tests, -np.inf), np.full(num_tests, np.inf)
    if rank <= num_rows:
        residuals = [residual_N[fold_N == fold] for fold in range(len(tests_KT))]
        low_T, high_T = -select_sum(-tests_KT, residuals, rank), select_sum(tests_KT, residuals, rank)
    low_T, high_T = from_space(low_T, space), from_space(high_T, space)
    return (low_T.clip(0) if space == "z" else low_T), high_T


def _check_folds(fold_N: np.ndarray, num_folds: int, num_rows: int, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    if fold_N.shape != (num_rows,) or np.unique(fold_N).tolist() != list(range(num_folds)):
        raise ValueError(
            f"fold {fold_N.shape} with folds {np.unique(fold_N).tolist()[:10]}: expected one for each of {num_rows} "
            f"rows, and rows of each of the folds 0 to {num_folds - 1}"
        )
