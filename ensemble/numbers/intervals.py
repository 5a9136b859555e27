"""Prediction intervals from the models of a cross-validation: CV+, see `ensemble.members.cv_plus`.

Shape suffixes: K folds, N rows with an out-of-fold prediction, T rows to predict.
"""

from __future__ import annotations

import numpy as np

from ensemble.members.cv_plus import check_folds, find_rank
from ensemble.numbers.methods.spaces import from_space, to_space
from ensemble.numbers.metrics import check_models
from ensemble.order_statistics import select_sum


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
    check_folds(fold_N, len(tests_KT), len(target_N), level)
    residual_N = np.abs(to_space(target_N, space) - to_space(oof_1N[0], space))
    num_rows, num_tests = len(target_N), tests_KT.shape[1]
    rank = find_rank(level, num_rows)
    low_T, high_T = np.full(num_tests, -np.inf), np.full(num_tests, np.inf)
    if rank <= num_rows:
        residuals = [residual_N[fold_N == fold] for fold in range(len(tests_KT))]
        low_T, high_T = -select_sum(-tests_KT, residuals, rank), select_sum(tests_KT, residuals, rank)
    low_T, high_T = from_space(low_T, space), from_space(high_T, space)
    return (low_T.clip(0) if space == "z" else low_T), high_T
