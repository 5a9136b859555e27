"""The error on new rows with its interval, and whether rows are exchangeable."""

import numpy as np
import pytest

from ensemble.kinds import load_kind
from ensemble.members.exchangeability import Exchangeability, judge_new_rows, judge_order
from ensemble.members.new_error import estimate_new_error, find_widening

NUMBERS = load_kind("number")


def draw(num_rows, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(0, 1, num_rows)
    return target, target + rng.normal(0, 0.5, num_rows)


def test_the_interval_of_rows_that_no_model_has_seen_is_the_bootstraps():
    target, prediction = draw(400)
    found = estimate_new_error(NUMBERS, "mse", target, prediction, None)
    errors, drawn = NUMBERS.draw_errors("mse", target, prediction[None])
    assert found.error == errors[0]
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), rel=0.01)
    assert found.widening == pytest.approx(1, abs=0.01)


def test_that_of_out_of_fold_rows_is_wider_and_less_so_with_more_rows_and_fewer_folds():
    for folds in (3, 5, 10):
        assert find_widening(folds, 300) > find_widening(folds, 3000) > 1
        assert find_widening(folds, 10) == find_widening(folds, 100)
    assert find_widening(10, 300) > find_widening(7, 300) == find_widening(5, 300) > find_widening(2, 300)
    target, prediction = draw(400)
    alone = estimate_new_error(NUMBERS, "mse", target, prediction, None)
    wider = estimate_new_error(NUMBERS, "mse", target, prediction, 5)
    assert wider.error == alone.error
    assert (wider.high - wider.low) / (alone.high - alone.low) == pytest.approx(find_widening(5, 400))


def test_rows_of_a_group_are_drawn_together():
    target, prediction = draw(40)
    units = np.repeat(np.arange(40), 10)
    found = estimate_new_error(NUMBERS, "mse", np.repeat(target, 10), np.repeat(prediction, 10), 3, units)
    alone = estimate_new_error(NUMBERS, "mse", target, prediction, 3)
    assert found.num_units == alone.num_units == 40
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_most_intervals_hold_the_error_on_new_rows():
    held = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, weights = rng.normal(size=(150, 20)), np.arange(20) / 10
        y = x @ weights + rng.normal(0, 2, 150)
        fold, predicted, errors = rng.permutation(150) % 5, np.empty(150), []
        for number in range(5):
            learned = np.linalg.lstsq(x[fold != number], y[fold != number], rcond=None)[0]
            predicted[fold == number] = x[fold == number] @ learned
            errors.append(((learned - weights) ** 2).sum() + 4)  # of new rows, known exactly
        found = estimate_new_error(NUMBERS, "mse", y, predicted, 5, num_draws=200)
        held.append(found.low <= np.mean(errors) <= found.high)
    assert np.mean(held) >= 0.9


def test_the_order_of_exchangeable_errors_is_not_rejected_more_often_than_the_level():
    p_values = [judge_order(np.random.default_rng(seed).standard_t(3, 200), seed) for seed in range(60)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.15


@pytest.mark.parametrize("what", ["direction", "size"])
def test_errors_that_drift_along_the_table_are_rejected(what):
    rng, at = np.random.default_rng(1), np.linspace(-1, 1, 400)
    errors = rng.normal(0, 1, 400) + 0.7 * at if what == "direction" else rng.normal(0, 1, 400) * np.exp(0.6 * at)
    assert judge_order(errors) < 0.01


def test_new_rows_that_are_predicted_otherwise_are_rejected():
    rng = np.random.default_rng(2)
    validated = [rng.normal(0, 1, 300) for _ in range(3)]
    like, other = rng.normal(0, 1, (3, 200)), rng.normal(0.5, 1, (3, 200))
    assert judge_new_rows(validated, like) > 0.05
    assert judge_new_rows(validated, other) < 0.01
    assert judge_new_rows(validated, np.empty((3, 0))) is None


def test_two_tests_share_the_level():
    assert not Exchangeability(0.03, 0.4).is_rejected
    assert Exchangeability(0.02, 0.4).is_rejected
    assert Exchangeability(0.03, None).is_rejected
    assert not Exchangeability(None, None).is_rejected


def test_an_interval_ends_where_errors_end():
    """Of an accuracy at 0 and 1: widening goes no further."""
    kind, rows = load_kind("classes"), 60
    target_N, chance_NC = np.arange(rows) % 2, np.full((rows, 2), 0.1)
    chance_NC[np.arange(rows), target_N] = 0.9
    chance_NC[:2] = chance_NC[:2, ::-1]
    found = estimate_new_error(kind, "accuracy", target_N, chance_NC, 3)
    assert found.error == pytest.approx(2 / rows)
    assert found.low == 0.0
    wrong = estimate_new_error(kind, "accuracy", target_N, chance_NC[:, ::-1], 3)
    assert wrong.error == pytest.approx(1 - 2 / rows)
    assert wrong.high == 1.0
    assert estimate_new_error(NUMBERS, "mse", *draw(3), 10).low >= 0.0


def test_rows_that_are_all_right_are_not_taken_for_certainty():
    target_N = np.arange(60) % 2
    with pytest.raises(ValueError, match="60 rows on which the error is the same however they are drawn"):
        estimate_new_error(load_kind("classes"), "accuracy", target_N, np.eye(2)[target_N], 3)
    target, _ = draw(60)
    with pytest.raises(ValueError, match="60 rows on which the error is the same"):
        estimate_new_error(NUMBERS, "mae", target, target + 0.1, 3)
