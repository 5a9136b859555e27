"""How much the models of an ensemble differ, and what that is worth.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.numbers.leave_one_out import leave_each_out
from ensemble.numbers.methods.spaces import to_space
from ensemble.numbers.metrics import check_models
from ensemble.run import Columns

_NO_SPREAD = 1e-9


def describe_spread(predictions_MN: np.ndarray) -> dict[str, float]:
    """The catalogue's statistics of the standard deviation across models, in the target's unit.

    Returns:
        `prediction_diversity` and `pred_std_mean` (mean over rows of the population standard deviation across
        models: two names of one number), `pred_std_max`, `pred_std_min`.
    """
    std_N = spread(predictions_MN)
    mean = float(std_N.mean())
    return {
        "prediction_diversity": mean,
        "pred_std_mean": mean,
        "pred_std_max": float(std_N.max()),
        "pred_std_min": float(std_N.min()),
    }


def spread(predictions_MN: np.ndarray) -> np.ndarray:
    """Population standard deviation across models for each row, (N,)."""
    std_N: np.ndarray = np.asarray(predictions_MN, np.float64).std(axis=0)
    return std_N


@dataclass(frozen=True)
class Decomposition:
    """Squared error of a weighted mean = weighted mean of the models' squared errors - ambiguity.

    Attributes:
        ensemble_error: mean squared error of the weighted mean.
        member_error: weighted mean of the models' mean squared errors.
        ambiguity: weighted mean of the models' mean squared deviations from the weighted mean; needs no target.
    """

    ensemble_error: float
    member_error: float
    ambiguity: float


def decompose_error(
    predictions_MN: np.ndarray, target_N: np.ndarray, space: str = "z", weights_M: np.ndarray | None = None
) -> Decomposition:
    """The ambiguity decomposition (Krogh and Vedelsby 1995, "Neural Network Ensembles, Cross Validation, and Active
    Learning", https://proceedings.neurips.cc/paper/1994/hash/b8c37e33defde51cf91e1e03e51657da-Abstract.html).

    Args:
        predictions_MN: in the target's unit.
        target_N: the true values.
        space: where the mean is taken and errors are squared: z (the errors are MSLE) or raw (MSE).
        weights_M: from 0, adding up to 1; None: equal.

    Raises:
        ValueError: values that do not fit together or are not finite; an unknown space.
    """
    predictions_MN, target_N = check_models(predictions_MN, target_N)
    values_MN, truth_N = to_space(predictions_MN, space), to_space(target_N, space)
    num_models = len(values_MN)
    weights_M = np.full(num_models, 1 / num_models) if weights_M is None else np.asarray(weights_M, np.float64)
    mean_N = weights_M @ values_MN
    return Decomposition(
        ensemble_error=float(((mean_N - truth_N) ** 2).mean()),
        member_error=float(weights_M @ ((values_MN - truth_N) ** 2).mean(axis=1)),
        ambiguity=float(weights_M @ ((values_MN - mean_N) ** 2).mean(axis=1)),
    )


def correlate_predictions(predictions_MN: np.ndarray, space: str = "z") -> np.ndarray:
    """Pearson correlation of each two models' predictions, (M, M); NaN for a model that always predicts the same."""
    return _correlate(to_space(predictions_MN, space))


def correlate_errors(predictions_MN: np.ndarray, target_N: np.ndarray, space: str = "z") -> np.ndarray:
    """Pearson correlation of each two models' errors, (M, M); NaN for a model that always errs by the same amount."""
    predictions_MN, target_N = check_models(predictions_MN, target_N)
    return _correlate(to_space(predictions_MN, space) - to_space(target_N, space))


def count_effective_models(correlation_MM: np.ndarray) -> float:
    """How many uncorrelated models the given ones amount to, from 1 (all err alike) to M (no two do).

    The participation ratio (Σλ)² / Σλ² of the eigenvalues of the correlation matrix of the errors, which is M² over the
    sum of its squared entries (Bretherton et al. 1999, "The Effective Number of Spatial Degrees of Freedom of a
    Time-Varying Field", https://doi.org/10.1175/1520-0442(1999)012<1990:TENOSD>2.0.CO;2). NaN where one
    model's errors do not vary.
    """
    return float(len(correlation_MM) ** 2 / (np.asarray(correlation_MM) ** 2).sum())


def _correlate(values_MN: np.ndarray) -> np.ndarray:
    means_M1 = values_MN.mean(axis=1, keepdims=True)
    centred_MN = values_MN - means_M1
    sizes_M = np.sqrt((centred_MN**2).sum(axis=1))
    sizes_M[sizes_M < _NO_SPREAD * np.maximum(1, np.abs(means_M1[:, 0]))] = np.nan
    correlation_MM: np.ndarray = centred_MN @ centred_MN.T / np.outer(sizes_M, sizes_M)
    return correlation_MM


def describe_diversity(columns: Columns, metric: str, space: str) -> dict[str, Any]:
    """How much the models differ, and what each adds to their mean.

    Returns:
        `ensemble_error`, `member_error`, `ambiguity` of the mean (squared error in the space; the first is the second
        less the third), `effective_models`, `error_correlation` and `prediction_correlation` (M, M), and
        `contributions`: of each model how much the metric's error grows without it, with a 95 % interval; of a single
        model none.
    """
    parts = decompose_error(columns.oof_MN, columns.target_N, space)
    errors_MM = correlate_errors(columns.oof_MN, columns.target_N, space)
    contributions = []
    if len(columns.names) > 1:
        left_out = leave_each_out(columns.oof_MN, columns.target_N, metric, "mean", space, unit_N=columns.unit_N)
        values = (left_out.contribution_M, left_out.low_M, left_out.high_M)
        contributions = [
            dict(zip(("name", "contribution", "low", "high"), (name, *map(float, numbers)), strict=True))
            for name, *numbers in zip(columns.names, *values, strict=True)
        ]
    return {
        "ensemble_error": parts.ensemble_error,
        "member_error": parts.member_error,
        "ambiguity": parts.ambiguity,
        "effective_models": _as_json(count_effective_models(errors_MM)),
        "error_correlation": _as_json(errors_MM),
        "prediction_correlation": _as_json(correlate_predictions(columns.oof_MN, space)),
        "contributions": contributions,
    }


def _as_json(numbers: np.ndarray | float) -> Any:
    """NaN, which JSON does not have, becomes None."""
    values = np.array(numbers, object)
    values[~np.isfinite(np.asarray(numbers, np.float64))] = None
    return values.tolist()
