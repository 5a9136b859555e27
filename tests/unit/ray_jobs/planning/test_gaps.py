"""Rows that are kept out of folds: gaps in time, windows that slide, groups that a fold validates."""

import json

import numpy as np
import pytest

from ray_jobs.config.folds import BLEND, FoldsConfig
from ray_jobs.config.recipes import find_recipe
from ray_jobs.config.run import find_differences, from_dict, to_dict
from ray_jobs.planning.folds import plan_folds
from ray_jobs.planning.leaks import find_leaks
from ray_jobs.planning.notes import _note_kept_out
from ray_jobs.planning.plan import build_plan_table, read_plan_table
from trainers.interface import DataError, Inventory, RowKeys

DAY_S = 86_400.0


def make_inventory(days, **columns):
    ids = np.array([f"r{i}" for i in range(len(days))])
    return Inventory(ids, np.arange(len(days)) * 1.0, "views", 0, "f", time=np.array(days) * DAY_S, **columns)


def list_days(plan, inventory, fold):
    """The days on which rows train and on which they validate."""
    days = inventory.time / DAY_S
    return days[plan.trains(fold)], days[plan.fold == fold]


def test_a_gap_of_rows_is_that_of_scikit_learn_where_each_row_has_its_own_time():
    from sklearn.model_selection import TimeSeriesSplit

    inventory = make_inventory(np.random.default_rng(0).permutation(60))
    plan = plan_folds(FoldsConfig(kind="time", gap="4", max_train="12"), inventory)
    splits = TimeSeriesSplit(3, gap=4, max_train_size=12).split(np.zeros(60))
    for fold, (trained, validated) in enumerate(splits):
        own_trained, own_validated = list_days(plan, inventory, fold)
        assert (sorted(own_trained), sorted(own_validated)) == (trained.tolist(), validated.tolist())


def test_of_daily_rows_a_gap_of_days_is_one_of_as_many_rows():
    inventory = make_inventory(np.arange(80))
    by_rows = plan_folds(FoldsConfig(kind="time", gap="7", max_train="12"), inventory)
    by_days = plan_folds(FoldsConfig(kind="time", gap="7d", max_train="12d"), inventory)
    assert by_rows.fingerprint() == by_days.fingerprint()


