"""Which rows train and validate in each fold."""

from dataclasses import replace

import numpy as np
import pytest

from ensemble.kinds import load_kind
from ray_jobs.config.folds import BLEND, FoldsConfig
from ray_jobs.planning.continuation import _predict_constants
from ray_jobs.planning.folds import plan_folds
from trainers.interface import DataError, Inventory, RowKeys


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
        (
            FoldsConfig(kind="predefined"),
            {"predefined_fold": np.array([0, 1] * 30)},
            r"holds the folds \[0, 1\]: expected 0 to 2",
        ),
    ],
)
def test_data_that_cannot_be_divided_is_refused_with_the_reason(folds, columns, message):
    with pytest.raises(DataError, match=message):
        plan_folds(folds, make_inventory(**columns))


def test_few_groups_and_few_targets_leave_no_fold_empty():
    inventory = make_inventory(13, groups=np.array(list("aaabbccccdddd")))
    inventory = replace(inventory, target=np.array([1.0, 1, 0, 0, 2, 1, 0, 2, 0, 2, 2, 2, 2]))
    for seed in range(5):
        plan = plan_folds(FoldsConfig(count=4, kind="stratified_grouped", seed=seed), inventory)
        assert sorted(np.bincount(plan.fold).tolist()) == [2, 3, 4, 4]


@pytest.mark.parametrize("kind", ["grouped", "stratified_grouped"])
def test_groups_are_dealt_out_by_their_rows(kind):
    groups = np.repeat(np.arange(33), [100, 61, 55, 40, 30, 28, *[1] * 27])
    for seed in range(5):
        plan = plan_folds(FoldsConfig(kind=kind, seed=seed), make_inventory(len(groups), groups=groups))
        assert np.ptp(np.bincount(plan.fold)) <= 10, seed


def test_another_seed_deals_out_groups_of_different_sizes_otherwise():
    groups = np.repeat(np.arange(40), np.arange(1, 41))
    plans = [plan_folds(FoldsConfig(kind="grouped", seed=seed), make_inventory(820, groups=groups)) for seed in (0, 1)]
    together = [plan.fold[:, None] == plan.fold for plan in plans]
    assert (together[0] != together[1]).any()


