"""CV+ intervals: their definition, their coverage, and what is refused."""

import math

import numpy as np
import pytest

from ensemble.members.cv_plus import bound_coverage, interval_kind
from ensemble.numbers.intervals import predict_intervals


def cross_validate(num_rows, num_folds, num_test, seed):
    """A ridge regression on made-up rows: test predictions (K, T), out-of-fold predictions, targets, folds, true test
    values."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (num_rows + num_test, 6))
    logs = features @ np.array([1, -1, 0.5, 0, 0, 0.2]) + 6 + rng.standard_t(4, len(features)) * 0.5
    train, test, fold = features[:num_rows], features[num_rows:], rng.permutation(num_rows) % num_folds
    models = []
    for k in range(num_folds):
        seen = np.column_stack([np.ones((fold != k).sum()), train[fold != k]])
        models.append(np.linalg.solve(seen.T @ seen + np.eye(7), seen.T @ logs[:num_rows][fold != k]))
    predicted = np.stack([model[0] + features @ model[1:] for model in models])
    oof = predicted[fold, np.arange(num_rows)]
    values = [predicted[:, num_rows:], oof, logs[:num_rows]]
    assert len(test) == num_test
    return *(np.expm1(v).clip(0) for v in values), fold, np.expm1(logs[num_rows:]).clip(0)


def interval_by_definition(tests_K, oof_N, target_N, fold_N, level):
    """Barber et al. (2021), equation for CV+, one new row, raw space."""
    num_rows, alpha = len(target_N), 1 - level
    lower = sorted(tests_K[fold] - abs(y - p) for y, p, fold in zip(target_N, oof_N, fold_N, strict=True))
    upper = sorted(tests_K[fold] + abs(y - p) for y, p, fold in zip(target_N, oof_N, fold_N, strict=True))
    low, high = math.floor(round(alpha * (num_rows + 1), 9)), math.ceil(round((1 - alpha) * (num_rows + 1), 9))
    return (lower[low - 1] if low else -np.inf), (upper[high - 1] if high <= num_rows else np.inf)


@pytest.mark.parametrize(("num_rows", "level"), [(9, 0.9), (8, 0.9), (50, 0.8), (61, 0.95)])
def test_an_interval_is_the_papers_definition(num_rows, level):
    tests, oof, target, fold, _ = cross_validate(num_rows, 3, 4, 0)
    low, high = predict_intervals(tests, oof, target, fold, level, "raw")
    expected = [interval_by_definition(tests[:, t], oof, target, fold, level) for t in range(4)]
    np.testing.assert_allclose(np.stack([low, high], axis=1), expected)


@pytest.mark.parametrize(("num_folds", "space"), [(3, "z"), (5, "raw"), (10, "z")])
def test_intervals_of_90_percent_hold_at_least_88_percent_of_new_rows(num_folds, space):
    covered = []
    for seed in range(25):
        *arrays, truth = cross_validate(1000, num_folds, 200, seed)
        low, high = predict_intervals(*arrays, level=0.9, space=space)
        covered.append(((low <= truth) & (truth <= high)).mean())
    assert 0.88 <= np.mean(covered) <= 0.93


def test_in_z_space_no_end_is_below_zero_and_too_few_rows_give_no_upper_end():
    arrays = cross_validate(8, 2, 5, 0)[:4]
    low, high = predict_intervals(*arrays, level=0.9)
    assert (low == 0).all()
    assert np.isinf(high).all()


def test_the_guaranteed_floor_is_theorem_4s():
    assert bound_coverage(0.9, 2178, 3) == pytest.approx(0.8 - min(2 * (2 / 3) / 727, (1 - 3 / 2178) / 4))
    assert bound_coverage(0.9, 2178, 3) == pytest.approx(0.798, abs=5e-4)
    assert bound_coverage(0.9, 100, 100) == pytest.approx(0.8)  # jackknife+: 1 - 2α
    for num_rows in (50, 1000):
        for num_folds in (2, 5, num_rows):
            assert bound_coverage(0.9, num_rows, num_folds) >= 0.8 - (2 / num_rows) ** 0.5


def test_only_random_folds_with_final_checkpoints_are_called_cv_plus():
    assert interval_kind("random", "final") == "cv+"
    for folds, checkpoint in (
        ("random", "best"),
        ("grouped", "final"),
        ("stratified", "final"),
        ("predefined", "final"),
    ):
        assert interval_kind(folds, checkpoint) == "empirical"
    with pytest.raises(ValueError, match=r"folds.kind=time: expected another kind of folds"):
        interval_kind("time", "final")


def test_folds_that_do_not_fit_the_models_are_refused():
    tests, oof, target, fold, _ = cross_validate(30, 3, 2, 0)
    with pytest.raises(ValueError, match=r"rows of each of the folds 0 to 1"):
        predict_intervals(tests[:2], oof, target, fold)
    with pytest.raises(ValueError, match="level=90"):
        predict_intervals(tests, oof, target, fold, level=90)
    with pytest.raises(ValueError, match="1 predictions are NaN"):
        predict_intervals(tests, np.where(np.arange(30) == 3, np.nan, oof), target, fold)
