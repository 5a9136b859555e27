"""Scores of class probabilities are scikit-learn's, whole and of drawn rows."""

import numpy as np
import pytest
from sklearn import metrics as theirs

from ensemble.classes.metrics import SCORES, TO_ONE, draw_errors, measure_error, score_classes


def make_rows(num_classes, num_rows=300, seed=0):
    rng = np.random.default_rng(seed)
    target_N = rng.choice(num_classes, num_rows, p=rng.dirichlet(np.ones(num_classes) * 3))
    logits_NC = 1.5 * np.eye(num_classes)[target_N] + rng.normal(0, 1, (num_rows, num_classes))
    powers_NC = np.exp(logits_NC)
    return target_N, powers_NC / powers_NC.sum(axis=1, keepdims=True)


def measure_calibration(target_N, probability_NC):
    """Bin by bin, from the definition."""
    sure_N, is_right_N, error = probability_NC.max(axis=1), probability_NC.argmax(axis=1) == target_N, 0.0
    for low in np.arange(15) / 15:
        rows = (sure_N >= low) & (sure_N < low + 1 / 15)
        if rows.any():
            error += rows.mean() * abs(sure_N[rows].mean() - is_right_N[rows].mean())
    return error


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_scores_are_those_of_scikit_learn(num_classes):
    target_N, probability_NC = make_rows(num_classes)
    said_N, labels = probability_NC.argmax(axis=1), range(num_classes)
    areas = [theirs.roc_auc_score(target_N == one, probability_NC[:, one]) for one in labels]
    one_hot = {} if num_classes == 2 else {"multi_class": "ovr"}
    given = probability_NC[:, 1] if num_classes == 2 else probability_NC
    assert np.mean(areas) == pytest.approx(theirs.roc_auc_score(target_N, given, **one_hot))
    assert score_classes(target_N, probability_NC) == pytest.approx(
        {
            "log_loss": theirs.log_loss(target_N, probability_NC, labels=labels),
            "brier": theirs.brier_score_loss(target_N, given, labels=labels),
            "accuracy": theirs.accuracy_score(target_N, said_N),
            "balanced_accuracy": theirs.balanced_accuracy_score(target_N, said_N),
            "f1_macro": theirs.f1_score(target_N, said_N, average="macro"),
            "roc_auc_ovr": np.mean(areas),
            "calibration_error": measure_calibration(target_N, probability_NC),
        }
    )


def test_a_class_without_rows_is_left_out_as_by_scikit_learn():
    target_N, probability_NC = make_rows(4)
    rows = target_N != 2
    target_N, probability_NC = target_N[rows], probability_NC[rows]
    said_N, scores = probability_NC.argmax(axis=1), score_classes(target_N, probability_NC)
    assert (said_N == 2).any()
    assert scores["balanced_accuracy"] == pytest.approx(
        theirs.recall_score(target_N, said_N, labels=[0, 1, 3], average="macro")
    )
    assert scores["f1_macro"] == pytest.approx(theirs.f1_score(target_N, said_N, average="macro"))
    assert scores["roc_auc_ovr"] == pytest.approx(
        np.mean([theirs.roc_auc_score(target_N == one, probability_NC[:, one]) for one in (0, 1, 3)])
    )


def test_what_is_not_defined_is_none_and_infinite_losses_are_bounded():
    scores = score_classes(np.zeros(3, int), np.array([[1.0, 0.0]] * 3))
    assert scores["roc_auc_ovr"] is None
    assert (scores["log_loss"], scores["accuracy"], scores["calibration_error"]) == (0, 1, 0)
    assert score_classes(np.array([1]), np.array([[1.0, 0.0]]))["log_loss"] == pytest.approx(36.04, abs=0.01)
    with pytest.raises(ValueError, match="the true class of 1 of 2 rows is not known"):
        measure_error("accuracy", np.array([0, -1]), np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="expected one of log_loss, brier"):
        measure_error("msle", np.array([0]), np.full((1, 2), 0.5))


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("has_units", [False, True])
def test_drawn_errors_are_those_of_drawn_rows(metric, has_units):
    target_N, first_NC = make_rows(3, 90)
    predictions_KNC = np.stack([first_NC, make_rows(3, 90, seed=1)[1]])
    unit_N = np.arange(90) // 3 if has_units else None
    whole_K, drawn_DK = draw_errors(metric, target_N, predictions_KNC, unit_N, 12, seed=3)
    np.testing.assert_allclose(whole_K, [measure_error(metric, target_N, one) for one in predictions_KNC])
    units_DU = np.random.default_rng(3).integers(30 if has_units else 90, size=(12, 30 if has_units else 90))
    for errors_K, units_U in zip(drawn_DK, units_DU, strict=True):
        rows = (3 * units_U[:, None] + np.arange(3)).ravel() if has_units else units_U
        expected = [measure_error(metric, target_N[rows], one[rows]) for one in predictions_KNC]
        np.testing.assert_allclose(errors_K, expected)


def test_higher_is_better_just_where_1_is_the_most():
    target_N, probability_NC = make_rows(3)
    for name, value in score_classes(target_N, np.eye(3)[target_N]).items():
        worse = score_classes(target_N, probability_NC)[name]
        assert (value == pytest.approx(1) and value > worse) if name in TO_ONE else (abs(value) < 1e-9 < worse)
