"""Several models' answers to a question become one: each gives votes, and the answer with the most is taken.

| method           | votes of a model |
|---|---|
| majority_vote    | one for its likeliest answer |
| self_consistency | one shared among its samples (Wang et al. 2022, https://arxiv.org/abs/2203.11171) |
| mean             | of a multiple choice the probability of each letter, else as self_consistency |
| weighted_mean    | as majority_vote, times the model's weight |

A model without samples votes by its likeliest answer. Of a tie the answer that the first of the models gives wins. What
was elected is as right as the model says that gave it first; nothing is marked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METHODS = ("majority_vote", "mean", "self_consistency", "weighted_mean")


@dataclass(frozen=True)
class Vote:
    """For an answer.

    Attributes:
        answer: in the form in which equal answers are equal.
        share: of the model's vote.
        correct: 1, 0, or NaN where nobody knows.
        format: 1, 1/2 or 0.
        text: all that was said.
    """

    answer: str
    share: float
    correct: float
    format: float
    text: str = ""


@dataclass(frozen=True)
class Ballot:
    """A model's votes on one question: for its likeliest answer, and shared among others."""

    likeliest: Vote
    samples: tuple[Vote, ...] = ()
    letters: tuple[Vote, ...] = ()

    def list_votes(self, method: str) -> tuple[Vote, ...]:
        """Those that a method counts."""
        if method == "mean" and self.letters:
            return self.letters
        if method in ("mean", "self_consistency") and self.samples:
            return self.samples
        return (self.likeliest,)


def read_ballot(line: Mapping[str, Any]) -> Ballot:
    """The votes of a row of a prediction file."""
    likeliest = _read_vote({**line, "answer": line["prediction"]}, 1.0)
    samples = tuple(_read_vote(one, 1 / len(line["samples"])) for one in line["samples"])
    letters = tuple(
        Vote(one["letter"], one["probability"], _compare(one["letter"], line["target"]), 1.0, one["letter"])
        for one in line["letters"]
    )
    return Ballot(likeliest, samples, letters)


def _read_vote(one: Mapping[str, Any], share: float) -> Vote:
    correct = float("nan") if one["correct"] is None else float(one["correct"])
    return Vote(one["answer"], share, correct, float(one["format"]), one["text"])


def _compare(letter: str, target: str | None) -> float:
    return float("nan") if target is None else float(letter == target.strip().upper())


@dataclass(frozen=True)
class Elected:
    """What several models answer together.

    Attributes:
        vote: of the model that gave the answer first.
        share: of all votes.
    """

    vote: Vote
    share: float


def elect(ballots: Sequence[Ballot], method: str, weights: Sequence[float] | None = None) -> Elected:
    """The answer with the most votes; an empty answer counts only where there is no other.

    Args:
        ballots: of each model.
        method: one of METHODS.
        weights: of each model; None: all the same.
    """
    each = [1 / len(ballots)] * len(ballots) if weights is None else list(weights)
    votes = [
        (weight * vote.share, vote)
        for weight, ballot in zip(each, ballots, strict=True)
        for vote in ballot.list_votes(method)
    ]
    counted = [pair for pair in votes if pair[1].answer] or votes
    shares: dict[str, float] = {}
    for share, vote in counted:
        shares[vote.answer] = shares.get(vote.answer, 0.0) + share
    most = max(shares.values())
    # Sums of the same shares in another order differ in their last bits.
    chosen = next(answer for answer, share in shares.items() if share >= most - 1e-12)
    return Elected(next(vote for _, vote in counted if vote.answer == chosen), shares[chosen] / sum(each))


def merge_ballots(ballots: Sequence[Ballot]) -> Ballot:
    """A member's fold models as one voter: its likeliest answer is what they elect, its samples are all of theirs."""
    number = len(ballots)
    samples = [vote for ballot in ballots for vote in ballot.samples]
    letters = [vote for ballot in ballots for vote in ballot.letters]

    def spread(votes: Sequence[Vote]) -> tuple[Vote, ...]:
        return tuple(Vote(one.answer, one.share / number, one.correct, one.format, one.text) for one in votes)

    elected = elect(ballots, "majority_vote").vote
    likeliest = Vote(elected.answer, 1.0, elected.correct, elected.format, elected.text)
    return Ballot(likeliest, spread(samples), spread(letters))
