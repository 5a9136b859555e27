"""Combining members: models that each have one out-of-fold prediction of every row, made on the same folds.

What a combination is scored by is always honest, see `ensemble.members.cross_fitting`.

Shape suffixes: M members, N rows with an out-of-fold prediction, T test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.config import FITTED_METHODS, METHODS, SPACES, Space
from ensemble.members import cross_fitting
from ensemble.numbers.methods.combine import combine
from ensemble.numbers.methods.fitting import FittedCombination, fit
from ensemble.numbers.metrics import is_mean_of_rows, measure_error
from ensemble.run import Columns, Evaluation

TRIMS, WEIGHT_POWERS = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0, 8.0)  # that a sweep tries


def list_combinations(
    spaces: Sequence[Space] = SPACES,
    metric: str = "msle",
    trims: Sequence[float] = (0.2,),
    weight_powers: Sequence[float] = (1.0,),
) -> list[Combination]:
    """Every method in every space; of the trimmed mean one for each share, of the weighted mean by score one for each
    power, but none where the metric is a scorer, whose errors may be negative."""
    combinations = []
    for space in spaces:
        for method in (*METHODS, *FITTED_METHODS):
            how = Combination(method, space, metric)
            if method == "trimmed_mean":
                combinations += [replace(how, trim=trim) for trim in trims]
            elif method == "weighted_mean":
                combinations += (
                    [] if not is_mean_of_rows(metric) else [replace(how, weight_power=power) for power in weight_powers]
                )
            else:
                combinations.append(how)
    return combinations


def predict_cross_fitted(how: Combination, columns: Columns) -> np.ndarray:
    """Each row's honest combined prediction, (N,), see `ensemble.members.cross_fitting`.

    Raises:
        ValueError: fewer than two folds, or as `combine` and `fit`.
    """
    return cross_fitting.predict_cross_fitted(how, columns, fit_ensemble)


def evaluate(how: Combination, own: Columns) -> Evaluation:
    """What a combination of these models comes to."""
    return cross_fitting.evaluate(how, own, fit_ensemble, measure_error)


@dataclass(frozen=True)
class FittedEnsemble:
    """A combination whose weights are known, so that it predicts whatever rows its members predict.

    Attributes:
        weights_M: None for a method without.
        fitted: where the method is one whose weights are fitted.
    """

    how: Combination
    weights_M: np.ndarray | None = None
    fitted: FittedCombination | None = None

    @property
    def intercept(self) -> float:
        """What is added on the space's scale."""
        return self.fitted.intercept if self.fitted else 0.0

    def predict(self, predictions_MT: np.ndarray) -> np.ndarray:
        """The combined prediction of each row, (T,) in the target's unit.

        Raises:
            ValueError: as `combine`.
        """
        if self.fitted:
            return self.fitted.predict(predictions_MT)
        return combine(predictions_MT, self.how.method, _need_space(self.how), self.weights_M, self.how.trim)


def fit_ensemble(how: Combination, columns: Columns) -> FittedEnsemble:
    """The combination with weights that are fitted, if any are, to all out-of-fold predictions.

    Raises:
        ValueError: as `fit`.
    """
    if how.method in FITTED_METHODS:
        fitted = fit(how.method, columns.oof_MN, columns.target_N, how.metric, _need_space(how))
        return FittedEnsemble(how, fitted.weights_M, fitted)
    if how.weights is not None:
        return FittedEnsemble(how, normalise_weights(how.weights, len(columns.names)))
    return FittedEnsemble(how, _weigh(how, columns.oof_MN, columns.target_N) if how.is_fitted else None)


def _weigh(how: Combination, oof_MN: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Weights in inverse proportion to each member's error.

    Raises:
        ValueError: an error is negative, as the negative of a scorer's value is.
    """
    errors_M = np.array([measure_error(how.metric, target_N, oof_N) for oof_N in oof_MN])
    return weights_from_scores(errors_M, how.weight_power)


def _need_space(how: Combination) -> Space:
    assert how.space is not None, "numbers are combined in a space"
    return how.space