def test_rows_of_one_time_stay_together_on_both_ends_of_a_window():
    inventory = make_inventory(np.arange(120) // 6)
    plan = plan_folds(FoldsConfig(kind="time", gap="7", max_train="15"), inventory)
    for fold in range(3):
        trained, validated = list_days(plan, inventory, fold)
        assert sorted(set(trained)) == [validated.min() - 4, validated.min() - 3]  # two whole days: 12 rows of 15
        assert len(trained) == 12


def test_rows_of_the_blend_set_train_nothing_beside_a_gap():
    plan = plan_folds(FoldsConfig(kind="time", gap="3", blend_fraction=0.2), make_inventory(np.arange(100)))
    assert not any(plan.trains(fold)[plan.fold == BLEND].any() for fold in range(3))


def test_groups_that_a_fold_validates_do_not_train_it():
    groups = np.array(list("abcdefgh"))[np.random.default_rng(1).integers(0, 8, 400)]
    groups[:100] = "old"
    inventory = make_inventory(np.arange(400), groups=groups)
    plan = plan_folds(FoldsConfig(kind="time", embargo_groups=True), inventory)
    for fold in range(3):
        assert not set(groups[plan.trains(fold)]) & set(groups[plan.fold == fold])
        kept_out = (plan.fold < fold) & ~plan.trains(fold)
        assert set(groups[kept_out]) <= set(groups[plan.fold == fold])


def test_a_gap_between_groups_leaves_out_what_is_near_a_validated_group_on_either_side():
    days = np.arange(300) / 3
    groups = np.arange(300) // 10
    inventory = make_inventory(days, groups=groups)
    plan = plan_folds(FoldsConfig(kind="grouped", gap="2d"), inventory)
    for fold in range(3):
        trained, _ = list_days(plan, inventory, fold)
        spans = [days[groups == group] for group in set(groups[plan.fold == fold])]
        is_near = [any(span.min() - 2 < day < span.max() + 2 for span in spans) for day in days]
        assert sorted(trained) == sorted(days[(plan.fold != fold) & ~np.array(is_near)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gap": "week"}, r"folds.gap=week: expected a number of rows, or a time in s, min, h, d or w"),
        ({"gap": "5"}, r"folds.gap=5: expected 0 with folds.kind=random"),
        ({"kind": "grouped", "gap": "5"}, r"folds.gap=5: expected a time, such as 7d with folds.kind=grouped"),
        ({"max_train": "90d"}, r"folds.max_train=90d: expected folds.kind=time with it"),
        ({"kind": "time", "max_train": "0"}, r"folds.max_train=0: expected more than 0, or none"),
        ({"kind": "grouped", "embargo_groups": True}, r"folds.embargo_groups=true: expected folds.kind=time with it"),
    ],
)
def test_gaps_and_windows_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FoldsConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"gap": "20"},
            r"folds.gap=20 leaves fold 0 0 of 15 rows to train on: .* lower folds.gap, or lower folds.count",
        ),
        (
            {"gap": "2d", "max_train": "5d"},
            r"folds.gap=2d and folds.max_train=5d leave fold 0 5 of 15 rows to train on: expected at least 10",
        ),
        ({"embargo_groups": True}, r"embargo_groups=true: expected a group of each row; set data.group_column"),
    ],
)
def test_folds_that_are_left_with_too_few_rows_are_refused(fields, message):
    with pytest.raises(DataError, match=message):
        plan_folds(FoldsConfig(kind="time", **fields), make_inventory(np.arange(60)))


def test_the_plans_file_says_what_is_kept_out_and_a_run_goes_on_with_it():
    inventory = make_inventory(np.arange(90))
    plan = plan_folds(FoldsConfig(kind="time", gap="5d"), inventory)
    again = read_plan_table(build_plan_table(plan), inventory.ids, 3, is_ordered=True)
    assert again.fingerprint() == plan.fingerprint()
    assert all((again.trains(fold) == plan.trains(fold)).all() for fold in range(3))
    assert plan.fingerprint() != plan_folds(FoldsConfig(kind="time", gap="6d"), inventory).fingerprint()
    table = build_plan_table(plan_folds(FoldsConfig(kind="time"), inventory))
    assert table.column_names == ["id", "repeat", "fold"]


def test_a_twin_that_is_kept_out_is_no_leak():
    keys = np.zeros(90, np.uint64)
    keys[[28, 30, 40, 65]] = [7, 7, 8, 8]  # the folds validate from 24, 46 and 68
    row_keys = {"text": RowKeys(keys, np.array([], np.uint64))}
    inventory = make_inventory(np.arange(90), row_keys=row_keys)
    (leak,) = find_leaks(plan_folds(FoldsConfig(kind="time"), inventory), inventory)
    assert (leak.ids.tolist(), leak.other_ids.tolist()) == (["r65"], ["r40"])
    assert not find_leaks(plan_folds(FoldsConfig(kind="time", gap="7"), inventory), inventory)


def test_the_user_is_told_what_is_left():
    folds, inventory = FoldsConfig(kind="time", gap="1d", max_train="18d"), make_inventory(np.arange(80))
    assert _note_kept_out(folds, plan_folds(folds, inventory)) == [
        "folds.gap=1d and folds.max_train=18d: folds train on 18 to 18 rows, which are 30% to 90% of those on their "
        "other side"
    ]


def test_another_gap_trains_something_else():
    config = find_recipe("clip_multimodal_small")()
    values = json.loads(json.dumps(to_dict(config)))
    values["folds"] |= {"kind": "time", "gap": "3d"}
    trained, _ = find_differences(config, from_dict(values))
    assert {"folds.kind", "folds.gap"} <= set(trained)
