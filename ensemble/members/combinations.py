"""Combining members: models that each have one out-of-fold prediction of every row, made on the same folds.

What a combination is scored by is always honest: weights that are fitted are fitted again without each fold and predict that
fold. A leak of the second level remains, see `predict_honestly`.

Shape suffixes: M members, N rows with an out-of-fold prediction, T test rows, C combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.config import FITTED_METHODS, METHODS, SPACES, EnsembleConfig, Space
from ensemble.members.comparison import draw_errors
from ensemble.numbers.combine import combine, normalise_weights, weights_from_scores
from ensemble.numbers.fitting import FittedCombination, fit
from ensemble.numbers.metrics import is_mean_of_rows, measure_error


@dataclass(frozen=True)
class Columns:
    """Out-of-fold predictions of M members, row by row.

    Attributes:
        names: (M,) of the members.
        ids_N: str.
        fold_N: the fold that validated each row, from 0.
        target_N: the true values.
        oof_MN: predictions in the target's unit.
        unit_N: rows of one unit (a group that no fold divides) are drawn together when a score's interval is estimated; None:
            each row is one.
        is_ordered: the folds follow each other in time: nothing is learned from later ones.
    """

    names: tuple[str, ...]
    ids_N: np.ndarray
    fold_N: np.ndarray
    target_N: np.ndarray
    oof_MN: np.ndarray
    unit_N: np.ndarray | None = None
    is_ordered: bool = False

    def take(self, names: Sequence[str]) -> Columns:
        """Those of some members."""
        return replace(self, names=tuple(names), oof_MN=self.oof_MN[[self.names.index(name) for name in names]])

    def keep(self, rows_N: np.ndarray) -> Columns:
        """Those of some rows."""
        return replace(
            self,
            ids_N=self.ids_N[rows_N],
            fold_N=self.fold_N[rows_N],
            target_N=self.target_N[rows_N],
            oof_MN=self.oof_MN[:, rows_N],
            unit_N=None if self.unit_N is None else self.unit_N[rows_N],
        )

    def others(self, fold: int) -> np.ndarray:
        """(N,) bool: from which rows may be learned what is scored on a fold; none before the first of folds in time."""
        return self.fold_N < fold if self.is_ordered else self.fold_N != fold


@dataclass(frozen=True)
class Combination:
    """How members become one; the fields are those of `EnsembleConfig`."""

    method: str
    space: Space = "z"
    metric: str = "msle"
    trim: float = 0.2
    weights: tuple[float, ...] | None = None
    weight_power: float = 1.0

    @classmethod
    def from_config(cls, config: EnsembleConfig) -> Combination:
        """What the `ensemble` section says."""
        how = cls(config.method, config.space, config.metric)
        if config.method == "trimmed_mean":
            return replace(how, trim=config.trim)
        if config.method == "weighted_mean":
            return replace(how, weights=config.weights, weight_power=1.0 if config.weights else config.weight_power)
        return how

    def __str__(self) -> str:
        given = "" if self.weights is None else f" {'/'.join(f'{weight:g}' for weight in self.weights)}"
        trim = f" {self.trim:g}" if self.method == "trimmed_mean" else ""
        power = f" power {self.weight_power:g}" if self.weight_power != 1 else ""
        return f"{self.method}{trim}{power}{given}, {self.space} space"

    @property
    def is_fitted(self) -> bool:
        """Whether something of it is learned from the members' predictions of the rows that score it."""
        return self.method in FITTED_METHODS or (self.method == "weighted_mean" and self.weights is None)


def list_combinations(
    spaces: Sequence[Space] = SPACES,
    metric: str = "msle",
    trims: Sequence[float] = (0.2,),
    weight_powers: Sequence[float] = (1.0,),
) -> list[Combination]:
    """Every method in every space; of the trimmed mean one for each share, of the weighted mean by score one for each power, but none
    where the metric is a scorer, whose errors may be negative."""
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


