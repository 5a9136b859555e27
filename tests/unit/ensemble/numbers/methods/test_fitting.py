"""Weights fitted to held-out rows: simplex, ridge, greedy; and the prediction that no fitted row has seen."""

import numpy as np
import pytest
from scipy import optimize
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score

from ensemble.config import FITTED_METHODS
from ensemble.numbers.methods.fitting import fit
from ensemble.numbers.methods.greedy import NUM_STEPS, select_greedily
from ensemble.numbers.metrics import measure_error


def make_members(num_models=5, num_rows=400, seed=0):
    """Targets, and models that share half of their error."""
    rng = np.random.default_rng(seed)
    logs_N = rng.normal(5, 1.5, num_rows).clip(0)
    noise_MN = (
        rng.normal(0, 0.4, num_rows)
        + rng.normal(0, 1, (num_models, num_rows)) * np.linspace(0.3, 1, num_models)[:, None]
    )
    return np.expm1(logs_N + noise_MN).clip(0), np.expm1(logs_N)


def select_by_definition(models_MN, target_N, metric, num_steps=NUM_STEPS):
    """Caruana et al. (2004) with AutoGluon's rounding and ties: every candidate list is averaged anew."""
    chosen, trajectory, decimals = [], [], 15
    for _ in range(num_steps):
        errors = [measure_error(metric, target_N, models_MN[[*chosen, j]].mean(axis=0)) for j in range(len(models_MN))]
        errors = np.round(errors, decimals)
        equal = [j for j in range(len(models_MN)) if errors[j] == errors.min()]
        best = next((j for j in equal if j in chosen), equal[0])
        if not chosen and errors[best] > 1e-4:
            decimals = 6
        chosen.append(best)
        trajectory.append(round(errors[best], decimals))
    chosen = chosen[: trajectory.index(min(trajectory)) + 1]
    return np.bincount(chosen, minlength=len(models_MN)) / len(chosen)


@pytest.mark.parametrize("metric", ["mse", "mae"])
def test_greedy_selection_of_an_example_worked_out_by_hand(metric):
    # Errors (1, 0), (0, -2), (-1, 0): the first and the third are equal, the first goes first; with the third it has no
    # error.
    target, models = np.array([2.0, 2.0]), np.array([[3.0, 2.0], [2.0, 0.0], [1.0, 2.0]])
    np.testing.assert_array_equal(select_greedily(models, target, metric, "raw"), [0.5, 0, 0.5])
    # Of the first two the squared errors go 0.5, 0.5, 0.444 (a third of the second), 0.406 (a quarter) and 0.4 (a
    # fifth), then they rise. The absolute error grows with any share of the second.
    share = 0.2 if metric == "mse" else 0
    np.testing.assert_array_equal(select_greedily(models[:2], target, metric, "raw"), [1 - share, share])


@pytest.mark.parametrize("metric", ["mse", "rmse", "mae", "neg_median_absolute_error"])
def test_greedy_selection_is_its_definition(metric):
    for seed in range(5):
        models, target = make_members(6, 200, seed)
        models[5] = models[0]  # equal ones: the first is taken
        weights = select_greedily(models, target, metric, "raw")
        np.testing.assert_array_equal(weights, select_by_definition(models, target, metric))


@pytest.mark.parametrize("metric", ["msle", "rmsle"])
def test_greedy_selection_by_products_of_errors_is_that_by_rows(metric):
    models, target = make_members(8)
    by_definition = select_by_definition(np.log1p(models), np.log1p(target), metric.replace("sle", "se"))
    np.testing.assert_array_equal(select_greedily(models, target, metric, "z"), by_definition)


def test_greedy_selection_takes_probabilities():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 300)
    models = 1 / (1 + np.exp(-2 * (target - 0.5) - rng.normal(0, [[1.0], [1.5], [3.0]], (3, 300))))
    for metric, error in (("log_loss", log_loss), ("roc_auc", lambda t, p: -roc_auc_score(t, p))):
        weights = select_greedily(models, target, metric, "raw", num_steps=10)
        assert error(target, weights @ models) < min(error(target, model) for model in models)
        assert measure_error(metric, target, models[0]) == pytest.approx(error(target, models[0]), rel=1e-12)


