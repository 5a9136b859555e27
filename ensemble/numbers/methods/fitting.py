"""Combinations whose weights are fitted: on rows that all M models predict without having seen them.

Such rows are the out-of-fold columns of several members, or a blend set. The K fold models of one member have none:
each has its out-of-fold predictions on other rows than the next.

| method  | weights                              | fitted to                                    |
|---|---|---|
| simplex | from 0, adding up to 1               | squared error in the space                   |
| ridge   | any, and an intercept                | squared error in the space, shrunk towards 0 |
| greedy  | multiples of 1/25 or more, from 0    | the metric                                   |

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from ensemble.config import FITTED_METHODS
from ensemble.numbers.methods.combine import combine
from ensemble.numbers.methods.greedy import multiply_errors, select_greedily
from ensemble.numbers.methods.spaces import from_space, to_space
from ensemble.numbers.metrics import check_models

_RIDGE_STRENGTHS = np.logspace(-8, 2, 21)


@dataclass(frozen=True)
class FittedCombination:
    """A weighted sum in a space.

    Attributes:
        weights_M: one for each model.
        intercept: added on the space's scale; 0 but for ridge.
        space: z or raw.
        lowest: predictions are not below it: 0 where no target was below 0, else -inf.
    """

    weights_M: np.ndarray
    intercept: float
    space: str
    lowest: float

    def predict(self, predictions_MN: np.ndarray) -> np.ndarray:
        """One prediction for each row, (N,) float64 in the target's unit."""
        combined_N: np.ndarray = combine(predictions_MN, "weighted_mean", self.space, self.weights_M)
        if self.intercept:
            combined_N = from_space(to_space(combined_N, self.space) + self.intercept, self.space)
        combined_N = np.maximum(combined_N, self.lowest)
        return combined_N


def fit(
    method: str, predictions_MN: np.ndarray, target_N: np.ndarray, metric: str = "msle", space: str = "z"
) -> FittedCombination:
    """Weights of M models from N rows that none of them has seen.

    Args:
        method: simplex, ridge or greedy.
        predictions_MN: in the target's unit.
        target_N: the true values.
        metric: what greedy makes small, by a name that `measure_error` knows; the others take the squared error in the
            space, which is the metric for msle in z and mse in raw space.
        space: z (weighted sums of log1p) or raw.

    Raises:
        ValueError: an unknown method, metric or space; values that do not fit together or are not finite.
    """
    if method not in FITTED_METHODS:
        raise ValueError(f"method {method!r} is not fitted: expected one of {', '.join(FITTED_METHODS)}")
    predictions_MN, target_N = check_models(predictions_MN, target_N)
    intercept = 0.0
    if method == "ridge":
        weights_M, intercept = _fit_ridge(predictions_MN, target_N, space)
    elif method == "simplex":
        weights_M = _fit_simplex(predictions_MN, target_N, space)
    else:
        weights_M = select_greedily(predictions_MN, target_N, metric, space)
    return FittedCombination(weights_M, intercept, space, 0.0 if target_N.min() >= 0 else -np.inf)


def _fit_simplex(predictions_MN: np.ndarray, target_N: np.ndarray, space: str) -> np.ndarray:
    """Non-negative least squares with weights that add up to 1 (Breiman 1996, "Stacked regressions",
    https://doi.org/10.1007/BF00117832; van der Laan, Polley and Hubbard 2007, "Super Learner",
    https://doi.org/10.2202/1544-6115.1309).

    As the weights add up to 1, the ensemble's error is the weighted sum E·w of the models' errors. Minimising |E·u|² +
    (1 - Σu)²
    over u from 0, u = s·w, leaves |E·w|² / (1 + |E·w|²) at the best s: the same w is best. So one call without a
    constraint on the sum is enough, and of E only EᵀE is needed."""
    products_MM = multiply_errors(predictions_MN, target_N, space)
    size = products_MM.diagonal().mean() or 1.0
    values_M, vectors_MM = np.linalg.eigh(products_MM / size)
    root_MM = np.sqrt(values_M.clip(0))[:, None] * vectors_MM.T
    sums_M, _ = nnls(np.vstack([root_MM, np.ones(len(root_MM))]), np.append(np.zeros(len(root_MM)), 1.0))
    weights_M: np.ndarray = sums_M / sums_M.sum()
    return weights_M


def _fit_ridge(predictions_MN: np.ndarray, target_N: np.ndarray, space: str) -> tuple[np.ndarray, float]:
    """Ridge regression (Hoerl and Kennard 1970, https://doi.org/10.1080/00401706.1970.10488634; for stacking Breiman
    1996).

    The intercept is not shrunk: it takes up a bias that all models share. The strength, relative to the models' mean
    variance, is the one with the least exact leave-one-out squared error (scikit-learn's `RidgeCV`).
    """
    from sklearn.linear_model import RidgeCV  # 1 s to import

    features_NM = to_space(predictions_MN, space).T
    scale = len(target_N) * features_NM.var(axis=0).mean() or 1.0
    ridge = RidgeCV(alphas=scale * _RIDGE_STRENGTHS).fit(features_NM, to_space(target_N, space))
    return ridge.coef_, float(ridge.intercept_)
