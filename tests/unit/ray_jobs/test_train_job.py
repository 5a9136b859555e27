"""train.py: one split instead of folds, and the flags that a recipe's users know."""

from __future__ import annotations

import numpy as np
import pytest

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.recipes import ALIASES, RECIPES
from ray_jobs.config.run import from_dict, to_dict
from ray_jobs.errors import RunError
from ray_jobs.planning.folds import plan_folds
from trainers.interface import DataError, Inventory


def make_inventory(num_rows, groups=None):
    ids = np.array([f"r{n}" for n in range(num_rows)])
    return Inventory(ids, np.arange(num_rows, dtype=float), "y", 0, "f", groups=groups)


def test_a_run_without_folds_validates_on_a_share_of_the_rows():
    plan = plan_folds(FoldsConfig(count=1, kind="holdout"), make_inventory(50))
    split = plan.split(0)
    assert (len(split.train_ids), len(split.validation_ids), split.num_folds) == (40, 10, 1)
    assert not set(split.train_ids) & set(split.validation_ids)
    with_blend = plan_folds(FoldsConfig(count=1, kind="holdout", blend_fraction=0.2), make_inventory(50)).split(0)
    assert [len(ids) for ids in (with_blend.train_ids, with_blend.validation_ids, with_blend.blend_ids)] == [32, 8, 10]


def test_groups_are_not_split_where_there_are_any():
    groups = np.array([f"g{n // 5}" for n in range(50)])
    split = plan_folds(FoldsConfig(count=1, kind="holdout"), make_inventory(50, groups)).split(0)
    group_of = {f"r{n}": group for n, group in enumerate(groups)}
    assert not {group_of[i] for i in split.train_ids} & {group_of[i] for i in split.validation_ids}
    with pytest.raises(DataError, match="expected at least 2"):
        plan_folds(FoldsConfig(count=1, kind="holdout"), make_inventory(50, np.array(["g"] * 50)))


def test_one_split_and_folds_are_told_apart():
    for wrong in ({"kind": "holdout"}, {"count": 1}, {"count": 1, "kind": "holdout", "holdout_fraction": 1.0}):
        with pytest.raises(ValueError, match="folds"):
            FoldsConfig(**wrong)


def test_train_takes_any_recipe_and_has_a_run_of_its_own():
    for name in RECIPES:
        if "ensemble" in name:
            continue
        command = parse_kfold([f"--config-name={name}"], is_one_run=True)
        assert (command.config.folds.kind, command.config.folds.count) == ("holdout", 1)
        assert (command.config.run.name, command.job) == (f"{name}_train", "train.py")
        assert from_dict(to_dict(command.config)) == command.config


def test_the_flags_that_users_know_mean_fields():
    words = (
        "--config-name=unet_segmentation --epochs 7 --batch_size=2 --lr 3e-4 --features 64 128 256 512 "
        "--log_batch_metrics"
    )
    config = parse_kfold([*words.split(), "--log-interval", "5", "run.name=x"], is_one_run=True).config
    assert (config.trainer.training.epochs, config.trainer.training.batch_size) == (7, 2)
    assert (config.trainer.optimizer.lr, config.trainer.model.features) == (3e-4, (64, 128, 256, 512))
    assert (config.tracking.log_batch_metrics, config.tracking.log_interval, config.run.name) == (True, 5, "x")
    off = parse_kfold(["--config-name=unet_segmentation", "--log_batch_metrics=false"]).config
    assert not off.tracking.log_batch_metrics
    with pytest.raises(RunError, match="lr"):
        parse_kfold(["--lr", "3e-4"])  # the default recipe's users know none


def test_every_flag_means_a_field_of_its_recipe():
    for name, flags in ALIASES.items():
        values = to_dict(RECIPES[name]())
        for field in flags.values():
            section, _, part = field.partition("=")[0].partition(".")
            assert part in values[section]


def test_the_full_size_unet_has_the_catalogues_defaults():
    trainer = RECIPES["unet_segmentation"]().trainer
    assert trainer.model.features == (64, 128, 256, 512)
    assert (trainer.training.epochs, trainer.training.batch_size, trainer.optimizer.lr) == (200, 4, 1e-3)
    assert (trainer.loss.dice_share, trainer.loss.smooth, trainer.loss.positive_weight) == (0.5, 1e-6, 1.0)
    assert (trainer.data.size, trainer.data.channels, trainer.data.classes) == (512, 1, 2)
    training = trainer.training
    assert (training.horizontal_flip, training.vertical_flip, training.max_rotation) == (True, True, 10.0)
    assert RECIPES["unet_segmentation"]().kind.title == "maps"
