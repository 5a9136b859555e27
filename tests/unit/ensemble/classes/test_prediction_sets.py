"""Sets of classes by CV+: the definition by hand, their coverage, and what they say where rows are few."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ensemble.classes.prediction_sets import predict_sets, write_sets


def draw(rng, num_rows, num_folds=4, num_classes=3):
    """Probabilities of rows by models that know little, the true class drawn from the first one's."""
    probability_KNC = rng.dirichlet(np.ones(num_classes), (num_folds, num_rows))
    cumulated_NC = probability_KNC[0].cumsum(axis=1)
    return probability_KNC, (rng.random((num_rows, 1)) > cumulated_NC).sum(axis=1)


def test_sets_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    fold_N, true_N, probability_KTC = rng.permutation(np.arange(37) % 4), rng.random(37), draw(rng, 25)[0]
    true_N[:5] = probability_KTC[0, :5, 0]  # ties
    for level in (0.5, 0.8, 0.9):
        found_TC = predict_sets(probability_KTC, true_N, fold_N, level)
        for row, number in np.ndindex(found_TC.shape):
            odder = sum(true > probability_KTC[fold, row, number] for true, fold in zip(true_N, fold_N, strict=True))
            assert found_TC[row, number] == (odder < level * 38)


def test_sets_hold_the_true_class_about_as_often_as_the_level_says():
    rng, held = np.random.default_rng(1), []
    for _ in range(40):
        known_KNC, known_N = draw(rng, 120)
        fold_N, (new_KTC, new_T) = np.arange(120) % 4, draw(rng, 200)
        true_N = known_KNC[0, np.arange(120), known_N]
        found_TC = predict_sets(np.repeat(new_KTC[:1], 4, axis=0), true_N, fold_N, 0.9)
        held.append(found_TC[np.arange(200), new_T].mean())
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_with_too_few_rows_for_the_level_every_class_is_in():
    new_KTC = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    assert predict_sets(new_KTC, np.full(8, 0.9), np.arange(8) % 2, 0.95).all()
    assert predict_sets(new_KTC, np.full(8, 0.9), np.arange(8) % 2, 0.8).tolist() == [[False, True]]
    with pytest.raises(ValueError, match="rows of each of the folds 0 to 1"):
        predict_sets(new_KTC, np.full(8, 0.9), np.zeros(8, int), 0.8)


def test_sets_are_written_so_that_names_of_any_kind_can_be_read_again():
    sets = write_sets(np.array([[True, True], [False, False]]), ('a, "b"', "ç"))
    assert [json.loads(text) for text in sets] == [['a, "b"', "ç"], []]
