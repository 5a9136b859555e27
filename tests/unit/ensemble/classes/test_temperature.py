"""Temperature scaling finds a temperature that is known, and its score does not see the rows that it is fitted to."""

import numpy as np
import pyarrow as pa
import pytest

from ensemble.classes.files import build_class_table
from ensemble.classes.kind import KIND
from ensemble.classes.metrics import measure_error
from ensemble.classes.temperature import fit_temperature, scale_cross_fitted, scale_temperature, to_columns


def make_lines(temperature, num_rows=6000, num_folds=3, seed=0):
    """Classes that are drawn by calibrated probabilities, which are then made too sure by a temperature."""
    rng = np.random.default_rng(seed)
    calibrated_NC = rng.dirichlet(np.ones(4), num_rows)
    target_N = (rng.random(num_rows)[:, None] > calibrated_NC.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    sure_NC = calibrated_NC**temperature
    sure_NC /= sure_NC.sum(axis=1, keepdims=True)
    ids = np.array([f"r{n}" for n in range(num_rows)])
    table = build_class_table(ids, sure_NC, target_N, tuple("abcd"), fold=0, checkpoint="best")
    fold_N = np.arange(num_rows, dtype=np.int32) % num_folds
    return (
        table.set_column(table.column_names.index("fold"), "fold", pa.array(fold_N)),
        calibrated_NC,
        target_N,
        sure_NC,
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    lines, calibrated_NC, target_N, sure_NC = make_lines(temperature)
    assert fit_temperature(target_N, sure_NC) == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(scale_temperature(sure_NC, temperature), calibrated_NC, atol=1e-9)
    found = KIND.describe_out_of_fold(lines, is_ordered=False)["calibration"]
    assert found["temperature"] == pytest.approx(temperature, rel=0.05)
    assert found["before"]["log_loss"] == pytest.approx(measure_error("log_loss", target_N, sure_NC))
    assert found["after"]["log_loss"] == pytest.approx(measure_error("log_loss", target_N, calibrated_NC), rel=0.002)
    assert found["after"]["calibration_error"] < 0.03
    if temperature != 1:
        assert found["before"]["calibration_error"] > 0.08


def test_a_fold_is_scaled_by_the_rows_of_others_in_time_by_earlier_ones():
    lines, _, target_N, sure_NC = make_lines(2.0, 300)
    columns = to_columns(lines, is_ordered=False)
    scaled_NC = scale_cross_fitted(columns, sure_NC)
    held = columns.fold_N == 1
    expected = scale_temperature(sure_NC[held], fit_temperature(target_N[~held], sure_NC[~held]))
    np.testing.assert_allclose(scaled_NC[held], expected)
    ordered_NC = scale_cross_fitted(to_columns(lines, is_ordered=True), sure_NC)
    first = columns.fold_N == 0
    np.testing.assert_array_equal(ordered_NC[first], sure_NC[first])
    expected = scale_temperature(sure_NC[held], fit_temperature(target_N[first], sure_NC[first]))
    np.testing.assert_allclose(ordered_NC[held], expected)


def test_one_fold_is_divided_by_chance():
    lines, *_ = make_lines(2.0, 100, num_folds=1)
    columns = to_columns(lines, is_ordered=True)
    assert (len(np.unique(columns.fold_N)), columns.is_ordered) == (5, False)


def test_calibrated_probabilities_gain_nothing_on_average():
    """Fitted to the rows themselves a temperature can only look better than none."""
    gains = []
    for seed in range(10):
        found = KIND.describe_out_of_fold(make_lines(1.0, 90, seed=seed)[0], is_ordered=False)["calibration"]
        gains.append(found["before"]["log_loss"] - found["after"]["log_loss"])
    assert np.mean(gains) < 0.002


def test_certainty_that_is_wrong_has_a_finite_temperature():
    probability_NC = np.array([[1.0, 0.0]] * 4)
    assert fit_temperature(np.array([0, 1, 0, 1]), probability_NC) > 50
    assert np.isfinite(scale_temperature(probability_NC, 0.01)).all()
