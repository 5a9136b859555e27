"""The answers of a run's models to new questions become one table."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.answers.new_rows import AnswerCombiner
from ensemble.combination import Combination
from ensemble.predictions import PredictionError
from trainers.predictions import Answer, AnsweredQuestion, BlockAnswers

HOW = Combination("majority_vote", None, "accuracy")


class Predictor:
    """Gives what it was told."""

    def __init__(self, *models):
        self.models = models

    def predict(self, ids):
        answered = [
            [
                AnsweredQuestion(row_id, "?", "sum", None, "sft_grpo", Answer(f"so {said}", said, 1.0, None))
                for row_id, said in zip(ids, model, strict=True)
            ]
            for model in self.models
        ]
        return BlockAnswers(np.array(ids), answered, (("b", "was cut"),))


def test_fold_models_vote_and_each_is_shown_if_wanted():
    combiner = AnswerCombiner(HOW, None, ("fold_0", "fold_1", "fold_2"), 3, combines_folds=True)
    table = combiner.predict(Predictor("12", "13", "43"), ["a", "b"], shows_models=True)
    columns = combiner.list_columns("gold_answer", shows_models=True)
    assert columns == (
        "gold_answer",
        "agreement",
        "format",
        "text",
        "model_fold_0",
        "model_fold_1",
        "model_fold_2",
        "std",
    )
    named = dict(zip(("id", *columns, "problem"), (column.to_pylist() for column in table.columns), strict=True))
    assert (named["id"], named["gold_answer"], named["text"]) == (["a", "b"], ["1", "3"], ["so 1", "so 3"])
    assert named["agreement"] == pytest.approx([2 / 3, 2 / 3])
    assert named["std"] == pytest.approx([1 / 3, 1 / 3])
    assert (named["model_fold_2"], named["problem"]) == (["4", "3"], [None, "was cut"])


def test_members_vote_as_one_each():
    combiner = AnswerCombiner(HOW, (0.2, 0.8), ("main", "wide"), 2, combines_folds=False)
    table = combiner.predict(Predictor("1", "1", "2", "2"), ["a"], shows_models=False)
    assert table["1"].to_pylist() == ["2"]
    assert table.column_names == ["0", "1", "2", "3", "4", "problem"]


def test_answers_to_other_questions_are_refused():
    other = Predictor("1")
    answered = other.predict(["x"])
    other.predict = lambda ids: BlockAnswers(np.array(ids), answered.answered)
    with pytest.raises(PredictionError, match="other questions"):
        AnswerCombiner(HOW, None, ("fold_0",), 1, combines_folds=True).predict(other, ["a"], shows_models=False)
