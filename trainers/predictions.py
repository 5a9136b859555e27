"""What trainers and predictors hand in, by kind of predictions: `docs/trainer-interface.md` says when. What these are
worth the kind says (`ensemble/kinds.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Predictions:
    """Predictions of one checkpoint for one set of rows.

    Attributes:
        ids: (n,) str.
        prediction: (n,) float64 in the target's own unit.
        prediction_z: (n,) float64 on the scale that the model was trained on.
        target: (n,) float64, NaN where there is none (test rows).
    """

    ids: np.ndarray
    prediction: np.ndarray
    prediction_z: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class ClassPredictions:
    """Class probabilities of one checkpoint for one set of rows (kind `classes`).

    Attributes:
        ids: (n,) str.
        probability_NC: (n, C) float64 from 0, those of a row adding up to 1.
        target: (n,) int, the number of the true class in `classes` from 0, -1 where there is none (test rows).
        classes: (C,) names, in the order of the probabilities; the same for all folds of a run.
    """

    ids: np.ndarray
    probability_NC: np.ndarray
    target: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question (kind `answers`).

    Attributes:
        text: all that it said.
        answer: the answer in it, in the form in which equal answers are equal; empty: there is none.
        format_score: 1, 1/2 or 0: how far the text has the form that is asked for.
        is_correct: whether it is right; None: the right answer is not known.
        judge_score: a judge's, from 0 to 1; None: it was not asked, or gave none.
    """

    text: str
    answer: str
    format_score: float
    is_correct: bool | None
    judge_score: float | None = None


@dataclass(frozen=True)
class AnsweredQuestion:
    """What a fold's model answers to one row (kind `answers`).

    Attributes:
        row_id: whose.
        question: the text that the model was asked.
        type: of the question, by which accuracies are shown.
        gold_answer: the right answer; None: unknown.
        model: what the model is called among those of the fold.
        answer: its likeliest answer.
        samples: answers drawn from it, of every row as many.
        before: the likeliest answers of the models that it came from, by their names, the first one first; empty: they
            were not asked.
        group: what no fold divides; None: the row stands alone.
        letters: of a multiple choice the probability of each letter; empty: not known.
    """

    row_id: str
    question: str
    type: str
    gold_answer: str | None
    model: str
    answer: Answer
    samples: tuple[Answer, ...] = ()
    before: Mapping[str, Answer] = field(default_factory=dict)
    group: str | None = None
    letters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DenoisingLosses:
    """What a generative model makes of rows with noise: S draws of each, at times and with noise that belong to the row
    (kind `samples`).

    Attributes:
        ids: (n,) str.
        time_NS: (n, S) float64 from 0, noise, to 1.
        loss_NS: (n, S) float64, losses.
        square_N: (n,) float64, mean square of each row's numbers: what predicting zero comes to, but for the time.
        error_NSP: (n, S, P) float16, errors at places that belong to the row, whose mean square is about the loss.
        process: what turns rows into noise: `noise_scale`, `time_mean`, `time_spread`, `clamp`.
        references: losses of others on the same, (n, S), by their names, such as `floor` and `memoriser`.
    """

    ids: np.ndarray
    time_NS: np.ndarray
    loss_NS: np.ndarray
    square_N: np.ndarray
    error_NSP: np.ndarray
    process: Mapping[str, float]
    references: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeSamples:
    """Pictures that a generative model has made of noise, the same noise in each fold (kind `samples`).

    Attributes:
        ids: (n,) str, the samples' numbers.
        labels: (n,) str, what they are to show; empty: anything.
        pictures: (n, 3, H, W) uint8.
        nearest: of `training` and of `held_out` pictures, equally many, each sample's nearest one: ids (n,), root mean
            square differences (n,) from 0 to 2, and pictures (n, 3, H, W).
        facts: JSON, what was measured of all samples of the fold.
    """

    ids: np.ndarray
    labels: np.ndarray
    pictures: np.ndarray
    nearest: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class PredictedMap:
    """What a model predicts for the places of one row.

    Attributes:
        row_id: whose.
        probability_CHW: (C, H, W) float32 from 0 to 1: with C = 1 that a place is foreground, else of each class.
        target_HW: (H, W) uint8, the true class of each place, 255 where it counts nowhere; None: unknown.
    """

    row_id: str
    probability_CHW: np.ndarray
    target_HW: np.ndarray | None


@dataclass(frozen=True)
class TokenLosses:
    """What one checkpoint says of the tokens of n documents (kind `token_losses`).

    Attributes:
        ids: (n,) str.
        tokens: of each document, those that were predicted: its own and the end after it, (n,) int.
        nats: the loss of each of these tokens, documents one after the other, (sum of tokens,) float32.
        bytes: of each document, (n,) int; an end has none.
        floor: the entropy of each in nats, (n,) float64, NaN where it is not known.
        baseline: nats of each by the shares that tokens have in the training documents, (n,) float64.
        window, stride: tokens that the model saw at most, and by how many the next window was further.
    """

    ids: np.ndarray
    tokens: np.ndarray
    nats: np.ndarray
    bytes: np.ndarray
    floor: np.ndarray
    baseline: np.ndarray
    window: int
    stride: int


@dataclass(frozen=True)
class BlockPredictions:
    """What M models predict for the n rows of a block.

    Attributes:
        ids: (n,) str.
        prediction: (M, n) float64 in the target's own unit, in the order of the models; of classes (M, n, C)
            probabilities.
        problems: id and problem of what of a row could not be used, and was replaced.
    """

    ids: np.ndarray
    prediction: np.ndarray
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class NewTokenLosses:
    """What M models say of the tokens of the n documents of a block.

    Attributes:
        ids: (n,) str.
        tokens, bytes: of each document, (n,) int, as in `TokenLosses`.
        nats: (M, sum of tokens) float32.
        problems: id and problem of what of a document could not be used.
    """

    ids: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    nats: np.ndarray
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BlockAnswers:
    """What M models answer to the n rows of a block.

    Attributes:
        ids: (n,) str.
        answered: of each model its answers, in the order of the rows.
        problems: as in `BlockPredictions`.
    """

    ids: np.ndarray
    answered: Sequence[Sequence[AnsweredQuestion]]
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NewMap:
    """What M models predict for the places of a new row.

    Attributes:
        row_id: whose; it names files.
        probability_MCHW: (M, C, H, W) float32, as in `PredictedMap`.
        target_HW: the true classes; None: unknown.
        background_HW3: (H, W, 3) uint8, what the map lies over.
        problem: what of the row could not be used; empty: nothing.
    """

    row_id: str
    probability_MCHW: np.ndarray
    target_HW: np.ndarray | None
    background_HW3: np.ndarray
    problem: str = ""


@dataclass(frozen=True)
class NewLosses:
    """What M generative models make of the n rows of a block, see `DenoisingLosses`.

    Attributes:
        ids: (n,) str.
        prediction: (M, n, S) losses, in the order of the models.
        combined: (n, S) losses of the mean of what they predict.
        problems: id and problem of what of a row could not be used.
    """

    ids: np.ndarray
    prediction: np.ndarray
    combined: np.ndarray
    problems: tuple[tuple[str, str], ...] = ()
