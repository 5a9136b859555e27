"""Several models' answers become one."""

from __future__ import annotations

import math

import pytest

from ensemble.answers.votes import Ballot, Vote, elect, merge_ballots, read_ballot


def vote(answer, correct=0.0, share=1.0):
    return Vote(answer, share, correct, 1.0, f"it is {answer}")


def samples(*answers):
    return tuple(vote(answer, share=1 / len(answers)) for answer in answers)


def test_the_most_frequent_answer_wins_and_is_as_right_as_its_first_model_says():
    found = elect([Ballot(vote("3")), Ballot(vote("4", 1.0)), Ballot(vote("4", 1.0))], "majority_vote")
    assert (found.vote.answer, found.vote.correct, found.share) == ("4", 1.0, pytest.approx(2 / 3))


def test_of_a_tie_the_first_model_s_answer_wins_whatever_the_last_bits_are():
    ballots = [Ballot(vote(answer)) for answer in ("a", "b", "b", "a", "c", "c")]
    assert elect(ballots, "majority_vote").vote.answer == "a"
    assert elect(ballots[1:] + ballots[:1], "majority_vote").vote.answer == "b"


def test_no_answer_is_no_vote_unless_nobody_has_one():
    assert elect([Ballot(vote("")), Ballot(vote("")), Ballot(vote("5"))], "majority_vote").vote.answer == "5"
    assert elect([Ballot(vote(""))], "majority_vote").vote.answer == ""


def test_samples_count_for_self_consistency_alone_and_weights_for_the_weighted_mean():
    ballots = [Ballot(vote("3"), samples("4", "4", "3")), Ballot(vote("3"), samples("4", "4", "5"))]
    assert elect(ballots, "majority_vote").vote.answer == "3"
    assert elect(ballots, "self_consistency").vote.answer == "4"
    assert elect(ballots, "self_consistency").share == pytest.approx(2 / 3)
    several = [Ballot(vote("1")), Ballot(vote("2")), Ballot(vote("2"))]
    assert elect(several, "weighted_mean", [0.6, 0.2, 0.2]).vote.answer == "1"


def test_the_mean_of_letters_is_taken_where_there_are_letters():
    def of_letters(**probability):
        letters = tuple(Vote(name, value, float(name == "B"), 1.0, name) for name, value in probability.items())
        return Ballot(vote("A"), samples("A", "A"), letters)

    ballots = [of_letters(A=0.4, B=0.6), of_letters(A=0.5, B=0.5), of_letters(A=0.5, B=0.5)]
    assert elect(ballots, "mean").vote.answer == "B"
    assert elect(ballots, "self_consistency").vote.answer == "A"


def test_a_member_s_fold_models_are_one_voter():
    first = merge_ballots([Ballot(vote("1"), samples("1", "2")), Ballot(vote("1"), samples("1", "1"))])
    assert first.likeliest.answer == "1"
    assert sum(one.share for one in first.samples) == pytest.approx(1)
    assert elect([first, Ballot(vote("2"), samples("2", "2"))], "self_consistency").vote.answer == "2"


def test_a_row_of_a_file_is_a_ballot():
    line = {
        "prediction": "4", "correct": None, "format": 0.5, "text": "4", "target": "B",
        "samples": [{"answer": "5", "correct": 1.0, "format": 1.0, "text": "five"}] * 2,
        "letters": [{"letter": "B", "probability": 0.7}],
    }  # fmt: skip
    ballot = read_ballot(line)
    assert math.isnan(ballot.likeliest.correct)
    assert [one.share for one in ballot.samples] == [0.5, 0.5]
    assert (ballot.letters[0].share, ballot.letters[0].correct) == (0.7, 1.0)