def test_stratified_groups_have_closer_target_means_than_grouped_ones():
    def unevenness(kind):
        inventory, spreads = make_inventory(600, groups=np.arange(600) // 4), []
        inventory = replace(inventory, target=np.expm1(inventory.target.reshape(-1, 4).argsort(axis=0).T.ravel() / 40))
        for seed in range(5):
            plan = plan_folds(FoldsConfig(kind=kind, seed=seed), inventory)
            spreads.append(np.std([np.log1p(inventory.target)[plan.fold == fold].mean() for fold in range(3)]))
        return np.mean(spreads)

    assert unevenness("stratified_grouped") < 0.5 * unevenness("grouped")


@pytest.mark.parametrize("kind", ["grouped", "stratified_grouped", "holdout"])
def test_a_blend_set_of_groups_takes_none_from_a_fold(kind):
    count = 1 if kind == "holdout" else 5
    config = FoldsConfig(count=count, kind=kind, blend_fraction=0.1)
    few = np.arange(60) % max(2, count)
    with pytest.raises(
        DataError, match=r"groups for .* and a blend set: expected at least \d; .*leave out folds.blend_fraction"
    ):
        plan_folds(config, make_inventory(groups=few))
    enough = np.arange(60) % (max(2, count) + 2)
    plan = plan_folds(config, make_inventory(groups=enough))
    assert len(set(enough[plan.fold == BLEND])) == 2
    assert all(min(trained, validated) > 0 for _, trained, validated in plan.sizes())


def test_times_that_are_too_few_for_a_blend_set_are_refused_with_advice():
    with pytest.raises(
        DataError,
        match=r"4 different times for 3 time-ordered folds and a blend set: expected at least 5; lower .* to 2",
    ):
        plan_folds(FoldsConfig(kind="time", blend_fraction=0.1), make_inventory(time=np.arange(60.0) % 4))
    with pytest.raises(DataError, match=r"1 different time for .* choose another data.date_column"):
        plan_folds(FoldsConfig(kind="time", blend_fraction=0.1), make_inventory(time=np.zeros(60)))


@pytest.mark.parametrize("share", [0.1, 0.2])
@pytest.mark.parametrize("seed", range(5))
def test_held_out_shares_are_shares_of_the_rows(share, seed):
    groups = np.repeat(np.arange(21), [500, *[25] * 20])
    inventory = make_inventory(1000, groups=groups)
    blend = plan_folds(FoldsConfig(kind="grouped", seed=seed, blend_fraction=share), inventory).fold == BLEND
    assert blend.sum() == 1000 * share
    holdout = FoldsConfig(count=1, kind="holdout", seed=seed, holdout_fraction=share)
    assert plan_folds(holdout, inventory).sizes() == [(0, 1000 - 1000 * share, 1000 * share)]


def test_the_latest_rows_that_are_nearest_to_the_share_are_held_out():
    time = np.repeat(np.arange(10.0), [10, 10, 10, 10, 10, 10, 6, 4, 20, 10])
    plan = plan_folds(FoldsConfig(kind="time", blend_fraction=0.13), make_inventory(100, time=time))
    assert set(time[plan.fold == BLEND]) == {9}
    plan = plan_folds(FoldsConfig(kind="time", blend_fraction=0.25), make_inventory(100, time=time))
    assert set(time[plan.fold == BLEND]) == {8, 9}


def test_one_row_is_left_to_train_whatever_share_is_held_out():
    config = FoldsConfig(count=1, kind="holdout", holdout_fraction=0.95)
    assert plan_folds(config, make_inventory(10)).sizes() == [(0, 1, 9)]


def test_targets_below_zero_are_stratified_by_rank():
    target = np.random.default_rng(0).normal(-1e6, 1e5, 300)
    plan = plan_folds(FoldsConfig(kind="stratified"), replace(make_inventory(300), target=target))
    tenths = target.argsort().argsort() // 30
    assert all(np.ptp(np.bincount(tenths[plan.fold == fold])) <= 1 for fold in range(3))


def test_single_rows_are_divided_as_they_always_were():
    """New runs can be compared with runs of earlier versions; another scikit-learn may divide otherwise."""
    inventory = make_inventory(time=np.random.default_rng(1).permutation(60).astype(float))
    known = {
        "d6e98dc4caf7": FoldsConfig(),
        "46420cd3454a": FoldsConfig(seed=3, blend_fraction=0.1),
        "2acba535d2b3": FoldsConfig(kind="stratified"),
        "341b0389cdf7": FoldsConfig(kind="stratified", count=5, blend_fraction=0.2),
        "875d60cd4818": FoldsConfig(kind="time"),
        "e41e91357033": FoldsConfig(count=1, kind="holdout"),
    }
    assert [plan_folds(config, inventory).fingerprint()[:12] for config in known.values()] == list(known)


def test_rows_of_one_day_stay_on_one_side_of_a_time_border():
    time = np.sort(np.random.default_rng(0).integers(0, 12, 60)).astype(float)
    plan = plan_folds(FoldsConfig(kind="time"), make_inventory(time=time))
    for day in np.unique(time):
        assert len(set(plan.fold[time == day])) == 1


def test_rows_that_all_have_one_time_cannot_be_ordered():
    with pytest.raises(DataError, match="1 different time for"):
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


KINDS = ("random", "stratified", "grouped", "stratified_grouped", "time", "predefined", "holdout")


def draw_case(rng):
    """Few rows, few groups, one giant group, equal times, and targets of every sort."""
    n, kind = int(rng.integers(1, 60)), str(rng.choice(KINDS))
    num_groups = int(rng.integers(1, n + 1))
    groups = rng.integers(0, num_groups, n)
    groups[rng.random(n) < rng.choice([0, 0.5, 0.95])] = 0
    targets = (rng.normal(0, 5, n), np.zeros(n), np.full(n, 7.0), rng.integers(0, 2, n) * 1.0, 10.0 ** rng.uniform(-300, 300, n),
               -(10.0 ** rng.uniform(0, 300, n)), rng.integers(0, 4, n) * 1.0)  # fmt: skip
    times = (rng.permutation(n) * 1.0, np.zeros(n), rng.integers(0, int(rng.integers(1, 9)), n) * 1.0)
    count = 1 if kind == "holdout" else int(rng.integers(2, 9))
    config = FoldsConfig(
        count=count,
        kind=kind,
        seed=int(rng.integers(5)),
        blend_fraction=0.0 if kind == "predefined" else float(rng.choice([0, 0, 0.01, 0.1, 0.3, 0.5])),
        holdout_fraction=float(rng.choice([0.001, 0.2, 0.5, 0.999])),
        on_leak="group" if kind not in ("time", "predefined") and rng.random() < 0.3 else "warn",
    )
    texts = rng.integers(0, n + 1, n).astype(np.uint64)
    inventory = Inventory(
        np.array([f"r{i}" for i in range(n)]), targets[rng.integers(len(targets))], "views", 0, "f",
        groups=groups if "grouped" in kind or rng.random() < 0.5 else None,
        time=times[rng.integers(3)],
        predefined_fold=rng.integers(-2, count, n),
        row_keys={"text": RowKeys(texts, texts[:0])},
    )  # fmt: skip
    return config, inventory


@pytest.mark.parametrize("block", range(10))
def test_whatever_the_rows_are_they_are_refused_with_advice_or_every_fold_trains_and_validates_some(block):
    rng, num_planned, refusals = np.random.default_rng(block), 0, []
    for _ in range(100):
        config, inventory = draw_case(rng)
        try:
            plan = plan_folds(config, inventory)
        except DataError as error:
            refusals.append(str(error))
            continue
        num_planned += 1
        assert all(min(trained, validated) >= 1 for _, trained, validated in plan.sizes())
        blend = plan.fold == BLEND
        assert blend.sum() >= 2 or not (config.blend_fraction or blend.any())
        for fold in range(plan.count):
            split = plan.split(fold)
            sides = [set(split.train_ids), set(split.validation_ids), set(split.blend_ids)]
            assert len(set.union(*sides)) == sum(map(len, sides))
        if plan.group is not None:
            check_groups(config, plan)
        if config.kind == "time":
            assert all(len(set(plan.fold[inventory.time == time])) == 1 for time in set(inventory.time))
    assert num_planned > 30
    assert all("expect" in refusal for refusal in refusals)  # behind what was found


def check_groups(config, plan):
    """Not divided, and as balanced as whole groups allow."""
    sizes = np.bincount(plan.group)
    assert all(len(set(plan.fold[plan.group == group])) == 1 for group in np.flatnonzero(sizes))
    validated = np.bincount(plan.fold[plan.fold >= 0])
    if config.kind != "holdout":
        assert np.ptp(validated) <= sizes.max() * (2 if "stratified" in config.kind else 1)
    if config.blend_fraction:
        assert len(set(plan.group[plan.fold == BLEND])) >= 2


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
    with pytest.raises(DataError, match=r"folds\.kind=stratified: expected a target or strata of each row"):
        plan_folds(FoldsConfig(kind="stratified"), inventory)
    with pytest.raises(DataError, match="no target"):
        inventory.require_target()
    plan = plan_folds(FoldsConfig(), inventory)
    assert _predict_constants(load_kind("number"), plan, inventory) == []
