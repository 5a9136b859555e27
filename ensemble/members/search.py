"""Choosing among many combinations without fooling oneself: which there are, how each is evaluated, and what the choice
is worth.

The best of many is lucky as well as good. So the choice is made once more inside each fold, on the other folds' rows
alone, and scored on the fold: that is the score of choosing. And a winner replaces the default only if the bound of its
improvement that holds for all candidates together is above 0.

Shape suffixes: C candidates, N rows with an out-of-fold prediction, F folds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensemble.combination import Combination
from ensemble.config import Checkpoint
from ensemble.kinds import Kind
from ensemble.members.comparison import bound_improvements, rank_drawn
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


@dataclass(frozen=True)
class Scored:
    """What is known of candidates without their predictions: memory does not grow with the rows.

    Attributes:
        error_C: each one's cross-fitted error.
        drawn_DC: on bootstrap samples, the same of all candidates.
        inner_CF: see `Evaluation`.
    """

    error_C: np.ndarray
    drawn_DC: np.ndarray
    inner_CF: np.ndarray


def score_candidates(
    kind: Kind, evaluations: Sequence[Evaluation], columns: Columns, metric: str, num_draws: int | None = None
) -> Scored:
    """Measures candidates, all or some of them (paired bootstrap over rows or groups)."""
    cross_fitted_CN = np.stack([one.cross_fitted_N for one in evaluations])
    drawn = kind.draw_errors(metric, columns.target_N, cross_fitted_CN, columns.unit_N, num_draws)
    return Scored(*drawn, np.stack([one.inner_F for one in evaluations]))


def choose(
    kind: Kind,
    evaluations: Sequence[Evaluation],
    default: int,
    columns: Columns,
    metric: str,
    *,
    num_draws: int | None = None,
) -> Choice:
    """As `choose_scored`, of a few candidates whose predictions fit into memory."""
    scored = score_candidates(kind, evaluations, columns, metric, num_draws)
    return choose_scored(kind, scored, default, columns, metric, lambda index: evaluations[index].cross_fitted_N)


def choose_scored(
    kind: Kind, scored: Scored, default: int, columns: Columns, metric: str, predict: Callable[[int], np.ndarray]
) -> Choice:
    """Compares all candidates with the default (max statistic), and scores the choice.

    Args:
        kind: of the predictions.
        scored: all candidates.
        default: index of the one that a winner has to beat.
        columns: the rows.
        metric: by which.
        predict: gives the cross-fitted predictions of a candidate, (N,); asked for those that are chosen in a fold.
    """
    error_C, drawn_DC, default_error = scored.error_C, scored.drawn_DC, float(scored.error_C[default])
    ranking = rank_drawn(error_C, drawn_DC, [default])
    improvements = bound_improvements(error_C, drawn_DC, default_error, drawn_DC[:, default])
    chosen_F = [default if np.isnan(inner_C).any() else int(inner_C.argmin()) for inner_C in scored.inner_CF.T]
    folds = list(zip(np.unique(columns.fold_N).tolist(), chosen_F, strict=True))
    nested_N = np.empty_like(predict(default))
    for chosen in dict.fromkeys(chosen_F):
        held_N = np.isin(columns.fold_N, [fold for fold, one in folds if one == chosen])
        nested_N[held_N] = predict(chosen)[held_N]
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
