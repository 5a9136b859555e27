"""Rows that are the same on both sides of a fold, or in training and test data."""

import csv
import re

import numpy as np
import pytest

from ray_jobs.config.folds import BLEND, FoldsConfig
from ray_jobs.planning.folds import FoldPlan, plan_folds
from ray_jobs.planning.groups import connect_rows
from ray_jobs.planning.leaks import (
    COLUMNS,
    count_leaks,
    describe_grouping,
    describe_leaks,
    find_leaks,
    list_rows,
    refuse_leaks,
)
from ray_jobs.results.wording import describe_counts
from ray_jobs.runs.files import write_csv
from trainers.interface import (
    NO_KEY,
    DataError,
    Inventory,
    RowKeys,
)

KEYS_12 = [1, 1, 2, 2, 0, 0, 3, 4, 5, 6, 7, 8]


def make_inventory(train, test=(), kind="text", ids=None, shown=None, **columns):
    """Rows r0, r1, ... with these keys, test rows t0, t1, ..."""
    target = np.expm1(np.random.default_rng(0).normal(6, 2, len(train))).clip(0)
    keys = RowKeys(np.array(train, np.uint64), np.array(test, np.uint64), shown or {})
    return Inventory(
        np.array([f"r{i}" for i in range(len(train))] if ids is None else ids),
        target,
        "views",
        len(test),
        "fingerprint",
        test_ids=np.array([f"t{i}" for i in range(len(test))], str),
        row_keys={kind: keys},
        **columns,
    )


def make_plan(folds, *, ordered=False):
    return FoldPlan(np.array([f"r{i}" for i in range(len(folds))]), np.array(folds), max(folds) + 1, ordered)


def find_slowly(plan, keys):
    """Each validation row whose key a training row of its fold has, by definition."""
    key = dict(zip(plan.ids, keys, strict=True))
    found = set()
    for fold in range(plan.count):
        split = plan.split(fold)
        trained = {key[row_id] for row_id in split.train_ids} - {NO_KEY}
        found |= {(fold, row_id) for row_id in split.validation_ids if key[row_id] in trained}
    return found


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_the_validation_rows_with_a_twin_in_their_folds_training_rows_are_found(ordered, seed):
    rng = np.random.default_rng(seed)
    keys, plan = rng.integers(0, 25, 60), make_plan([-1, 0, 1, 2, 3, *rng.integers(-1, 4, 55)], ordered=ordered)
    key = dict(zip(plan.ids, keys, strict=True))
    (leak,) = find_leaks(plan, make_inventory(keys))
    assert set(zip(leak.folds.tolist(), leak.ids, strict=True)) == find_slowly(plan, keys)
    for fold, row_id, other in zip(leak.folds, leak.ids, leak.other_ids, strict=True):
        assert key[row_id] == key[other]
        assert other in plan.split(fold).train_ids


def test_test_rows_with_a_twin_among_the_training_rows_are_found():
    inventory = make_inventory([5, 6, 6, 0], test=[6, 0, 9, 5, 6])
    leaks = find_leaks(make_plan([0, 1, 1, 0]), inventory)
    assert [(leak.kind, leak.where) for leak in leaks] == [("text", "test")]
    assert list_rows(leaks) == [
        ["text", "", "t0", "r1", "test"],
        ["text", "", "t3", "r0", "test"],
        ["text", "", "t4", "r1", "test"],
    ]


def test_an_id_of_a_training_row_is_found_in_the_test_table():
    inventory = make_inventory([0] * 4, test=[0, 0], ids=["r0", "t1", "r2", "r3"])
    leaks = find_leaks(make_plan([0, 1, 0, 1]), inventory)
    assert list_rows(leaks) == [["id", "", "t1", "t1", "test"]]
    assert describe_leaks(leaks, FoldsConfig())[0] == (
        "leak: 1 of 2 test rows share their id with training rows (1 id): t1"
    )


def test_rows_without_a_key_are_the_same_as_nothing():
    inventory = make_inventory([NO_KEY] * 12, test=[NO_KEY] * 3)
    assert find_leaks(make_plan([0, 1, 2] * 4), inventory) == []
    assert count_leaks([], inventory)["text"] == {"validation_rows": 0, "blend_rows": 0, "test_rows": 0}
    assert len(set(connect_rows([np.zeros(12, np.uint64)], 12))) == 12


def test_the_lines_have_counts_and_the_most_frequent_examples():
    keys = [9, 9, 1, 1, 1, 2, 2, 3, 3]
    inventory = make_inventory(keys, shown={1: "untitled", 2: "a [red] vase"})
    leaks = find_leaks(make_plan([0, 1, 0, 1, 1, 0, 1, 1, 0]), inventory)
    lines = describe_leaks(leaks, FoldsConfig(count=2))
    assert lines == [
        "leak: 9 of 9 validation rows (2 folds) share their text with rows that train their fold (4 texts): "
        "'untitled': r2 like r4 (3 rows); r0 like r1 (2 rows); 'a [red] vase': r5 like r6 (2 rows); …",
        "folds.on_leak=group keeps rows that share something in one fold",
    ]
    assert len(describe_leaks(leaks, FoldsConfig(count=2, kind="time"))) == 1


