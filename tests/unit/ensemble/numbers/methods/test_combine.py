"""Combining predictions, weights, spread, scores, and the prediction schema."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_squared_log_error

from ensemble.combination import normalise_weights, weights_from_scores
from ensemble.config import METHODS
from ensemble.numbers.diversity import describe_spread
from ensemble.numbers.methods.combine import combine
from ensemble.numbers.scores import predict_constant, score
from ensemble.predictions import SCHEMA, PredictionError, build_table, stack_models

PREDICTIONS = np.array([[1.0, 100.0, 0.0], [3.0, 100.0, 0.0], [7.0, 100.0, 26.0]])


def test_the_mean_in_z_space_is_the_mean_of_logs():
    expected = np.expm1(np.log1p(PREDICTIONS).mean(axis=0))
    np.testing.assert_allclose(combine(PREDICTIONS, "mean", "z"), expected)
    np.testing.assert_allclose(combine(PREDICTIONS, "mean", "z"), [3.0, 100.0, 2.0])


def test_the_mean_in_raw_space_is_the_mean_of_predictions():
    np.testing.assert_allclose(combine(PREDICTIONS, "mean", "raw"), [11 / 3, 100.0, 26 / 3])


def test_the_median_of_an_odd_number_of_models_is_the_same_in_both_spaces():
    np.testing.assert_allclose(combine(PREDICTIONS, "median", "z"), [3.0, 100.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(combine(PREDICTIONS, "median", "raw"), [3.0, 100.0, 0.0])


def test_a_weighted_mean_with_all_weight_on_one_model_is_that_model():
    np.testing.assert_allclose(
        combine(PREDICTIONS, "weighted_mean", "z", np.array([0, 0, 1.0])), PREDICTIONS[2], atol=1e-12
    )


def test_in_z_space_the_ensemble_is_never_worse_than_its_models_on_average():
    rng = np.random.default_rng(0)
    target = np.expm1(rng.normal(6, 2, 500)).clip(0)
    models = np.expm1(np.log1p(target) + rng.normal(0, 1, (3, 500))).clip(0)
    single = np.mean([mean_squared_log_error(target, model) for model in models])
    assert mean_squared_log_error(target, combine(models, "mean", "z")) < single


def make_models(num_models, num_rows=40, seed=0):
    models = np.random.default_rng(seed).lognormal(4, 2, (num_models, num_rows))
    models[:, 0] = 0
    models[0, 1] = 0
    return models


def combine_all(models_MN, space):
    num_models = len(models_MN)
    return {method: combine(models_MN, method, space, np.full(num_models, 1 / num_models)) for method in METHODS}


@pytest.mark.parametrize("num_models", [1, 2, 3, 4, 5, 8, 11, 50])
def test_median_trimmed_and_geometric_mean_are_those_of_numpy_and_scipy(num_models):
    models = make_models(num_models)
    logs = np.log1p(models)
    with np.errstate(divide="ignore"):
        geometric = stats.gmean(models, axis=0)
    np.testing.assert_array_equal(combine(models, "median", "raw"), np.median(models, axis=0))
    np.testing.assert_array_equal(combine(models, "median", "z"), np.expm1(np.median(logs, axis=0)))
    for trim in (0.0, 0.2, 0.34, 0.49):
        cut = stats.trim_mean(models, trim, axis=0)
        np.testing.assert_allclose(combine(models, "trimmed_mean", "raw", trim=trim), cut, rtol=1e-12)
    cut = np.expm1(stats.trim_mean(logs, 0.2, axis=0))
    np.testing.assert_allclose(combine(models, "trimmed_mean", "z"), cut, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(combine(models, "geometric_mean", "raw"), geometric, rtol=1e-12)
    np.testing.assert_array_equal(combine(models, "geometric_mean", "z"), combine(models, "mean", "z"))


def test_a_raw_geometric_mean_is_zero_where_a_model_says_zero():
    np.testing.assert_allclose(combine(PREDICTIONS, "geometric_mean", "raw"), [21 ** (1 / 3), 100, 0])
    with pytest.raises(ValueError, match="geometric_mean in raw space needs predictions from 0; the lowest is -1"):
        combine(PREDICTIONS - 1, "geometric_mean", "raw")


def test_a_fifth_of_four_models_is_none():
    models = make_models(5)
    np.testing.assert_allclose(combine(models[:4], "trimmed_mean", "raw"), models[:4].mean(axis=0))
    np.testing.assert_allclose(combine(models, "trimmed_mean", "raw"), np.sort(models, axis=0)[1:4].mean(axis=0))
    with pytest.raises(ValueError, match=r"trim=0.5: expected a share from 0 and below 0.5"):
        combine(models, "trimmed_mean", "raw", trim=0.5)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 600, 120_000])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_mean_in_z_space_has_the_bits_of_its_definition_however_many_rows(num_rows, kind):
    models = make_models(5, num_rows + 2)[:, :num_rows].astype(kind)
    by_definition = np.expm1(np.log1p(models.astype(np.float64)).mean(axis=0))
    np.testing.assert_array_equal(combine(models, "mean", "z"), by_definition)


@pytest.mark.parametrize("space", ["z", "raw"])
def test_the_order_of_the_models_does_not_matter(space):
    models = make_models(6)
    turned = combine_all(models[[3, 1, 5, 0, 2, 4]], space)
    for method, combined in combine_all(models, space).items():
        np.testing.assert_allclose(turned[method], combined, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", ["z", "raw"])
@pytest.mark.parametrize("num_models", [1, 2, 5])
def test_models_that_agree_are_what_they_agree_on(space, num_models):
    model = make_models(1)[0]
    for combined in combine_all(np.tile(model, (num_models, 1)), space).values():
        np.testing.assert_allclose(combined, model, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", ["z", "raw"])
def test_a_combination_lies_between_the_lowest_and_the_highest_model(space):
    models = make_models(7)
    for combined in combine_all(models, space).values():
        assert (combined >= models.min(axis=0) * (1 - 1e-12)).all()
        assert (combined <= models.max(axis=0) * (1 + 1e-12)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_predictions_that_are_no_numbers_are_refused_by_every_method(method, bad):
    models = make_models(5)
    models[1, 7] = bad
    weights = np.array([0.5, 0.0, 0.5, 0.0, 0.0])  # also where they would not count
    for space in ("z", "raw"):
        with pytest.raises(ValueError, match="1 predictions are NaN or infinite"):
            combine(models, method, space, weights)


def test_no_rows_give_no_predictions():
    assert combine(np.empty((3, 0)), "median", "z").shape == (0,)
    with pytest.raises(ValueError, match=r"predictions \(0, 3\): expected \(models, rows\)"):
        combine(np.empty((0, 3)), "median", "z")


@pytest.mark.parametrize(("method", "space"), [("mode", "z"), ("mean", "log")])
def test_unknown_methods_and_spaces_are_refused(method, space):
    with pytest.raises(ValueError, match="expected one of"):
        combine(PREDICTIONS, method, space)


def test_a_weighted_mean_needs_one_weight_for_each_model():
    with pytest.raises(ValueError, match="needs 3 weights, found 2"):
        combine(PREDICTIONS, "weighted_mean", "z", np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match="2 numbers for 3 fold models"):
        normalise_weights((1.0, 1.0), 3)
    np.testing.assert_allclose(normalise_weights((1.0, 3.0), 2), [0.25, 0.75])


def test_weights_from_scores_are_inverse_errors():
    np.testing.assert_allclose(weights_from_scores(np.array([1.0, 2.0, 4.0])), np.array([4, 2, 1]) / 7)
    np.testing.assert_allclose(weights_from_scores(np.array([0.0, 2.0])), [1, 0])
    with pytest.raises(ValueError, match="expected finite numbers"):
        weights_from_scores(np.array([np.nan, 1.0]))


def test_the_spread_is_the_population_standard_deviation_across_models():
    spread = describe_spread(np.array([[0.0, 5.0], [2.0, 5.0]]))
    assert spread == {"prediction_diversity": 0.5, "pred_std_mean": 0.5, "pred_std_max": 1.0, "pred_std_min": 0.0}


def test_the_constant_predictor_scores_the_variance_of_the_logs():
    target = np.random.default_rng(0).lognormal(5, 1, 400)
    constant = predict_constant(target)
    msle = score(target, np.full(400, constant))["msle"]
    np.testing.assert_allclose(msle, np.log1p(target).var())
    assert msle < score(target, np.full(400, 1.1 * constant))["msle"]


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1e300])
def test_the_constant_predictor_of_equal_targets_has_no_error(value):
    target = np.full(12, value)
    assert predict_constant(target) == value


def make_table(ids, prediction, **overrides):
    n = len(ids)
    return build_table(
        np.array(ids),
        np.asarray(prediction, float),
        np.zeros(n),
        np.full(n, np.nan),
        fold=0,
        checkpoint="best",
        **overrides,
    )


def test_a_prediction_table_has_the_documented_columns():
    table = make_table(["a", "b"], [1, 2])
    columns = ["id", "member", "repeat", "fold", "checkpoint", "in_sample", "target", "prediction", "prediction_z"]
    assert table.schema.names == columns
    assert table.schema.equals(SCHEMA)
    assert table["target"].null_count == 2


def test_predictions_that_are_not_finite_are_refused():
    with pytest.raises(PredictionError, match="1 of 2 values of prediction are not finite; first id 'b'"):
        make_table(["a", "b"], [1, np.inf])


def test_models_are_stacked_by_id_not_by_position():
    ids, stacked = stack_models([make_table(["a", "b", "c"], [1, 2, 3]), make_table(["c", "a", "b"], [30, 10, 20])])
    assert ids.tolist() == ["a", "b", "c"]
    assert stacked.tolist() == [[1, 2, 3], [10, 20, 30]]
    with pytest.raises(PredictionError, match="2 of them not shared"):
        stack_models([make_table(["a", "b"], [1, 2]), make_table(["a", "c"], [1, 2])])
