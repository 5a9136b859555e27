"""Is one combination better than another, or only luckier? Paired bootstrap over rows, ids or groups.

All predictions are scored on the same drawn rows, so that what makes a row hard for everybody cancels.

Shape suffixes: C candidates, N rows, U units that are drawn whole (rows, ids or groups), D draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ensemble.numbers.metrics import check_models, finish, is_mean_of_rows, measure_error, row_errors

NUM_DRAWS, NUM_SCORER_DRAWS = 2000, 200
_BLOCK_VALUES = 2**20


@dataclass(frozen=True)
class Difference:
    """Error of the first prediction minus that of the second (below 0: the first is better), and its interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Improvements:
    """How much lower than the baseline's each candidate's error is, (C,), and lower bounds that hold for all at once."""

    improvement_C: np.ndarray
    low_C: np.ndarray


def compare_pair(
    metric: str,
    target_N: np.ndarray,
    first_N: np.ndarray,
    second_N: np.ndarray,
    unit_N: np.ndarray | None = None,
    *,
    level: float = 0.95,
    num_draws: int | None = None,
    seed: int = 0,
) -> Difference:
    """The difference of two errors with a two-sided percentile interval (Efron and Tibshirani 1993, "An Introduction to
    the Bootstrap", chapter 13).

    Args:
        metric: a name that `measure_error` knows.
        target_N: the true values.
        first_N, second_N: predictions in the target's unit.
        unit_N: what a row belongs to: its id where rows are repeated, or its group; None: each row is drawn by itself.
        level: of the interval.
        num_draws: bootstrap samples; None: 2,000, or 200 for scikit-learn's scorers, which are asked again for each.
        seed: the same seed draws the same rows.

    Raises:
        ValueError: values that do not fit together or are not finite; fewer than two units; an unknown metric.
    """
    errors_C, drawn_DC = draw_errors(metric, target_N, np.stack([first_N, second_N]), unit_N, num_draws, seed)
    low, high = np.quantile(drawn_DC[:, 0] - drawn_DC[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(errors_C[0] - errors_C[1]), float(low), float(high))


def compare_with_baseline(
    metric: str,
    target_N: np.ndarray,
    candidates_CN: np.ndarray,
    baseline_N: np.ndarray,
    unit_N: np.ndarray | None = None,
    *,
    level: float = 0.95,
    num_draws: int | None = None,
    seed: int = 0,
) -> Improvements:
    """How far each of many candidates is below a baseline's error, with one-sided bounds that hold for all of them together.

    The bound is the improvement less q of its bootstrap standard deviations, q being the `level` quantile over the draws of the
    largest standardised deviation of any candidate (the max statistic; White 2000, "A Reality Check for Data Snooping",
    https://doi.org/10.1111/1468-0262.00152, studentised as in Romano and Wolf 2005, https://doi.org/10.1111/j.1468-0262.2005.00615.x).
    So with probability of about `level` no candidate's true improvement is below its bound: the best of many that are equally
    good has a bound above 0 no more often than 1 - level. Arguments as in `compare_pair`.
    """
    everyone = np.concatenate([np.asarray(baseline_N)[None], candidates_CN])
    errors_C, drawn_DC = draw_errors(metric, target_N, everyone, unit_N, num_draws, seed)
    improvement_C, drawn_DC = errors_C[0] - errors_C[1:], drawn_DC[:, :1] - drawn_DC[:, 1:]
    deviation_C = drawn_DC.std(axis=0)
    varies_C = deviation_C > 1e-12 * np.maximum(abs(errors_C[0]), np.abs(errors_C[1:]))  # more than rounding
    standard_DC = (drawn_DC - improvement_C)[:, varies_C] / deviation_C[varies_C]
    largest = np.quantile(standard_DC.max(axis=1), level) if varies_C.any() else 0.0
    return Improvements(improvement_C, improvement_C - largest * deviation_C)


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors on all rows, (C,), and on bootstrap samples of the units, (D, C); every candidate on the same samples.

    Samples for which a scorer is not defined, such as those of one class, are left out. Arguments and errors as in `compare_pair`.
    """
    predictions_CN, target_N = check_models(predictions_CN, target_N)
    unit_N = np.arange(len(target_N)) if unit_N is None else np.unique(unit_N, return_inverse=True)[1].ravel()
    num_units = int(unit_N.max()) + 1
    if len(unit_N) != len(target_N) or num_units < 2:
        raise ValueError(
            f"{len(unit_N)} units of {num_units} kinds for {len(target_N)} rows: expected one each, at least 2 kinds"
        )
    num_draws = num_draws or (NUM_DRAWS if is_mean_of_rows(metric) else NUM_SCORER_DRAWS)
    counts_blocks = _draw_counts(num_units, num_draws, seed)
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


def _draw_counts(num_units: int, num_draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn in each sample: blocks (d, U) float64."""
    rng, height = np.random.default_rng(seed), max(1, _BLOCK_VALUES // num_units)
    for start in range(0, num_draws, height):
        num = min(height, num_draws - start)
        places = rng.integers(num_units, size=(num, num_units)) + num_units * np.arange(num)[:, None]
        yield np.bincount(places.ravel(), minlength=num * num_units).reshape(num, num_units).astype(np.float64)


def _ask_again(metric: str, target_N: np.ndarray, predictions_CN: np.ndarray, counts_N: np.ndarray) -> list[float]:
    """Each prediction's error on a sample; empty where it is not defined."""
    rows = np.repeat(np.arange(len(target_N)), counts_N.astype(int))
    with suppress(ValueError):
        return [measure_error(metric, target_N[rows], prediction_N[rows]) for prediction_N in predictions_CN]
    return []
