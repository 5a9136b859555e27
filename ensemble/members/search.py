"""Choosing among many combinations without fooling oneself: which there are, how each is evaluated, and what the choice
is worth.

The best of many is lucky as well as good. So the choice is made once more inside each fold, on the other folds' rows
alone, and scored on the fold: that is the score of choosing. And a winner replaces the default only if the bound of its
improvement that holds for all candidates together is above 0.

Shape suffixes: C candidates, N rows with an out-of-fold prediction, F folds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.combination import Combination
from ensemble.config import Checkpoint
from ensemble.kinds import Kind
from ensemble.members.comparison import compare_with_baseline, rank
from ensemble.run import Columns, Evaluation

_MOST_SUBSETS = 256


@dataclass(frozen=True)
class Candidate:
    """Members, the checkpoint that predicts, and how they become one."""

    members: tuple[str, ...]
    checkpoint: Checkpoint
    how: Combination

    def __str__(self) -> str:
        return f"{self.how} of {'+'.join(self.members)}, {self.checkpoint}"


def list_candidates(
    names: Sequence[str],
    checkpoints: Sequence[Checkpoint],
    hows: Sequence[Combination],
    *,
    with_subsets: bool = True,
) -> list[Candidate]:
    """Every checkpoint, subset of the models and way to combine them; what comes to the same is there once.

    With more than 8 models not all subsets: all models, all but one, and each alone.
    """
    subsets = _list_subsets(tuple(names)) if with_subsets else [tuple(names)]
    candidates = []
    for members, checkpoint in itertools.product(subsets, checkpoints):
        different = [how for how in hows if how.differs(len(members))]
        candidates += [
            Candidate(members, checkpoint, how) for how in (different if len(members) > 1 else different[:1])
        ]
    return candidates


def _list_subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    if 2 ** len(names) <= _MOST_SUBSETS:
        sizes = range(len(names), 0, -1)
        return [subset for size in sizes for subset in itertools.combinations(names, size)]
    return [names, *itertools.combinations(names, len(names) - 1), *((name,) for name in names)]


@dataclass(frozen=True)
class Choice:
    """The outcome of a search.

    Attributes:
        error_C, low_C, high_C: each candidate's cross-fitted error with its own 95 % interval.
        improvement_C: how far it is below the default's error; improvement_low_C: the bound that holds for all together
            (95 %).
        winner: index of the candidate with the least error.
        default: index of the default.
        nested_error: error of the choice made inside each fold and scored on it: what to report.
        chosen_F: index of the candidate that was chosen inside each fold; the default where nothing comes before it in
            time.
        replaces: whether the winner is shown to be better than the default.
    """

    error_C: np.ndarray
    low_C: np.ndarray
    high_C: np.ndarray
    improvement_C: np.ndarray
    improvement_low_C: np.ndarray
    winner: int
    default: int
    nested_error: float
    chosen_F: list[int]
    replaces: bool


def choose(
    kind: Kind,
    evaluations: Sequence[Evaluation],
    default: int,
    columns: Columns,
    metric: str,
    *,
    num_draws: int | None = None,
) -> Choice:
    """Compares all candidates with the default (paired bootstrap over rows or groups, max statistic), and scores the
    choice."""
    cross_fitted_CN = np.stack([one.cross_fitted_N for one in evaluations])
    ranking = rank(kind, metric, columns.target_N, cross_fitted_CN, [default], columns.unit_N, num_draws=num_draws)
    improvements = compare_with_baseline(
        kind, metric, columns.target_N, cross_fitted_CN, cross_fitted_CN[default], columns.unit_N, num_draws=num_draws
    )
    inner_CF = np.stack([one.inner_F for one in evaluations])
    chosen_F = [default if np.isnan(inner_C).any() else int(inner_C.argmin()) for inner_C in inner_CF.T]
    nested_N = np.empty_like(cross_fitted_CN[default])
    for fold, chosen in zip(np.unique(columns.fold_N), chosen_F, strict=True):
        held_N = columns.fold_N == fold
        nested_N[held_N] = cross_fitted_CN[chosen, held_N]
    winner = int(ranking.error_C.argmin())
    return Choice(
        error_C=ranking.error_C,
        low_C=ranking.low_C,
        high_C=ranking.high_C,
        improvement_C=improvements.improvement_C,
        improvement_low_C=improvements.low_C,
        winner=winner,
        default=default,
        nested_error=kind.measure_error(metric, columns.target_N, nested_N),
        chosen_F=chosen_F,
        replaces=winner != default and bool(improvements.low_C[winner] > 0),
    )
