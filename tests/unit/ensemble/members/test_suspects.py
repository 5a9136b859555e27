"""Rows whose truth is most likely wrong: planted errors come first."""

import numpy as np
import pytest

from ensemble.kinds import find_kinds, load_kind
from ensemble.members.figures import draw_suspects
from ensemble.members.suspects import judge_classes, judge_maps, judge_numbers


def find_first(scores, number):
    return set(np.argsort(-scores, kind="stable")[:number].tolist())


@pytest.mark.parametrize("is_price", [False, True])
def test_of_numbers_the_rows_far_from_what_rows_like_them_miss(is_price):
    rng = np.random.default_rng(0)
    prediction = rng.normal(10, 3, 1000)
    target = prediction + rng.normal(0, 1, 1000)
    spoiled = rng.permutation(1000)[:20]
    target[spoiled] += rng.choice([-6, 6], 20)
    scores = (
        judge_numbers(np.exp(target / 3), np.exp(prediction / 3)) if is_price else judge_numbers(target, prediction)
    )
    assert len(find_first(scores, 20) & set(spoiled.tolist())) >= 18


def test_noise_that_grows_with_the_prediction_is_no_suspicion_and_neither_are_the_ends():
    rng = np.random.default_rng(1)
    prediction = np.sort(rng.uniform(-20, 20, 2000))
    noise = 1 + np.abs(prediction)
    target = prediction + rng.normal(0, 1, 2000) * noise
    spoiled = 1000 + np.arange(10)  # in the middle, where rows miss little
    target[spoiled] += 12
    first = find_first(judge_numbers(target, prediction), 10)
    assert len(first & set(spoiled.tolist())) >= 9
    assert judge_numbers(np.ones(5), np.ones(5)).tolist() == [0] * 5


def test_of_classes_the_rows_of_which_another_class_is_sure_beside_what_it_usually_is():
    rng = np.random.default_rng(2)
    target = rng.integers(0, 3, 600)
    probability = rng.dirichlet([1, 1, 1], 600) * 0.4
    sureness = np.array([0.6, 0.6, 0.2])[target]  # of the third class the model is never sure
    probability[np.arange(600), target] += sureness
    probability /= probability.sum(axis=1, keepdims=True)
    given = target.copy()
    spoiled = rng.permutation(np.flatnonzero(target < 2))[:15]
    given[spoiled] = (target[spoiled] + 1) % 2
    scores = judge_classes(given, probability)
    assert len(find_first(scores, 15) & set(spoiled.tolist())) >= 13
    by_probability = -probability[np.arange(600), given]
    assert len(find_first(by_probability, 15) & set(spoiled.tolist())) <= len(find_first(scores, 15) & set(spoiled))


def test_a_class_without_a_row_is_never_what_a_row_should_be():
    probability = np.array([[0.2, 0.1, 0.7], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.7, 0.3, 0.0]])
    scores = judge_classes(np.array([0, 0, 1, 1]), probability)
    assert scores.argmax() == 3


def test_of_masks_the_surest_that_are_wrong():
    assert judge_maps(np.array([0.9, 0.1, 0.1]), np.array([1.0, 1.0, 0.3])).argsort().tolist() == [0, 2, 1]


def test_pictures_of_rows_are_shown_and_bars_where_there_are_none():
    ids, words = [f"r{n}" for n in range(20)], ["a"] * 20
    shown = draw_suspects(ids, [1.0] * 20, words, words, [np.zeros((4, 5, 3), np.uint8), None] * 10)
    assert len([axes for axes in shown.axes if axes.images]) == 12
    assert len(draw_suspects(ids, [1.0] * 20, words, words, [None] * 20).axes[0].patches) == 12


def test_a_kind_that_judges_rows_has_their_picture():
    for kind in find_kinds().values():
        is_judged = type(kind).find_suspects is not type(load_kind("number")).__mro__[1].find_suspects
        assert is_judged == ("suspicious_rows" in kind.load_pictures()), kind.name
