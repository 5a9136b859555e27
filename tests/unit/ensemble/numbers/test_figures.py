"""Pictures of an ensemble show the numbers they are given, and stand extreme ones."""

import numpy as np
import pytest

from ensemble.figure_style import as_text, shorten, style_series, to_png
from ensemble.members.figures import draw_intervals, draw_performance
from ensemble.numbers.diversity import correlate_predictions
from ensemble.numbers.figures import (
    draw_agreement,
    draw_contributions,
    draw_final_predictions,
    draw_uncertainty,
    measure_contributions,
)
from ensemble.numbers.score_figures import draw_predicted_against_actual, draw_residuals


def make_predictions(num_models, num_rows):
    rng = np.random.default_rng(0)
    return np.expm1(rng.normal(5, 1, num_rows) + rng.normal(0, 0.3, (num_models, num_rows))).clip(0)


def draw_all(predictions_MN, labels):
    final_N, target_N = predictions_MN.mean(axis=0), predictions_MN[0]
    scores = [{"best": 0.1, "final": 0.2, "constant": 2.0}] * len(labels)
    values = ("error", "low", "high", "difference", "difference_low", "difference_high")
    interval = {"kind": "member", "submitted": False} | dict.fromkeys(values, float(final_N[0]))
    return [
        draw_agreement(predictions_MN, labels),
        draw_final_predictions(final_N, predictions_MN, labels, "price"),
        draw_contributions(final_N, predictions_MN, labels, None),
        draw_uncertainty(final_N, predictions_MN, "price"),
        draw_performance(scores, labels, scores[0], "MSLE"),
        draw_predicted_against_actual(target_N, final_N, "price"),
        draw_residuals(target_N, final_N, "price"),
        draw_intervals([interval | {"name": label} for label in labels], "MSLE", labels[0]),
    ]


@pytest.mark.parametrize(("num_models", "num_rows"), [(2, 2), (2, 1), (10, 3000), (3, 40)])
def test_every_picture_is_drawn_for_few_and_for_many(num_models, num_rows):
    predictions_MN = make_predictions(num_models, num_rows)
    for figure in draw_all(predictions_MN, [f"fold {number}" for number in range(num_models)]):
        assert to_png(figure).startswith(b"\x89PNG")


def test_models_that_agree_to_the_last_bit_and_zeros_can_be_drawn():
    for value in (0.0, 7.0):
        for figure in draw_all(np.full((3, 20), value), ["a", "b", "c"]):
            assert to_png(figure)


def test_the_same_picture_has_the_same_bytes():
    predictions_MN = make_predictions(2, 50)
    first, second = (to_png(draw_agreement(predictions_MN, ["a", "b"])) for _ in range(2))
    assert first == second


def test_agreement_is_the_correlation_of_logs():
    predictions_MN = make_predictions(3, 100)
    correlation = correlate_predictions(predictions_MN)
    logs = np.log1p(predictions_MN)
    assert correlation[0, 2] == pytest.approx(np.corrcoef(logs[0], logs[2])[0, 1])
    numbers = [text.get_text() for text in draw_agreement(predictions_MN, ["a", "b", "c"]).axes[0].texts]
    assert numbers[2] == f"{correlation[0, 2]:.3f}"


def test_a_contribution_is_the_deviation_from_the_combination_in_logs():
    final_N = np.array([10.0, 100.0])
    predictions_MN = np.expm1(np.log1p(final_N) + np.array([[0.2, 0.2], [0.3, -0.3]]))
    signed_M, absolute_M = measure_contributions(final_N, predictions_MN)
    np.testing.assert_allclose(signed_M, [0.2, 0.0], atol=1e-12)
    np.testing.assert_allclose(absolute_M, [0.2, 0.3])
    figure = draw_contributions(final_N, predictions_MN, ["a", "b"], np.array([0.25, 0.75]))
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0.25, 0.75]


def test_performance_shows_each_error_once_as_a_number():
    scores = [{"best": 0.125, "final": 0.25, "constant": 2.5}]
    axes = draw_performance(scores, ["fold 0"], {"best": 0.3, "final": 0.4, "constant": 2.25}, "MSLE").axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["0.125", "0.25", "0.3", "0.4", "2.25", "2.5"]


def test_residuals_are_in_logs_and_positive_when_too_high():
    target_N = np.array([9.0, 99.0, 999.0])
    axes = draw_residuals(target_N, np.expm1(np.log1p(target_N) + 0.5), "price").axes[0]
    assert "mean +0.500" in axes.get_legend().get_texts()[0].get_text()


def test_a_name_from_the_data_is_shown_as_it_is():
    assert as_text("cost in $ or $") == r"cost in \$ or \$"  # no mathematics between the dollar signs
    assert as_text("価格") == "??"  # the font has no such characters
    assert [shorten(value) for value in (0.5, 12, 1500, 2e6)] == ["0.5", "12", "1.5k", "2M"]


def test_ten_folds_look_different():
    looks = {(style["color"], style["marker"], style["linestyle"]) for style in map(style_series, range(28))}
    assert len(looks) == 28
