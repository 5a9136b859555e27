"""Paired bootstrap: intervals that cover, the same draws for the same seed, bounds that hold for many candidates at
once."""

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import mean_squared_log_error, roc_auc_score

from ensemble.kinds import load_kind
from ensemble.members import comparison
from ensemble.members.comparison import Repeated
from ensemble.numbers.metrics import draw_errors

compare_pair = partial(comparison.compare_pair, load_kind("number"))
compare_with_baseline = partial(comparison.compare_with_baseline, load_kind("number"))


def make_pair(num_rows=300, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.lognormal(4, 1, num_rows)
    return target, *(target * rng.lognormal(0, 0.5, (2, num_rows)))


@pytest.mark.parametrize("metric", ["msle", "rmsle", "mae", "neg_median_absolute_error"])
def test_drawn_errors_are_errors_of_drawn_rows(metric):
    target, first, _ = make_pair(50)
    _, drawn = draw_errors(metric, target, first[None], num_draws=40)
    rng = np.random.default_rng(0)
    rows = rng.integers(50, size=(40, 50))  # the same stream of random numbers
    expected = [draw_errors(metric, target[r], first[r][None], num_draws=1)[0][0] for r in rows]
    np.testing.assert_allclose(drawn[:, 0], expected, rtol=1e-9)


def test_a_difference_is_paired_and_repeatable():
    target, first, second = make_pair()
    found = compare_pair("msle", target, first, second)
    difference = mean_squared_log_error(target, first) - mean_squared_log_error(target, second)
    assert found.difference == pytest.approx(difference)
    assert found.low < found.difference < found.high
    assert found == compare_pair("msle", target, first, second)
    assert found != compare_pair("msle", target, first, second, seed=1)
    nearly = compare_pair("msle", target, first, first * 1.001)
    assert nearly.high - nearly.low < 0.01 * (found.high - found.low)  # what is hard for both cancels


def test_an_interval_covers_the_true_difference_about_as_often_as_it_says():
    covered = []
    for seed in range(200):  # both are equally good: the true difference is 0
        found = compare_pair("msle", *make_pair(200, seed), level=0.9, num_draws=300)
        covered.append(found.low <= 0 <= found.high)
    assert 0.84 <= np.mean(covered) <= 0.95


def test_rows_of_an_id_are_drawn_together():
    target, first, second = make_pair(100)
    repeated = [np.repeat(values, 4) for values in (target, first, second)]
    once = compare_pair("mae", target, first, second)
    grouped = compare_pair("mae", *repeated, unit_N=np.repeat([f"id {n:03d}" for n in range(100)], 4))
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))


def test_many_draws_of_many_rows_are_made_in_blocks_without_a_seam():
    target, first, _ = make_pair(3000)
    _, few = draw_errors("msle", target, first[None], num_draws=10)
    _, many = draw_errors("msle", target, first[None], num_draws=1000)
    np.testing.assert_allclose(many[:10], few)


def test_the_best_of_many_equals_is_seldom_called_better():
    won, won_alone = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        target = rng.lognormal(4, 1, 200)
        models = target * rng.lognormal(0, 0.5, (31, 200))
        found = compare_with_baseline("msle", target, models[1:], models[0], num_draws=300)
        won.append((found.low_C > 0).any())
        best = int(found.improvement_C.argmax())
        won_alone.append(compare_pair("msle", target, models[0], models[1 + best], num_draws=300, level=0.9).low > 0)
    assert np.mean(won) <= 0.11 < 0.3 < np.mean(won_alone)


def test_a_better_candidate_is_found_and_the_baseline_itself_is_no_improvement():
    target, first, second = make_pair()
    better = np.sqrt(first * target)
    found = compare_with_baseline("msle", target, np.stack([second, better, first]), first)
    assert found.low_C[1] > 0 > found.low_C[0]
    assert found.improvement_C[2] == found.low_C[2] == 0
    alone = compare_with_baseline("msle", target, first[None], first)
    assert alone.low_C == [0]


@pytest.mark.parametrize("metric", ["r2", "explained_variance", "d2_absolute_error_score", "neg_mean_squared_error"])
def test_scorers_with_values_of_either_sign_have_bounds_beside_the_baseline_itself(metric):
    target, first, second = make_pair()
    better = np.sqrt(first * target)
    found = compare_with_baseline(metric, target, np.stack([first, better, second]), first, num_draws=30)
    assert np.isfinite(found.low_C).all()
    assert found.improvement_C[0] == found.low_C[0] == 0
    assert found.improvement_C[1] > found.low_C[1] > 0
    alone = compare_with_baseline(metric, target, np.stack([better, second]), first, num_draws=30)
    assert (found.low_C[1:] == alone.low_C).all()