def test_simplex_weights_are_those_of_a_general_optimiser():
    models, target = make_members(6)
    fitted = fit("simplex", models, target)

    def error(weights):
        return 1e3 * ((weights @ np.log1p(models) - np.log1p(target)) ** 2).mean()

    general = optimize.minimize(
        error,
        np.full(6, 1 / 6),
        method="SLSQP",
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    np.testing.assert_allclose(fitted.weights_M, general.x, atol=1e-3)
    assert error(fitted.weights_M) <= general.fun * (1 + 1e-9)


def test_simplex_weights_of_a_mixture_are_the_mixture():
    models, _ = make_members(4)
    mixture = np.array([0.7, 0.3, 0, 0])
    np.testing.assert_allclose(fit("simplex", models, mixture @ models, space="raw").weights_M, mixture, atol=1e-6)


def test_ridge_weights_are_those_of_scikit_learn_and_correct_a_shared_bias():
    models, target = make_members()
    models = np.expm1(np.log1p(models) + 1)
    fitted = fit("ridge", models, target)
    logs, truth = np.log1p(models).T, np.log1p(target)
    left_out = {}
    for strength in np.logspace(-8, 2, 21):
        alpha = strength * len(target) * logs.var(axis=0).mean()
        centred = logs - logs.mean(axis=0)
        hat = centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(5), centred.T) + 1 / len(target)
        left_out[alpha] = (((truth - hat @ truth) / (1 - hat.diagonal())) ** 2).mean()
    expected = Ridge(alpha=min(left_out, key=left_out.get)).fit(logs, truth)
    np.testing.assert_allclose(fitted.weights_M, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(fitted.predict(models), np.expm1(expected.predict(logs)).clip(0), rtol=1e-6)
    assert (
        measure_error("msle", target, fitted.predict(models))
        < 0.3
        < 1
        < measure_error("msle", target, models.mean(axis=0))
    )


@pytest.mark.parametrize("method", FITTED_METHODS)
@pytest.mark.parametrize("space", ["z", "raw"])
def test_the_order_of_the_models_moves_their_weights_along(method, space):
    models, target = make_members()
    order = [2, 0, 4, 1, 3]
    metric = "msle" if space == "z" else "mse"
    straight, turned = fit(method, models, target, metric, space), fit(method, models[order], target, metric, space)
    np.testing.assert_allclose(turned.weights_M, straight.weights_M[order], atol=1e-6)


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_a_model_given_twice_changes_no_prediction(method):
    models, target = make_members()
    once, twice = fit(method, models, target), fit(method, models[[0, 0, 1, 2, 3, 4]], target)
    np.testing.assert_allclose(twice.predict(models[[0, 0, 1, 2, 3, 4]]), once.predict(models), rtol=0.03)


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_a_constant_model_does_no_harm(method):
    models, target = make_members()
    with_constant = np.concatenate([models, np.full((1, 400), 150.0)])
    errors = [measure_error("msle", target, fit(method, m, target).predict(m)) for m in (models, with_constant)]
    assert errors[1] <= errors[0] * 1.001


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_one_model_has_all_the_weight(method):
    models, target = make_members(1)
    fitted = fit(method, models, target)
    assert fitted.weights_M == pytest.approx(1, abs=0 if method != "ridge" else 0.3)


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_models_without_error_are_used_as_they_are(method):
    target = make_members()[1]
    fitted = fit(method, np.stack([target, target]), target)
    np.testing.assert_allclose(fitted.predict(np.stack([target, target])), target, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", FITTED_METHODS)
def test_values_that_are_no_numbers_or_do_not_fit_are_refused(method):
    models, target = make_members()
    models[1, 3] = np.nan
    with pytest.raises(ValueError, match="1 predictions are NaN or infinite"):
        fit(method, models, target)
    with pytest.raises(ValueError, match=r"\(5, 400\) and target \(399,\)"):
        fit(method, models, target[1:])
    with pytest.raises(ValueError, match="'mean' is not fitted"):
        fit("mean", models, target)


def test_an_unknown_metric_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of msle, rmsle, mse, rmse, mae, log_loss"):
        select_greedily(*make_members(), "mslee")
    with pytest.raises(ValueError, match="log_loss needs probabilities from 0 to 1"):
        measure_error("log_loss", np.array([0, 1]), np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match="r2 is not defined for these 1 rows"):
        measure_error("r2", np.array([1.0]), np.array([1.5]))
    assert measure_error("mae", [1, 2], [1, 4]) == mean_absolute_error([1, 2], [1, 4])
