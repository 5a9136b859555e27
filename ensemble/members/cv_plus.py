"""What stands behind CV+: prediction intervals, and sets of classes, from the models of a cross-validation.

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

Romano, Sesia and Candès 2020, "Classification with valid and adaptive coverage", https://arxiv.org/abs/2006.02544,
theorem 2, say the same of sets of classes.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np

from ensemble.run import Run


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


def judge_run(run: Run, *, is_blind: bool) -> IntervalKind:
    """The theorem holds for one recipe that is blind to the rows its residuals come from, of which each row has one.

    Args:
        run: the models of a member on another division have seen these rows.
        is_blind: whether no weights were fitted to these rows.
    """
    kind = interval_kind(run.fold_kind, run.ensemble.checkpoint)
    is_blind = is_blind and run.is_blind and run.ensemble.external is None
    return kind if is_blind else IntervalKind.EMPIRICAL


def find_rank(level: float, num_rows: int) -> int:
    """⌈(1-α)(n+1)⌉, from 1; above n there are too few rows."""
    return math.ceil(round(level * (num_rows + 1), 9))  # without the rounding, 0.9 · 10 could be above 9


def bound_coverage(level: float, num_rows: int, num_folds: int) -> float:
    """The least coverage that theorem 4 guarantees at a level, for `num_rows` rows in folds of equal size."""
    by_size = 2 * (1 - 1 / num_folds) / (num_rows / num_folds + 1)
    by_count = (1 - num_folds / num_rows) / (num_folds + 1)
    return 1 - 2 * (1 - level) - min(by_size, by_count)


def check_folds(fold_N: np.ndarray, num_folds: int, num_rows: int, level: float) -> None:
    """Raises ValueError where not each row has a fold, or not each fold a row."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    if fold_N.shape != (num_rows,) or np.unique(fold_N).tolist() != list(range(num_folds)):
        raise ValueError(
            f"fold {fold_N.shape} with folds {np.unique(fold_N).tolist()[:10]}: expected one for each of {num_rows} "
            f"rows, and rows of each of the folds 0 to {num_folds - 1}"
        )
