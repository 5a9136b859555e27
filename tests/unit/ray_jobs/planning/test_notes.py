"""What a user is told of the targets and of the division before anything is trained."""

import dataclasses

import numpy as np
import pytest

from ensemble.kinds import load_kind
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.planning.folds import plan_folds
from ray_jobs.planning.notes import note_division
from trainers.interface import Inventory


def make_inventory(target, **columns):
    ids = np.array([f"r{i}" for i in range(len(target))])
    return Inventory(ids, np.asarray(target, float), "views", 0, "fingerprint", **columns)


def tell(inventory, predicts="number", **folds):
    config = FoldsConfig(**folds)
    return list(note_division(config, plan_folds(config, inventory), inventory, load_kind(predicts)))


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (7, "7"), (-2.5, "-2.5"), (1e300, "1e+300")])
def test_a_constant_target_is_told(value, shown):
    (told,) = tell(make_inventory([value] * 12))
    assert told.startswith(f"target views is {shown} in all 12 training rows: there is nothing to learn")
    assert tell(make_inventory([value] * 12), "map") == []  # areas of one size are no mistake


def test_rows_of_a_fold_that_all_have_one_target_are_told():
    inventory = make_inventory([3] * 7 + [1, 2, 3, 4, 5], time=np.arange(12.0))
    assert tell(inventory) == []
    (told,) = tell(inventory, kind="time")
    assert told.startswith("target views is the same in all rows that train folds 0, 1:")


@pytest.mark.parametrize("target", [np.arange(60.0), np.arange(60) % 2, -np.arange(60.0), 10.0 ** np.arange(60)])
def test_nothing_is_told_of_folds_as_they_are_asked_for(target):
    assert tell(make_inventory(target)) == []


def test_uneven_folds_are_told_with_the_largest_group():
    inventory = make_inventory(np.arange(100), groups=np.repeat(list("abcde"), [60, 10, 6, 20, 4]))
    (told,) = tell(inventory, kind="grouped")
    assert told == ("folds are uneven, of 20 to 60 rows: no group is divided, and the largest of 5 has 60 of 100 rows")
    even = dataclasses.replace(inventory, groups=np.arange(100) // 2)
    assert tell(even, kind="grouped") == []


def test_the_real_share_of_a_blend_set_is_told():
    assert tell(make_inventory(np.arange(60)), blend_fraction=0.1) == [
        "blend set, on which no fold trains or validates: 6 of 60 rows (10.0%)"
    ]
    inventory = make_inventory(np.arange(100), time=np.minimum(np.arange(100), 50))
    (told,) = tell(inventory, kind="time", count=2, blend_fraction=0.1)
    assert told.endswith(
        "50 of 100 rows (50.0%), where folds.blend_fraction=0.1 asks for 10.0%: rows of one time stay together"
    )


def test_the_real_share_of_a_holdout_is_told_where_it_differs():
    inventory = make_inventory(np.arange(100), groups=np.arange(100) // 50)
    (told,) = tell(inventory, kind="holdout", count=1, holdout_fraction=0.1)
    assert told == (
        "rows that validate: 50 of 100 rows (50.0%), where folds.holdout_fraction=0.1 asks for 10.0%: no "
        "group is divided, and the "
        "largest of 2 has 50 of 100 rows"
    )
