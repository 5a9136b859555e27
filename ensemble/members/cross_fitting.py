"""Scores combinations honestly: weights that are fitted are fitted again without each fold and predict that fold.

A leak of the second level remains, but for folds in time: the out-of-fold predictions of the other folds' rows, to
which the weights are fitted, come from base models that were trained on this fold's rows. Only nested cross-validation,
which trains every base model again within each outer fold, or a blend set is without it; with few weights on many rows
it is small.

Shape suffixes: M models, N rows; an array of rows may have one more axis (see `ensemble.kinds`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from ensemble.combination import Combination
from ensemble.run import Columns, Evaluation


class Fitted(Protocol):
    """A combination whose weights are known."""

    def predict(self, predictions_MN: np.ndarray) -> np.ndarray:
        """The combined prediction of each row, (N,)."""


Fit = Callable[[Combination, Columns], Fitted]  # a combination with weights that are fitted, if any are, to all rows


def predict_cross_fitted(how: Combination, columns: Columns, fit: Fit) -> np.ndarray:
    """Each row's combined prediction, (N,), by weights that were fitted on the other folds' rows if any are: what to
    score a combination by. Of folds in time these are the earlier ones; for the first the models weigh the same.

    Raises:
        ValueError: fewer than two folds, or as `fit`.
    """
    if not how.is_fitted:
        return fit(how, columns).predict(columns.oof_MN)
    folds = np.unique(columns.fold_N)
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} fold: expected at least 2, as weights are fitted on others")
    cross_fitted_N = np.empty(columns.oof_MN.shape[1:])
    for fold in folds:
        held_N, other_N = columns.fold_N == fold, columns.others(fold)
        known = columns.keep(other_N) if other_N.any() else columns
        fitted = fit(how if other_N.any() else Combination("mean", how.space), known)
        cross_fitted_N[held_N] = fitted.predict(columns.oof_MN[:, held_N])
    return cross_fitted_N


def evaluate(
    how: Combination, own: Columns, fit: Fit, measure_error: Callable[[str, np.ndarray, np.ndarray], float]
) -> Evaluation:
    """What a combination of these models comes to.

    Args:
        how: to combine them.
        own: their predictions.
        fit: finds weights.
        measure_error: by the metric's name, of targets and predictions.
    """
    cross_fitted_N = predict_cross_fitted(how, own, fit)
    inner = []
    for fold in np.unique(own.fold_N):
        rest_N = own.others(fold)
        if not rest_N.any():
            inner.append(np.nan)
            continue
        inner_N = cross_fitted_N[rest_N] if not how.is_fitted else predict_cross_fitted(how, _keep(own, rest_N), fit)
        inner.append(measure_error(how.metric, own.target_N[rest_N], inner_N))
    return Evaluation(cross_fitted_N, np.array(inner))


def _keep(columns: Columns, rows_N: np.ndarray) -> Columns:
    """Some rows; those of a single fold are divided in two, so that weights can be fitted on one half and tried on the
    other."""
    kept = columns.keep(rows_N)
    if len(np.unique(kept.fold_N)) > 1:
        return kept
    return replace(kept, fold_N=np.random.default_rng(0).permutation(len(kept.fold_N)) % 2, is_ordered=False)