def test_leaks_csv_has_a_line_for_each_row(tmp_path):
    leaks = find_leaks(make_plan([0, 1, 2, 2, 0, 0]), make_inventory([1, 1, 2, 2, 0, 0], test=[2], kind="picture"))
    write_csv(tmp_path / "leaks.csv", COLUMNS, list_rows(leaks))
    with (tmp_path / "leaks.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["kind", "fold", "id", "other_id", "where"],
        ["picture", "0", "r0", "r1", "fold"],
        ["picture", "1", "r1", "r0", "fold"],
        ["picture", "", "t0", "r2", "test"],
    ]


def test_counts_become_sentences_again():
    inventory = make_inventory([1, 1, 2, 2], test=[2, 0])
    counts = count_leaks(find_leaks(make_plan([0, 1, 1, 1]), inventory), inventory)
    assert counts == {
        "text": {"validation_rows": 2, "blend_rows": 0, "test_rows": 1},
        "id": {"validation_rows": 0, "blend_rows": 0, "test_rows": 0},
    }
    assert describe_counts(counts) == [
        "2 validation rows share their text with rows that train their fold",
        "1 test rows share their text with training rows",
    ]


def test_error_refuses_and_names_rows():
    leaks = find_leaks(make_plan([0, 1, 1, 1]), make_inventory([1, 1, 2, 2], kind="picture"))
    with pytest.raises(DataError, match=r"(?s)on_leak=error.*2 of 4 validation rows.*r0 like r1"):
        refuse_leaks(leaks, FoldsConfig(on_leak="error"))
    refuse_leaks(leaks, FoldsConfig(on_leak="warn"))
    refuse_leaks([], FoldsConfig(on_leak="error"))


def test_rows_are_connected_over_other_rows_and_kinds():
    pictures, texts = np.array([1, 0, 1, 2, 0, 2]), np.array([0, 7, 7, 0, 0, 0])
    assert connect_rows([pictures, texts], 6).tolist() == [0, 0, 0, 1, 2, 1]


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped", "stratified_grouped"])
def test_group_keeps_rows_that_share_something_in_one_fold(kind):
    rng, groups = np.random.default_rng(0), np.array([f"g{i // 3}" for i in range(300)])
    keys = rng.integers(0, 150, 300) * (np.arange(300) < 60)
    inventory = make_inventory(keys, groups=groups)
    assert find_leaks(plan_folds(FoldsConfig(kind=kind), inventory), inventory)
    plan = plan_folds(FoldsConfig(kind=kind, on_leak="group"), inventory)
    assert find_leaks(plan, inventory) == []
    assert set(plan.fold) == {0, 1, 2}
    if "grouped" in kind:
        assert all(len(set(plan.fold[groups == group])) == 1 for group in groups)


def test_grouped_duplicates_are_stratified_where_asked():
    def unevenness(kind):
        spreads = []
        for seed in range(5):
            inventory = make_inventory(np.arange(300) // 2 + 1)
            plan = plan_folds(FoldsConfig(kind=kind, seed=seed, on_leak="group"), inventory)
            spreads.append(np.std([np.log1p(inventory.target)[plan.fold == fold].mean() for fold in range(3)]))
        return np.mean(spreads)

    assert unevenness("stratified") < 0.5 * unevenness("random")


@pytest.mark.parametrize(
    ("kind", "reason"), [("time", "the date of a row decides"), ("predefined", "data.fold_column decides")]
)
def test_folds_that_are_given_cannot_be_grouped(kind, reason):
    with pytest.raises(
        ValueError, match=re.escape(f"folds.on_leak=group: expected warn or error with folds.kind={kind}; {reason}")
    ):
        FoldsConfig(kind=kind, on_leak="group")
    FoldsConfig(kind=kind, on_leak="error")


def test_one_picture_in_most_rows_leaves_too_few_groups():
    inventory = make_inventory([1] * 11 + [2], kind="picture")
    with pytest.raises(DataError, match=r"2 groups of rows .* for 3 folds.* or set folds.on_leak=warn"):
        plan_folds(FoldsConfig(on_leak="group"), inventory)


def test_grouping_tells_the_largest_group():
    told = describe_grouping(FoldsConfig(on_leak="group"), make_inventory(KEYS_12))
    assert told == "folds.on_leak=group: 12 rows in 10 groups, the largest of 2 rows"


@pytest.mark.parametrize("kind", ["random", "stratified", "grouped", "stratified_grouped"])
def test_what_rows_share_does_not_move_them_unless_asked(kind):
    groups = np.array([f"g{i % 5}" for i in range(12)])
    shared, alone = (make_inventory(keys, groups=groups) for keys in (KEYS_12, [0] * 12))
    plans = [
        plan_folds(FoldsConfig(kind=kind, on_leak=how), one) for one in (shared, alone) for how in ("warn", "error")
    ]
    assert len({plan.fingerprint() for plan in plans}) == 1


def test_rows_of_the_blend_set_with_a_twin_that_trains_are_told_and_count_for_no_fold():
    inventory = make_inventory([5, 5, 7, 8, 8, 9])
    plan = FoldPlan(inventory.ids, np.array([0, BLEND, 1, 0, 1, BLEND]), 2, ordered=False)
    across, blend = find_leaks(plan, inventory)
    assert (across.where, across.ids.tolist()) == ("fold", ["r3", "r4"])
    assert (blend.where, blend.ids.tolist(), blend.other_ids.tolist()) == ("blend", ["r1"], ["r0"])
    assert count_leaks([across, blend], inventory)["text"] == {"validation_rows": 2, "blend_rows": 1, "test_rows": 0}
    assert "1 of 2 rows of the blend set share their text" in describe_leaks([blend], FoldsConfig())[0]
