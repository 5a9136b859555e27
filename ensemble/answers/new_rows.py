"""New questions: how the models' answers become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ensemble.answers.columns import read_columns
from ensemble.answers.files import build_answer_table
from ensemble.answers.submission import choose_weights, measure_disagreement
from ensemble.answers.votes import elect, merge_ballots, read_ballot
from ensemble.combination import Combination
from ensemble.predictions import PredictionError
from ensemble.run import Run


@dataclass(frozen=True)
class AnswerCombiner:
    """How the answers of a run's models become one.

    Attributes:
        how: the combination that its submission has.
        weights: of what is combined; None: all the same.
        names: of it: `fold_0`, or the members.
        num_folds: fold models of each member, one after the other.
        combines_folds: whether fold models vote, or members.
    """

    how: Combination
    weights: tuple[float, ...] | None
    names: tuple[str, ...]
    num_folds: int
    combines_folds: bool

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `predict` gives, but for the id."""
        models = (*(f"model_{name}" for name in self.names), "std") if shows_models else ()
        return (target, "agreement", "format", "text", *models)

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """Of each question the answer that is elected; see `ensemble.run.Combiner`."""
        found = predictor.predict(block)
        ids = found.ids.tolist()
        if any([one.row_id for one in own] != ids for own in found.answered):
            raise PredictionError("a model has answered other questions than those that were asked")
        stacked = [
            [read_ballot(line) for line in build_answer_table(own, fold=0, checkpoint="best").to_pylist()]
            for own in found.answered
        ]
        voters = stacked if self.combines_folds else self._merge(stacked)
        elected = [elect(list(row), self.how.method, self.weights) for row in zip(*voters, strict=True)]
        values = [
            pa.array([one.vote.answer for one in elected], pa.string()),
            pa.array([one.share for one in elected]),
            pa.array([one.vote.format for one in elected]),
            pa.array([one.vote.text for one in elected], pa.string()),
        ]
        if shows_models:
            values += [pa.array([one.likeliest.answer for one in own], pa.string()) for own in voters]
            values.append(pa.array([measure_disagreement(one) for one in elected]))
        problems = dict(found.problems)
        told = pa.array([problems.get(row_id) for row_id in ids], pa.string())
        names = [*map(str, range(1 + len(values))), "problem"]
        return pa.table([pa.array(ids, pa.string()), *values, told], names=names)

    def _merge(self, stacked: list[list[Any]]) -> list[list[Any]]:
        parts = [stacked[start : start + self.num_folds] for start in range(0, len(stacked), self.num_folds)]
        return [[merge_ballots(list(row)) for row in zip(*part, strict=True)] for part in parts]


def build_combiner(run: Run, how: Combination, read_scores: Callable[[], Mapping[str, Any]]) -> AnswerCombiner:
    """The run's combination with the weights that its submission has; arguments as in `Kind.build_combiner`."""
    weights = choose_weights(run, how, run.read_unseen(read_columns), read_scores)
    kept = None if weights is None else tuple(weights)
    return AnswerCombiner(how, kept, run.model_names, run.num_folds, run.combines_folds)
