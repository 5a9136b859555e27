"""Choosing among many combinations: what is tried, that the choice is scored outside, and that luck replaces
nothing."""

import numpy as np
import pytest

from ensemble.combination import Combination
from ensemble.kinds import load_kind
from ensemble.members import search as members_search
from ensemble.members.search import Candidate, choose
from ensemble.numbers.columns import NumberColumns
from ensemble.numbers.methods.combinations import TRIMS, WEIGHT_POWERS, list_combinations, predict_cross_fitted
from ensemble.numbers.metrics import measure_error

NUMBERS = load_kind("number")
NAMES = ("a", "b", "c")


def list_candidates(names, checkpoints, spaces, metric):
    return members_search.list_candidates(names, checkpoints, list_combinations(spaces, metric, TRIMS, WEIGHT_POWERS))


def evaluate(candidate, columns):
    (evaluation,) = columns.evaluate([(candidate.members, candidate.how)])
    return evaluation


def make_columns(errors, num_rows=300, seed=0):
    """Members that err by these standard deviations in z."""
    rng = np.random.default_rng(seed)
    z = rng.normal(4, 1, num_rows)
    oof = np.stack([z + rng.normal(0, error, num_rows) for error in errors])
    ids = np.array([f"r{i}" for i in range(num_rows)])
    names = tuple("abcdefgh"[: len(errors)])
    return NumberColumns(names, ids, rng.integers(0, 3, num_rows), np.expm1(z.clip(0)), np.expm1(oof.clip(0)))


def search(columns, spaces=("z",), metric="msle"):
    default = Candidate(columns.names, "best", Combination("mean", metric=metric))
    candidates = list(dict.fromkeys([default, *list_candidates(columns.names, ["best"], spaces, metric)]))
    evaluations = [evaluate(one, columns) for one in candidates]
    num_draws = 400 if metric == "msle" else 20
    return candidates, choose(NUMBERS, evaluations, 0, columns, metric, num_draws=num_draws)


def test_what_comes_to_the_same_is_tried_once():
    candidates = list_candidates(NAMES, ["best", "final"], ["z", "raw"], "msle")
    assert len(set(candidates)) == len(candidates)
    alone = [one for one in candidates if len(one.members) == 1]
    assert len(alone) == 3 * 2
    assert {one.how.method for one in alone} == {"mean"}
    pairs = {(one.how.method, one.how.space) for one in candidates if len(one.members) == 2}
    assert not {("median", "z"), ("trimmed_mean", "z"), ("geometric_mean", "z")} & pairs
    assert ("geometric_mean", "raw") in pairs
    everyone = [one for one in candidates if len(one.members) == 3]
    assert {one.how.weight_power for one in everyone if one.how.method == "weighted_mean"} == {1.0, 2.0, 4.0, 8.0}
    assert len(everyone) == 2 * (
        9 + 10
    )  # z: mean, median, 4 weighted means, 3 fitted less one trimmed mean; raw: and geometric
    assert {
        one.how.trim for one in list_candidates([*NAMES, "d", "e"], ["best"], ["z"], "msle") if "trim" in one.how.method
    } == {0.2, 0.3}


def test_many_members_are_tried_together_without_each_and_alone():
    names = [f"m{i}" for i in range(20)]
    subsets = {one.members for one in list_candidates(names, ["best"], ["z"], "msle")}
    assert sorted(map(len, subsets)) == [1] * 20 + [19] * 20 + [20]


def test_the_choice_inside_a_fold_sees_nothing_of_the_fold():
    columns = make_columns([0.3, 0.5, 0.8])
    changed = columns.target_N.copy()
    changed[columns.fold_N == 1] *= 7
    other = NumberColumns(columns.names, columns.ids_N, columns.fold_N, changed, columns.oof_MN)
    for how in (
        Combination("simplex"),
        Combination("ridge"),
        Combination("weighted_mean", weight_power=2.0),
        Combination("median"),
    ):
        before, after = (evaluate(Candidate(NAMES, "best", how), each) for each in (columns, other))
        assert before.inner_F[1] == after.inner_F[1]
        assert before.inner_F[0] != after.inner_F[0]
        held = columns.fold_N == 1
        np.testing.assert_array_equal(before.cross_fitted_N[held], after.cross_fitted_N[held])


def test_the_nested_score_is_that_of_the_combinations_chosen_inside_the_folds():
    columns = make_columns([0.3, 0.5, 0.8])
    candidates, choice = search(columns)
    nested = np.empty(len(columns.target_N))
    for fold, chosen in enumerate(choice.chosen_F):
        held = columns.fold_N == fold
        one = candidates[chosen]
        nested[held] = predict_cross_fitted(one.how, columns.take(one.members))[held]
    assert choice.nested_error == pytest.approx(measure_error("msle", columns.target_N, nested), rel=1e-12)
    assert choice.winner == choice.error_C.argmin()


def test_members_of_different_worth_replace_the_plain_mean():
    _, choice = search(make_columns([0.2, 0.6, 1.2], 1000))
    assert choice.replaces
    assert choice.nested_error < choice.error_C[choice.default]


@pytest.mark.parametrize("metric", ["r2", "explained_variance"])
def test_the_winner_by_a_scorer_with_positive_values_replaces_the_default_too(metric):
    _, choice = search(make_columns([0.2, 1.2], 200), metric=metric)
    assert choice.replaces
    assert choice.improvement_low_C[choice.winner] > 0 == choice.improvement_low_C[choice.default]
    assert np.isfinite(choice.improvement_low_C).all()


def test_luck_seldom_replaces_the_default():
    """Members that are equally good, and calibrated: in truth nothing beats their mean by more than a hair. One in 20
    may."""

    def replaces(seed):
        rng = np.random.default_rng(seed)
        known, chance = rng.normal(5, 1, 300), rng.normal(0, 0.7, 300)
        oof = np.expm1((known + rng.normal(0, 0.05, (3, 300))).clip(0))
        ids = np.array([f"r{i}" for i in range(300)])
        columns = NumberColumns(NAMES, ids, rng.integers(0, 3, 300), np.expm1((known + chance).clip(0)), oof)
        return search(columns)[1].replaces

    assert sum(replaces(seed) for seed in range(20)) <= 3


def test_two_folds_are_enough():
    columns = make_columns([0.2, 0.6])
    halves = NumberColumns(columns.names, columns.ids_N, columns.fold_N % 2, columns.target_N, columns.oof_MN)
    one = evaluate(Candidate(columns.names, "best", Combination("simplex")), halves)
    assert np.isfinite(one.inner_F).all()
    assert one.inner_F.shape == (2,)