def predict_honestly(how: Combination, columns: Columns) -> np.ndarray:
    """Each row's combined prediction, (N,), by weights that were fitted on the other folds' rows if any are: what to score a
    combination by. Of folds in time these are the earlier ones; for the first the members weigh the same.

    A leak of the second level remains, but for folds in time: the out-of-fold predictions of the other folds' rows, to which the
    weights are fitted, come from base models that were trained on this fold's rows. Only nested cross-validation, which trains
    every base model again within each outer fold, or a blend set is without it; with few weights on many rows it is small.

    Raises:
        ValueError: fewer than two folds, or as `combine` and `fit`.
    """
    if not how.is_fitted:
        return settle(how, columns).predict(columns.oof_MN)
    folds, honest_N = np.unique(columns.fold_N), np.empty(len(columns.target_N))
    if len(folds) < 2:
        raise ValueError(f"{len(folds)} fold: expected at least 2, as weights are fitted on others")
    for fold in folds:
        held_N, other_N = columns.fold_N == fold, columns.others(fold)
        plain = Combination("mean", how.space)
        settled = settle(how, columns.keep(other_N)) if other_N.any() else Settled(plain)
        honest_N[held_N] = settled.predict(columns.oof_MN[:, held_N])
    return honest_N


@dataclass(frozen=True)
class Settled:
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
        return combine(predictions_MT, self.how.method, self.how.space, self.weights_M, self.how.trim)


def settle(how: Combination, columns: Columns) -> Settled:
    """The combination with weights that are fitted, if any are, to all out-of-fold predictions.

    Raises:
        ValueError: as `fit`.
    """
    if how.method in FITTED_METHODS:
        fitted = fit(how.method, columns.oof_MN, columns.target_N, how.metric, how.space)
        return Settled(how, fitted.weights_M, fitted)
    if how.weights is not None:
        return Settled(how, normalise_weights(how.weights, len(columns.names)))
    return Settled(how, _weigh(how, columns.oof_MN, columns.target_N) if how.is_fitted else None)


def _weigh(how: Combination, oof_MN: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    """Weights in inverse proportion to each member's error.

    Raises:
        ValueError: an error is negative, as the negative of a scorer's value is.
    """
    errors_M = np.array([measure_error(how.metric, target_N, oof_N) for oof_N in oof_MN])
    return weights_from_scores(errors_M, how.weight_power)


@dataclass(frozen=True)
class Ranking:
    """Errors of C predictions of the same rows, with intervals, and what each differs from the reference by.

    Attributes:
        error_C, low_C, high_C: lower is better.
        difference_C, difference_low_C, difference_high_C: error minus the reference's on the same drawn rows; an interval below 0:
            better than the reference.
        reference: index of the reference among the C.
    """

    error_C: np.ndarray
    low_C: np.ndarray
    high_C: np.ndarray
    difference_C: np.ndarray
    difference_low_C: np.ndarray
    difference_high_C: np.ndarray
    reference: int

    def describe(self, index: int) -> dict[str, float]:
        """`error`, `low`, `high`, `difference`, `difference_low`, `difference_high` of one of the C."""
        names = ("error", "low", "high", "difference", "difference_low", "difference_high")
        return {name: float(getattr(self, f"{name}_C")[index]) for name in names}


def rank(
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    references: Sequence[int],
    unit_N: np.ndarray | None = None,
    *,
    level: float = 0.95,
    num_draws: int | None = None,
) -> Ranking:
    """Compares predictions with the best of the references by a paired percentile bootstrap (see `comparison`).

    The intervals are of each comparison alone. Who picks the best of many by them picks a lucky one: `compare_with_baseline`
    has bounds that hold for all together.

    Args:
        metric: a name that `measure_error` knows.
        target_N: the true values.
        predictions_CN: in the target's unit.
        references: indices among the C; the one with the least error is the reference.
        unit_N, level, num_draws: as in `compare_pair`.
    """
    error_C, drawn_DC = draw_errors(metric, target_N, predictions_CN, unit_N, num_draws)
    reference = min(references, key=lambda index: error_C[index])
    ends = [(1 - level) / 2, (1 + level) / 2]
    low_C, high_C = np.quantile(drawn_DC, ends, axis=0)
    difference_low_C, difference_high_C = np.quantile(drawn_DC - drawn_DC[:, [reference]], ends, axis=0)
    return Ranking(error_C, low_C, high_C, error_C - error_C[reference], difference_low_C, difference_high_C, reference)
