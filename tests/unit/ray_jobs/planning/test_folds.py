"""Which rows train and validate in each fold."""

from dataclasses import replace

import numpy as np
import pytest

from ensemble.kinds import load_kind
from ray_jobs.config.folds import BLEND, FoldsConfig
from ray_jobs.planning.continuation import _predict_constants
from ray_jobs.planning.folds import plan_folds
from trainers.interface import DataError, Inventory


def make_inventory(n=60, **columns):
    rng = np.random.default_rng(0)
    target = np.expm1(rng.normal(6, 2, n)).clip(0)
    return Inventory(np.array([f"r{i}" for i in range(n)]), target, "views", 0, "fingerprint", **columns)


@pytest.mark.parametrize("kind", ["random", "stratified"])
def test_every_row_is_validated_once_and_never_trained_on_in_that_fold(kind):
    plan = plan_folds(FoldsConfig(count=4, kind=kind), make_inventory())
    validated = np.concatenate([plan.split(fold).validation_ids for fold in range(4)])
    assert sorted(validated) == sorted(plan.ids)
    for fold in range(4):
        split = plan.split(fold)
        assert not set(split.train_ids) & set(split.validation_ids)
        assert len(split.train_ids) + len(split.validation_ids) == 60


def test_the_same_seed_gives_the_same_folds_and_another_seed_others():
    first, again = (plan_folds(FoldsConfig(seed=1), make_inventory()).fold for _ in range(2))
    assert (first == again).all()
    assert (first != plan_folds(FoldsConfig(seed=2), make_inventory()).fold).any()


def test_stratified_folds_have_closer_target_means_than_random_ones():
    def unevenness(kind):
        inventory = make_inventory(300)
        spreads = []
        for seed in range(5):
            plan = plan_folds(FoldsConfig(kind=kind, seed=seed), inventory)
            spreads.append(np.std([np.log1p(inventory.target)[plan.fold == fold].mean() for fold in range(3)]))
        return np.mean(spreads)

    assert unevenness("stratified") < 0.5 * unevenness("random")


@pytest.mark.parametrize("kind", ["grouped", "stratified_grouped"])
def test_a_group_is_never_split(kind):
    groups = np.array([f"g{i % 7}" for i in range(60)])
    plan = plan_folds(FoldsConfig(kind=kind), make_inventory(groups=groups))
    for group in set(groups):
        assert len(set(plan.fold[groups == group])) == 1
    assert set(plan.fold) == {0, 1, 2}


def test_time_ordered_folds_validate_on_later_rows_than_they_train_on():
    time = np.random.default_rng(1).permutation(60).astype(float)
    plan = plan_folds(FoldsConfig(kind="time"), make_inventory(time=time))
    when = dict(zip(plan.ids, time, strict=True))
    for fold in range(3):
        split = plan.split(fold)
        assert max(when[i] for i in split.train_ids) < min(when[i] for i in split.validation_ids)
    assert (plan.fold == -1).sum() == 15


def test_predefined_folds_are_taken_as_they_are():
    column = np.array([-1] * 6 + [i % 3 for i in range(54)])
    plan = plan_folds(FoldsConfig(kind="predefined"), make_inventory(predefined_fold=column))
    assert (plan.fold == column).all()
    assert all(set(plan.ids[:6]) <= set(plan.split(fold).train_ids) for fold in range(3))


@pytest.mark.parametrize(
    ("folds", "columns", "message"),
    [
        (FoldsConfig(count=40), {}, "60 usable training rows for 40 folds"),
        (FoldsConfig(kind="grouped"), {}, "set data.group_column"),
        (FoldsConfig(kind="grouped"), {"groups": np.array(["a", "b"] * 30)}, "2 groups for 3 folds"),
        (FoldsConfig(kind="time"), {}, "set data.date_column"),
        (FoldsConfig(kind="predefined"), {"predefined_fold": np.array([0, 1] * 30)}, r"holds folds \[0, 1\]"),
    ],
)
def test_data_that_cannot_be_divided_is_refused_with_the_reason(folds, columns, message):
    with pytest.raises(DataError, match=message):
        plan_folds(folds, make_inventory(**columns))


def test_rows_of_one_day_stay_on_one_side_of_a_time_border():
    time = np.sort(np.random.default_rng(0).integers(0, 12, 60)).astype(float)
    plan = plan_folds(FoldsConfig(kind="time"), make_inventory(time=time))
    for day in np.unique(time):
        assert len(set(plan.fold[time == day])) == 1


def test_rows_that_all_have_one_time_cannot_be_ordered():
    with pytest.raises(DataError, match="1 different times"):
        plan_folds(FoldsConfig(kind="time"), make_inventory(time=np.zeros(60)))


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped", "time"])
def test_no_fold_trains_or_validates_on_the_blend_set(kind):
    columns = {"groups": np.array([f"g{i % 20}" for i in range(60)]), "time": np.arange(60.0)}
    plan = plan_folds(FoldsConfig(kind=kind, blend_fraction=0.2), make_inventory(**columns))
    blend = set(plan.ids[plan.fold == BLEND])
    assert len(blend) == 12
    for fold in range(3):
        split = plan.split(fold)
        assert set(split.blend_ids) == blend
        assert not blend & {*split.train_ids, *split.validation_ids}
    if kind == "grouped":
        assert all(len(set(plan.fold[columns["groups"] == group] == BLEND)) == 1 for group in columns["groups"])
    if kind == "time":
        assert blend == set(plan.ids[-12:])


def test_a_users_own_folds_may_mark_a_blend_set():
    own = np.array([0, 1, 2, -1, -2, -2] * 10)
    plan = plan_folds(FoldsConfig(kind="predefined"), make_inventory(predefined_fold=own))
    assert plan.split(0).blend_ids.tolist() == plan.ids[own == -2].tolist()
    assert plan.ids[3] in plan.split(0).train_ids


def test_a_blend_set_that_leaves_too_few_rows_is_refused():
    with pytest.raises(DataError, match=r"blend_fraction=0.5 holds out 4 of 7 rows"):
        plan_folds(FoldsConfig(count=2, blend_fraction=0.5), make_inventory(7))
    with pytest.raises(ValueError, match="mark the blend set with -2"):
        FoldsConfig(kind="predefined", blend_fraction=0.1)


@pytest.mark.parametrize("given", ["target", "strata"])
def test_rows_whose_target_is_no_number_are_stratified_by_it_or_by_what_the_family_says(given):
    types = np.array(["sum", "difference", "largest", "largest"] * 15)
    answers = {"target": types, "strata": None} if given == "target" else {"target": None, "strata": types}
    plan = plan_folds(FoldsConfig(kind="stratified"), replace(make_inventory(), **answers))
    for fold in range(3):
        assert [np.sum(types[plan.fold == fold] == name) for name in ("sum", "difference", "largest")] == [5, 5, 10]


def test_rows_without_a_target_are_divided_at_random_and_by_groups_and_not_stratified():
    inventory = replace(make_inventory(groups=np.array([f"g{i % 7}" for i in range(60)])), target=None, target_name="")
    for kind in ("random", "grouped"):
        assert set(plan_folds(FoldsConfig(kind=kind), inventory).fold) == {0, 1, 2}
    with pytest.raises(DataError, match=r"folds\.kind=stratified needs a target or strata, and the rows have neither"):
        plan_folds(FoldsConfig(kind="stratified"), inventory)
    with pytest.raises(DataError, match="no target"):
        inventory.require_target()
    plan = plan_folds(FoldsConfig(), inventory)
    assert _predict_constants(load_kind("number"), plan, inventory) == []
