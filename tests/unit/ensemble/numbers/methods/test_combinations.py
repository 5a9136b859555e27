"""Fitted weights are scored on rows that they were not fitted to, and in time on later ones."""

from dataclasses import replace

import numpy as np
import pytest

from ensemble.combination import Combination
from ensemble.config import FITTED_METHODS
from ensemble.kinds import load_kind
from ensemble.members.search import choose
from ensemble.numbers.columns import NumberColumns
from ensemble.numbers.methods.combinations import evaluate, predict_cross_fitted
from ensemble.numbers.methods.combine import combine
from ensemble.numbers.methods.fitting import fit
from ensemble.numbers.metrics import measure_error

HOWS = [*map(Combination, FITTED_METHODS), Combination("weighted_mean", weight_power=2.0)]


def make_columns(num_models=5, num_rows=400, num_folds=4):
    """Models that share half of their error, and differ in skill."""
    rng = np.random.default_rng(0)
    logs_N = rng.normal(5, 1.5, num_rows).clip(0)
    own_MN = rng.normal(0, 1, (num_models, num_rows)) * np.linspace(0.3, 1, num_models)[:, None]
    oof_MN = np.expm1(logs_N + rng.normal(0, 0.4, num_rows) + own_MN).clip(0)
    names, ids = tuple("abcdefgh"[:num_models]), np.array([f"r{n}" for n in range(num_rows)])
    return NumberColumns(names, ids, np.arange(num_rows) % num_folds, np.expm1(logs_N), oof_MN)


def change(columns, fold):
    """Other targets in one fold."""
    return replace(columns, target_N=np.where(columns.fold_N == fold, 7.0, columns.target_N))


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_a_row_does_not_touch_the_weights_it_is_predicted_by(how):
    columns = make_columns()
    cross_fitted, held = predict_cross_fitted(how, columns), columns.fold_N == 2
    np.testing.assert_array_equal(predict_cross_fitted(how, change(columns, 2))[held], cross_fitted[held])
    assert (predict_cross_fitted(how, change(columns, 1))[held] != cross_fitted[held]).any()
    with pytest.raises(ValueError, match="1 fold: expected at least 2"):
        predict_cross_fitted(how, replace(columns, fold_N=np.zeros(400, int)))


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_weights_are_those_of_all_other_rows(method):
    columns = make_columns()
    held = columns.fold_N == 2
    fitted = fit(method, columns.oof_MN[:, ~held], columns.target_N[~held])
    cross_fitted = predict_cross_fitted(Combination(method), columns)
    np.testing.assert_array_equal(cross_fitted[held], fitted.predict(columns.oof_MN[:, held]))


def test_fitted_weights_beat_the_mean_where_models_differ_in_skill():
    columns = make_columns(6, 3000, 5)
    mean = measure_error("msle", columns.target_N, combine(columns.oof_MN, "mean", "z"))
    for method in FITTED_METHODS:
        cross_fitted = predict_cross_fitted(Combination(method), columns)
        assert measure_error("msle", columns.target_N, cross_fitted) < 0.95 * mean


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_of_folds_in_time_later_ones_touch_nothing_that_is_scored_on_earlier_ones(how):
    columns = replace(make_columns(), is_ordered=True)
    before, after = (evaluate(how, each) for each in (columns, change(columns, 2)))
    earlier, last = columns.fold_N <= 2, columns.fold_N == 3
    np.testing.assert_array_equal(before.cross_fitted_N[earlier], after.cross_fitted_N[earlier])
    assert (before.cross_fitted_N[last] != after.cross_fitted_N[last]).any()
    assert np.isnan(before.inner_F).tolist() == [True, False, False, False]
    np.testing.assert_array_equal(before.inner_F[1:3], after.inner_F[1:3])
    assert before.inner_F[3] != after.inner_F[3]
    first = columns.fold_N == 0
    np.testing.assert_allclose(before.cross_fitted_N[first], combine(columns.oof_MN[:, first], "mean", "z"))


def test_before_the_first_fold_in_time_there_is_nothing_to_choose_by():
    columns = replace(make_columns(), is_ordered=True)
    hows = [Combination("simplex"), Combination("median"), Combination("mean")]
    evaluations = [evaluate(how, columns) for how in hows]
    choice = choose(load_kind("number"), evaluations, 2, columns, "msle", num_draws=50)
    assert choice.chosen_F == [2, 0, 0, 0]
    assert np.isfinite(choice.nested_error)
