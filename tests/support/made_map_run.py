"""A K-fold run of maps without training: every file of its folder, written by the project's own writers, from the truth
and noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config import EnsembleConfig
from ensemble.maps.files import build_map_table, encode_map
from ray_jobs.config.members import resolve_members
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import RunConfig, RunSection
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.folds import plan_folds
from ray_jobs.planning.plan import MemberPlan, Plan
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.checkpoints import CHECKPOINTS, write_checkpoint
from ray_jobs.runs.files import write_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from trainers.unet_segmentation.inventory import take_inventory, write_inputs
from trainers.unet_segmentation.rows.rows_file import Rows, find_positions, read_mask


def make_map_run(
    root: Path,
    *,
    noise: float = 0.3,
    unfinished: tuple[int, ...] = (),
    ensemble: EnsembleConfig | None = None,
    blend: float = 0.0,
    members: tuple[str, ...] = (),
) -> tuple[RunFolder, RunConfig, dict[str, Any]]:
    """Three folds on the made-up pictures; each fold's model, and each member's, errs by smooth noise of its own.
    Folder, config and summary."""
    folder = RunFolder(root)
    recipe = RECIPES["unet_segmentation_small"]()
    trainer, inventory = take_inventory(recipe.trainer, root)
    config = dataclasses.replace(
        recipe,
        trainer=trainer,
        run=RunSection(name=root.name, storage=str(root.parent)),
        ensemble=ensemble or recipe.ensemble,
        folds=dataclasses.replace(recipe.folds, blend_fraction=blend),
        members=members,
    )
    folds = plan_folds(config.folds, inventory)
    plans = {
        name: MemberPlan(
            own,
            folder.of_member(name),
            inventory,
            folds if own.folds.seed == config.folds.seed else plan_folds(own.folds, inventory),
        )
        for name, own in resolve_members(config).items()
    }
    write_or_compare(Plan(plans, []), [], print)
    write_inputs(trainer, inventory, folder.inputs)
    for number, plan in enumerate(plans.values()):
        for fold in set(range(config.folds.count)) - set(unfinished):
            split, train = plan.folds.split(fold), inventory.tables["train"]
            wanted = {"validation": split.validation_ids, "blend": split.blend_ids}
            parts = {name: train.take(find_positions(train, ids.tolist())) for name, ids in wanted.items() if len(ids)}
            parts["test"] = inventory.tables["test"]
            _write_fold(plan.folder, config, fold, parts, noise, number)
    stage = run_ensemble_stage(str(root))
    summary = build_summary(folder, config, stage, {"total": 1.0})
    save_summary(folder, config, summary)
    return folder, config, summary


def _write_fold(
    folder: RunFolder, config: RunConfig, fold: int, parts: dict[str, Rows], noise: float, member: int
) -> None:
    rng = np.random.default_rng([fold, member] if member else fold)
    write_json(
        folder.fold(fold).status,
        {"fold": fold, "state": "completed", "attempt": 1, "started": 1e9, "finished": 1e9 + 9},
    )
    for checkpoint in CHECKPOINTS:
        for name, rows in parts.items():
            maps = []
            for row, row_id in enumerate(rows.ids.tolist()):
                true_HW = read_mask(rows, row, config.trainer.data, scaled=False)
                said = true_HW * 0.6 + 0.2 + rng.normal(0, noise, (8, 8)).repeat(8, 0).repeat(8, 1)
                maps.append(encode_map(row_id, said.clip(0, 1).astype(np.float32)[None], true_HW))
            table = build_map_table(maps, fold=fold, checkpoint=checkpoint, member=folder.member)
            write_parquet(folder.fold(fold).predictions(name, checkpoint), table)
        write_checkpoint(folder.fold(fold).checkpoint(checkpoint), b"none", {"epoch": 3, "model_summary": {}})
    folder.fold(fold).write_manifest()
