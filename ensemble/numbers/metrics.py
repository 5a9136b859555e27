"""Errors of predictions by name. One convention in this package: lower is better.

msle, rmsle, mse, rmse, mae and log_loss (of the probability of class 1) are computed here, a row at a time; any other
name is one of scikit-learn's scorers, where higher is better, and its negative is the error (`roc_auc`: minus the
area). Scorers of values and of binary probabilities are meant; one that wants labels (`accuracy`) says so itself.

Shape suffixes: M models, N rows, C candidates, U units that are drawn whole, D draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import overload

import numpy as np
from scipy.special import xlog1py, xlogy

from ensemble.members.comparison import NUM_DRAWS, draw_counts, number_units

NUM_SCORER_DRAWS = 200


def measure_error(metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
    """The error of predictions in the target's unit (or probabilities), by a metric's name; lower is better.

    Raises:
        ValueError: an unknown metric, or values that it is not defined for.
    """
    if is_mean_of_rows(metric):
        return float(finish(metric, row_errors(metric, target_N, prediction_N).mean()))
    return _ask_scorer(metric, target_N, prediction_N)


def check_metric(metric: str) -> None:
    """Raises ValueError where `measure_error` does not know a metric."""
    if is_mean_of_rows(metric):
        return
    from sklearn.metrics import get_scorer_names  # 1 s to import

    if metric not in get_scorer_names():
        raise ValueError(f"expected one of {', '.join(_ROW_ERRORS)}, or the name of a scikit-learn scorer")


def is_mean_of_rows(metric: str) -> bool:
    """Whether a metric is the mean of `row_errors`, up to `finish`."""
    return metric in _ROW_ERRORS


def row_errors(metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    """Each row's part of a metric, (N,) float64; several models' predictions (M, N) give (M, N)."""
    target_N, prediction_N = np.asarray(target_N, np.float64), np.asarray(prediction_N, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = _ROW_ERRORS[metric](target_N, prediction_N)
    if not np.isfinite(errors).all():
        bad = int((~np.isfinite(errors)).sum())
        raise ValueError(f"{metric} is not defined for {bad} of {errors.size} predictions, or for their targets")
    return errors


@overload
def finish(metric: str, mean_error: np.ndarray) -> np.ndarray: ...
@overload
def finish(metric: str, mean_error: float) -> float: ...
def finish(metric: str, mean_error: np.ndarray | float) -> np.ndarray | float:
    """The metric from the mean of its `row_errors`: the root for rmsle and rmse, else the mean itself."""
    return np.sqrt(mean_error) if metric in ("rmsle", "rmse") else mean_error


def check_models(predictions_MN: np.ndarray, target_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, the predictions in their own dtype.

    Raises:
        ValueError: they do not fit together, there is no model or no row, or a value is NaN or infinite.
    """
    predictions_MN, target_N = np.asarray(predictions_MN), np.asarray(target_N, np.float64)
    if predictions_MN.ndim != 2 or predictions_MN.shape[1:] != target_N.shape or not predictions_MN.size:
        raise ValueError(
            f"predictions {predictions_MN.shape} and target {target_N.shape}: expected (M, N) and (N,), at least one "
            "of each"
        )
    for name, values in (("predictions", predictions_MN), ("targets", target_N)):
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(
                f"{bad} {name} are NaN or infinite: expected finite numbers; leave these rows out, or correct the model"
            )
    return predictions_MN, target_N


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors on all rows, (C,), and on bootstrap samples of the units, (D, C); every candidate on the same samples.

    Arguments and errors as in `Kind.draw_errors`; without `num_draws` 2,000 samples, or 200 for scikit-learn's scorers,
    which are asked again for each. Samples for which a scorer is not defined, such as those of one class, are left out.
    """
    predictions_CN, target_N = check_models(predictions_CN, target_N)
    unit_N, num_units = number_units(unit_N, len(target_N))
    num_draws = num_draws or (NUM_DRAWS if is_mean_of_rows(metric) else NUM_SCORER_DRAWS)
    counts_blocks = draw_counts(num_units, num_draws, seed)
    if not is_mean_of_rows(metric):
        whole = [measure_error(metric, target_N, prediction_N) for prediction_N in predictions_CN]
        samples = [_ask_again(metric, target_N, predictions_CN, c_U[unit_N]) for c_DU in counts_blocks for c_U in c_DU]
        drawn = [errors for errors in samples if errors]
        if not drawn:
            raise ValueError(f"{metric} is not defined for any of {num_draws} samples of these {len(target_N)} rows")
        return np.array(whole), np.array(drawn)
    errors_CN = [row_errors(metric, target_N, prediction_N) for prediction_N in predictions_CN]
    sums_UC = np.stack([np.bincount(unit_N, errors_N) for errors_N in errors_CN], axis=1)
    sizes_U1 = np.bincount(unit_N).astype(np.float64)[:, None]
    drawn_DC = np.concatenate([(c_DU @ sums_UC) / (c_DU @ sizes_U1) for c_DU in counts_blocks])
    mean_C: np.ndarray = sums_UC.sum(axis=0) / len(target_N)
    return finish(metric, mean_C), finish(metric, drawn_DC)


def _squared(target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    squared_N: np.ndarray = (prediction_N - target_N) ** 2
    return squared_N


def _squared_log(target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    return _squared(np.log1p(target_N), np.log1p(prediction_N))


def _absolute(target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    absolute_N: np.ndarray = np.abs(prediction_N - target_N)
    return absolute_N


def _cross_entropy(target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    """In nats; like scikit-learn's, no nearer to 0 and 1 than float64's resolution."""
    if ((prediction_N < 0) | (prediction_N > 1)).any() or not np.isin(target_N, (0, 1)).all():
        raise ValueError("log_loss needs probabilities from 0 to 1 and targets that are 0 or 1")
    least = np.finfo(np.float64).eps
    probability_N = np.clip(prediction_N, least, 1 - least)
    entropy_N: np.ndarray = -xlogy(target_N, probability_N) - xlog1py(1 - target_N, -probability_N)
    return entropy_N


_ROW_ERRORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "msle": _squared_log,
    "rmsle": _squared_log,
    "mse": _squared,
    "rmse": _squared,
    "mae": _absolute,
    "log_loss": _cross_entropy,
}


def _ask_scorer(name: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
    from sklearn.base import BaseEstimator, ClassifierMixin  # 1 s to import
    from sklearn.exceptions import UndefinedMetricWarning
    from sklearn.metrics import get_scorer

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
        """Predicts what it is asked with: a scorer wants a model."""

        classes_ = np.array([0, 1])

        def predict(self, given_N: np.ndarray) -> np.ndarray:
            return given_N

        def predict_proba(self, given_N: np.ndarray) -> np.ndarray:
            return np.column_stack([1 - given_N, given_N])

    check_metric(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # it is said below
        error = -float(get_scorer(name)(Given(), np.asarray(prediction_N), np.asarray(target_N)))
    if not np.isfinite(error):
        raise ValueError(f"{name} is not defined for these {len(target_N)} rows (only one class, or one row?)")
    return error


def _ask_again(metric: str, target_N: np.ndarray, predictions_CN: np.ndarray, counts_N: np.ndarray) -> list[float]:
    """Each prediction's error on a sample; empty where it is not defined."""
    rows = np.repeat(np.arange(len(target_N)), counts_N.astype(int))
    with suppress(ValueError):
        return [measure_error(metric, target_N[rows], prediction_N[rows]) for prediction_N in predictions_CN]
    return []
