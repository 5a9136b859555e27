"""Reads what is combined in a run, row by row: what its members answer out of fold, or what the fold models of its only
member answer to the blend set; and to the test rows.

Shape suffixes: M models, N rows, T test rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ensemble.answers.files import read_answer_table, split_kept
from ensemble.answers.scores import measure_error
from ensemble.answers.votes import Ballot, elect, merge_ballots, read_ballot
from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.predictions import match_rows
from ensemble.run import Combinable, Evaluation, Run


@dataclass(frozen=True)
class AnswerColumns(Combinable):
    """Answers of M models: `oof_MN` is whether each is right and of the whole form, (M, N, 2).

    Attributes:
        ballots: of each model, of each row.
    """

    ballots: tuple[tuple[Ballot, ...], ...] = ()

    def take(self, names: Sequence[str]) -> AnswerColumns:
        """Those of some models."""
        places = [self.names.index(name) for name in names]
        ballots = tuple(self.ballots[place] for place in places)
        return replace(self, names=tuple(names), oof_MN=self.oof_MN[places], ballots=ballots)

    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination whether each row is right and of the form, (N, 2), by weights of other folds' rows."""
        everything = np.ones(len(self.ids_N), bool)
        return [self._predict(how, everything) for how in hows]

    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to."""
        return [self.take(names)._evaluate(how) for names, how in candidates]

    def _evaluate(self, how: Combination) -> Evaluation:
        whole_N, inner = self._predict(how, np.ones(len(self.ids_N), bool)), []
        for fold in np.unique(self.fold_N):
            rest_N = self.others(fold)
            inner_N = self._predict(how, rest_N)[rest_N] if rest_N.any() else None
            inner.append(np.nan if inner_N is None else measure_error(how.metric, self.target_N[rest_N], inner_N))
        return Evaluation(whole_N, np.array(inner))

    def _predict(self, how: Combination, known_N: np.ndarray) -> np.ndarray:
        """What is elected of each known row, NaN elsewhere; weights of a fold's rows are from other folds' known
        rows."""
        predicted_N = np.full((len(self.ids_N), 2), np.nan)
        for fold in np.unique(self.fold_N[known_N]):
            learned_N = self.others(fold) & known_N
            weights_M = (
                weigh(how, self.target_N, self.oof_MN, learned_N) if learned_N.any() or not how.is_fitted else None
            )
            for row in np.flatnonzero((self.fold_N == fold) & known_N).tolist():
                found = elect([own[row] for own in self.ballots], how.method, weights_M)
                predicted_N[row] = found.vote.correct, found.vote.format
        return predicted_N

    def sum_up(self) -> str:
        """A checksum of all votes and of their order."""
        digest = hashlib.sha256(f"{self.is_ordered}{self.names}{self.ids_N.tolist()}{self.fold_N.tolist()}".encode())
        digest.update(repr(self.ballots).encode())
        return digest.hexdigest()


def weigh(
    how: Combination, target_N: np.ndarray, oof_MN: np.ndarray, learned_N: np.ndarray | None = None
) -> list[float] | None:
    """The models' weights: as given, or in inverse proportion to a power of their errors on some rows; None: a method
    without.

    Args:
        how: to combine them.
        target_N, oof_MN: as columns have them.
        learned_N: the rows that may be learned from; None: all.
    """
    if how.method != "weighted_mean":
        return None
    if how.weights is not None:
        given: list[float] = normalise_weights(how.weights, len(oof_MN)).tolist()
        return given
    rows = np.ones(len(target_N), bool) if learned_N is None else learned_N
    errors_M = np.array([measure_error(how.metric, target_N[rows], one_N[rows]) for one_N in oof_MN])
    weights: list[float] = weights_from_scores(errors_M, how.weight_power).tolist()
    return weights


def stack_ballots(tables: Sequence[pa.Table]) -> tuple[np.ndarray, list[list[Ballot]]]:
    """Ids of the first table, (N,), and the votes of each model in their order.

    Raises:
        PredictionError: the tables do not hold the same ids.
    """
    stacked = []
    for table, places in zip(tables, match_rows(tables), strict=True):
        own = [read_ballot(line) for line in table.to_pylist()]
        order = np.argsort(places)
        stacked.append([own[place] for place in order.tolist()])
    return np.array(tables[0]["id"].to_pylist()), stacked


def read_columns(run: Run, checkpoint: str) -> AnswerColumns:
    """Out of fold, of the members that are combined; with one member, of the blend set by each of its fold models.

    Raises:
        PredictionError: there is no blend set, or files do not belong together.
    """
    if run.combines_folds:
        return _read_blend(run, checkpoint)
    tables = [
        pa.concat_tables(read_answer_table(fold.predictions("validation", checkpoint)) for fold in folds)
        for folds in run.members.values()
    ]
    has_folds = run.num_folds > 1
    fold_N = tables[0]["fold"].to_numpy() if has_folds else run.divide(np.array(tables[0]["id"].to_pylist()))
    return _build(run, tables, tuple(run.members), fold_N, is_ordered=has_folds and run.is_ordered)


def _read_blend(run: Run, checkpoint: str) -> AnswerColumns:
    folds = run.find_blend_models()
    tables = [read_answer_table(fold.predictions("blend", checkpoint)) for fold in folds]
    return _build(run, tables, run.model_names, run.divide(np.array(tables[0]["id"].to_pylist())), is_ordered=False)


def _build(
    run: Run, tables: Sequence[pa.Table], names: tuple[str, ...], fold_N: np.ndarray, *, is_ordered: bool
) -> AnswerColumns:
    ids_N, stacked = stack_ballots(tables)
    target_N, _ = split_kept(tables[0])
    kept_MN = np.array([[(one.likeliest.correct, one.likeliest.format) for one in own] for own in stacked], np.float64)
    ballots = tuple(map(tuple, stacked))
    return AnswerColumns(names, ids_N, fold_N, target_N, kept_MN, run.find_units(ids_N), is_ordered, ballots)


def read_test(run: Run) -> tuple[pa.Table, list[list[Ballot]]] | None:
    """What is combined, of the test rows: the first model's table, and the votes of each; a member's fold models are
    one voter. None without test rows.

    Raises:
        PredictionError: files do not belong together.
    """
    members = [[fold.predictions("test", run.ensemble.checkpoint) for fold in folds] for folds in run.members.values()]
    if not members[0][0].exists():
        return None
    tables = [[read_answer_table(path) for path in paths] for paths in members]
    _, stacked = stack_ballots([table for own in tables for table in own])
    if run.combines_folds:
        return tables[0][0], stacked
    starts = np.cumsum([0, *map(len, tables)]).tolist()
    voters = [
        [merge_ballots(list(row)) for row in zip(*stacked[start:end], strict=True)] for start, end in pairwise(starts)
    ]
    return tables[0][0], voters