def test_what_differs_by_rounding_alone_widens_no_bound_of_a_positive_scorer():
    target, first, _ = make_pair()
    better = np.sqrt(first * target)
    found = compare_with_baseline("r2", target, np.stack([first * (1 + 1e-15), better]), first, num_draws=30)
    alone = compare_with_baseline("r2", target, better[None], first, num_draws=30)
    assert found.low_C[1] == pytest.approx(alone.low_C[0], rel=1e-9)
    assert alone.low_C[0] > 0


def test_samples_for_which_a_scorer_is_not_defined_are_left_out():
    target = np.array([1.0] + [0.0] * 30)
    _, drawn = draw_errors("roc_auc", target, np.linspace(1, 0, 31)[None])
    assert 80 < len(drawn) < 160  # of 200: in a sample of 1 / e the only one is missing
    assert np.isfinite(drawn).all()
    with pytest.raises(ValueError, match="roc_auc is not defined for"):
        draw_errors("roc_auc", np.zeros(30), np.linspace(1, 0, 30)[None])


def test_a_scorer_of_probabilities_is_drawn_too():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 200)
    first, second = (1 / (1 + np.exp(-target - rng.normal(0, sigma, 200))) for sigma in (0.5, 3))
    found = compare_pair("roc_auc", target, first, second, num_draws=40)
    assert found.difference == pytest.approx(roc_auc_score(target, second) - roc_auc_score(target, first))
    assert found.high < 0


def test_one_unit_cannot_be_drawn():
    with pytest.raises(ValueError, match="expected one each, at least 2 kinds"):
        compare_pair("mse", *make_pair(10), unit_N=np.zeros(10))


def make_trainings(seed, noise=0.3, num_seeds=4):
    """A target, and trainings of two recipes that are equally good."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=200)
    error = rng.normal(size=200)
    return target, [target + error * (1 + rng.normal(scale=noise, size=(num_seeds, 1))) for _ in range(2)]


def rank_trainings(target, trainings, sources=("run", "run"), **options):
    together = np.stack([one.mean(axis=0) for one in trainings])
    repeated = [Repeated(one, source) for one, source in zip(trainings, sources, strict=True)]
    return comparison.rank(load_kind("number"), "mse", target, together, [0], repeated_C=repeated, **options)


def test_what_another_seed_changes_is_in_the_interval_of_several_trainings():
    excluded = {"rows": 0, "seeds": 0, "other runs": 0}
    for seed in range(60):
        target, trainings = make_trainings(seed)
        together = np.stack([one.mean(axis=0) for one in trainings])
        found = {
            "rows": comparison.rank(load_kind("number"), "mse", target, together, [0], num_draws=200),
            "seeds": rank_trainings(target, trainings, num_draws=200),
            "other runs": rank_trainings(target, trainings, ("one", "other"), num_draws=200),
        }
        for name, ranking in found.items():
            excluded[name] += ranking.difference_low_C[1] > 0 or ranking.difference_high_C[1] < 0
    assert excluded["rows"] > 30
    assert excluded["seeds"] <= 6
    assert excluded["other runs"] <= 6


def test_trainings_that_are_alike_change_no_interval():
    target, (model, _) = make_trainings(0, noise=0)
    better = 0.9 * model + 0.1 * target
    with_seeds, rows = rank_trainings(target, [model, better]), rank_trainings(target, [model[:1], better[:1]])
    for name in ("low_C", "high_C", "difference_low_C", "difference_high_C"):
        np.testing.assert_allclose(getattr(with_seeds, name), getattr(rows, name), rtol=1e-9, atol=1e-12)
    assert [len(one) for one in with_seeds.seed_errors] == [4, 4]
    assert rows.difference_low_C[0] == rows.difference_high_C[0] == 0


def test_seeds_of_one_run_go_together_and_those_of_two_do_not():
    rng = np.random.default_rng(0)
    target, shifts = rng.normal(size=100), rng.normal(scale=2, size=(4, 1))
    first = np.tile(target + rng.normal(size=100), (4, 1)) + shifts  # the same seed changes both alike
    second = first + rng.normal(scale=0.01, size=100)
    paired, apart = (rank_trainings(target, [first, second], sources) for sources in (("a", "a"), ("a", "b")))
    widths = [one.difference_high_C[1] - one.difference_low_C[1] for one in (paired, apart)]
    assert widths[1] > 10 * widths[0]
