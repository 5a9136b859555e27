"""Choosing among many combinations without fooling oneself: which there are, how each is evaluated, and what the choice is worth.

The best of many is lucky as well as good. So the choice is made once more inside each fold, on the other folds' rows alone, and
scored on the fold: that is the score of choosing. And a winner replaces the default only if the bound of its improvement
that holds for all candidates together is above 0.

Shape suffixes: C candidates, N rows with an out-of-fold prediction, F folds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensemble.config import Checkpoint, Space
from ensemble.members.combinations import Columns, Combination, list_combinations, predict_honestly, rank
from ensemble.members.comparison import compare_with_baseline
from ensemble.numbers.metrics import measure_error

_MOST_SUBSETS = 256
TRIMS, WEIGHT_POWERS = (0.1, 0.2, 0.3), (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Candidate:
    """Members, the checkpoint that predicts, and how they become one."""

    members: tuple[str, ...]
    checkpoint: Checkpoint
    how: Combination

    def __str__(self) -> str:
        return f"{self.how} of {'+'.join(self.members)}, {self.checkpoint}"


@dataclass(frozen=True)
class Evaluation:
    """What one candidate comes to.

    Attributes:
        honest_N: each row's prediction by weights that were fitted without the row's fold.
        inner_F: for each fold the error on all other rows (of folds in time: earlier ones), by weights fitted without it: what the choice
            inside a fold sees. NaN where there are none.
    """

    honest_N: np.ndarray
    inner_F: np.ndarray


def list_candidates(
    names: Sequence[str],
    checkpoints: Sequence[Checkpoint],
    spaces: Sequence[Space],
    metric: str,
    *,
    with_subsets: bool = True,
) -> list[Candidate]:
    """Every method, space, checkpoint, subset of the members and weight parameter; what comes to the same is there once.

    With more than 8 members not all subsets: all members, all but one, and each alone.
    """
    subsets = _list_subsets(tuple(names)) if with_subsets else [tuple(names)]
    candidates = []
    for members, checkpoint in itertools.product(subsets, checkpoints):
        hows = [h for h in list_combinations(spaces, metric, TRIMS, WEIGHT_POWERS) if _differs(h, len(members))]
        candidates += [Candidate(members, checkpoint, how) for how in (hows if len(members) > 1 else hows[:1])]
    return candidates


def _list_subsets(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    if 2 ** len(names) <= _MOST_SUBSETS:
        sizes = range(len(names), 0, -1)
        return [subset for size in sizes for subset in itertools.combinations(names, size)]
    return [names, *itertools.combinations(names, len(names) - 1), *((name,) for name in names)]


def _differs(how: Combination, num_members: int) -> bool:
    """Whether no simpler method gives the same."""
    if how.method == "trimmed_mean":
        return int(how.trim * num_members) > 0
    if how.method == "geometric_mean":
        return how.space == "raw"
    return how.method != "median" or num_members > 2


def evaluate(candidate: Candidate, columns: Columns) -> Evaluation:
    """Evaluates one candidate on the out-of-fold columns of its checkpoint."""
    own, how = columns.take(candidate.members), candidate.how
    honest_N = predict_honestly(how, own)
    inner = []
    for fold in np.unique(own.fold_N):
        rest_N = own.others(fold)
        if not rest_N.any():
            inner.append(np.nan)
            continue
        inner_N = honest_N[rest_N] if not how.is_fitted else predict_honestly(how, _keep(own, rest_N))
        inner.append(measure_error(how.metric, own.target_N[rest_N], inner_N))
    return Evaluation(honest_N, np.array(inner))


def _keep(columns: Columns, rows_N: np.ndarray) -> Columns:
    """Some rows; those of a single fold are divided in two, so that weights can be fitted on one half and tried on the other."""
    kept = columns.keep(rows_N)
    if len(np.unique(kept.fold_N)) > 1:
        return kept
    return replace(kept, fold_N=np.random.default_rng(0).permutation(len(kept.fold_N)) % 2, is_ordered=False)


@dataclass(frozen=True)
class Choice:
    """The outcome of a search.

    Attributes:
        error_C, low_C, high_C: each candidate's honest error with its own 95 % interval.
        improvement_C: how far it is below the default's error; improvement_low_C: the bound that holds for all together (95 %).
        winner: index of the candidate with the least error.
        default: index of the default.
        nested_error: error of the choice made inside each fold and scored on it: what to report.
        chosen_F: index of the candidate that was chosen inside each fold; the default where nothing comes before it in time.
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
    evaluations: Sequence[Evaluation], default: int, columns: Columns, metric: str, *, num_draws: int | None = None
) -> Choice:
    """Compares all candidates with the default (paired bootstrap over rows or groups, max statistic), and scores the choice."""
    honest_CN = np.stack([one.honest_N for one in evaluations])
    ranking = rank(metric, columns.target_N, honest_CN, [default], columns.unit_N, num_draws=num_draws)
    improvements = compare_with_baseline(
        metric, columns.target_N, honest_CN, honest_CN[default], columns.unit_N, num_draws=num_draws
    )
    inner_CF = np.stack([one.inner_F for one in evaluations])
    chosen_F = [default if np.isnan(inner_C).any() else int(inner_C.argmin()) for inner_C in inner_CF.T]
    nested_N = np.empty(len(columns.target_N))
    for fold, chosen in zip(np.unique(columns.fold_N), chosen_F, strict=True):
        held_N = columns.fold_N == fold
        nested_N[held_N] = honest_CN[chosen, held_N]
    winner = int(ranking.error_C.argmin())
    return Choice(
        error_C=ranking.error_C,
        low_C=ranking.low_C,
        high_C=ranking.high_C,
        improvement_C=improvements.improvement_C,
        improvement_low_C=improvements.low_C,
        winner=winner,
        default=default,
        nested_error=measure_error(metric, columns.target_N, nested_N),
        chosen_F=chosen_F,
        replaces=winner != default and bool(improvements.low_C[winner] > 0),
    )
