"""Ambiguity, correlations, the effective number of models, and what each model adds."""

import numpy as np
import pytest
from sklearn.metrics import mean_squared_log_error

from ensemble.numbers.diversity import correlate_errors, correlate_predictions, count_effective_models, decompose_error
from ensemble.numbers.leave_one_out import leave_each_out
from ensemble.numbers.methods.combine import combine


def make_models(num_models, num_rows=500, shared=0.5, seed=0):
    rng = np.random.default_rng(seed)
    logs = rng.normal(5, 1, num_rows)
    noise = shared * rng.normal(0, 1, num_rows) + (1 - shared) * rng.normal(0, 1, (num_models, num_rows))
    return np.expm1(logs + 0.5 * noise).clip(0), np.expm1(logs).clip(0)


@pytest.mark.parametrize("space", ["z", "raw"])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 0.3, 0.2])])
def test_the_ensembles_error_is_the_models_mean_error_less_the_ambiguity(space, weights):
    models, target = make_models(3)
    parts = decompose_error(models, target, space, weights)
    assert parts.ensemble_error == pytest.approx(parts.member_error - parts.ambiguity, rel=1e-6)
    assert parts.ambiguity > 0.05 * parts.member_error
    weighted = combine(models, "weighted_mean", space, np.full(3, 1 / 3) if weights is None else weights)
    if space == "z":
        assert parts.ensemble_error == pytest.approx(mean_squared_log_error(target, weighted))


def test_models_that_agree_have_no_ambiguity():
    models, target = make_models(1)
    assert decompose_error(np.tile(models, (4, 1)), target).ambiguity == pytest.approx(0, abs=1e-20)


def test_correlations_are_pearsons_of_predictions_and_of_errors():
    models, target = make_models(4)
    logs = np.log1p(models)
    np.testing.assert_allclose(correlate_predictions(models), np.corrcoef(logs))
    np.testing.assert_allclose(correlate_predictions(models, "raw"), np.corrcoef(models))
    np.testing.assert_allclose(correlate_errors(models, target), np.corrcoef(logs - np.log1p(target)))


def test_a_constant_model_correlates_with_nothing():
    models, _ = make_models(3)
    models[1] = 1e6
    correlation = correlate_predictions(models, "raw")
    assert np.isnan(correlation[1]).all()
    assert np.isfinite(correlation[[0, 0, 2, 2], [0, 2, 0, 2]]).all()


def test_effective_models_count_from_one_to_all():
    assert count_effective_models(np.ones((5, 5))) == 1
    assert count_effective_models(np.eye(5)) == 5
    correlation = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])  # two alike, one apart: eigenvalues 2, 1, 0
    assert count_effective_models(correlation) == pytest.approx((2 + 1) ** 2 / (2**2 + 1**2))
    models, target = make_models(6, 20_000, shared=0.0)
    assert count_effective_models(correlate_errors(models, target)) == pytest.approx(6, rel=0.01)


def test_a_contribution_is_the_error_without_the_model_less_the_error_with_it():
    models, target = make_models(4)
    without = combine(models[[0, 2, 3]], "mean", "z")
    grown = mean_squared_log_error(target, without) - mean_squared_log_error(target, combine(models, "mean", "z"))
    assert leave_each_out(models, target).contribution_M[1] == pytest.approx(grown)


def test_a_bad_model_harms_and_the_interval_says_so():
    models, target = make_models(4)
    models[3] = np.expm1(np.log1p(models[3]) + 2)
    parts = leave_each_out(models, target, num_draws=500)
    assert parts.high_M[3] < 0 < parts.low_M[:3].min()
    assert (parts.low_M < parts.contribution_M).all()
    assert (parts.contribution_M < parts.high_M).all()
    same = leave_each_out(models, target, num_draws=500)
    np.testing.assert_array_equal(parts.low_M, same.low_M)


def test_intervals_over_groups_are_wider_where_rows_of_a_group_are_alike():
    models, target = make_models(3, 100)
    models, target, group = np.repeat(models, 10, axis=1), np.repeat(target, 10), np.repeat(np.arange(100), 10)
    by_row, by_group = (leave_each_out(models, target, unit_N=unit) for unit in (None, group))
    ratio = (by_group.high_M - by_group.low_M) / (by_row.high_M - by_row.low_M)
    np.testing.assert_allclose(ratio, 10**0.5, rtol=0.15)


def test_weights_of_the_others_are_rescaled_and_one_model_cannot_be_left_out():
    models, target = make_models(3)
    weighted = leave_each_out(models, target, method="weighted_mean", weights_M=np.full(3, 1 / 3))
    np.testing.assert_allclose(weighted.contribution_M, leave_each_out(models, target).contribution_M)
    with pytest.raises(ValueError, match="expected at least 2"):
        leave_each_out(models[:1], target)
    with pytest.raises(ValueError, match="the others have none"):
        leave_each_out(models, target, method="weighted_mean", weights_M=np.array([1.0, 0, 0]))
