"""A K-fold run of classes without training: every file of its folder, written by the project's own writers, from the
truth and noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ensemble.classes.files import build_class_table
from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.config.run import RunConfig
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.continuation import write_or_compare
from ray_jobs.planning.plan import Plan
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.checkpoints import CHECKPOINTS, write_checkpoint
from ray_jobs.runs.files import read_json, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder


def make_class_run(root: Path, *words: str, sureness: float = 8.0) -> tuple[RunFolder, RunConfig, dict[str, Any]]:
    """Three folds on the made-up classes; each fold's model, and each member's, errs by noise of its own.

    Args:
        root: of the run.
        words: of the command line.
        sureness: of logits; above about 3 the models are too sure.

    Returns:
        Folder, config and what `summary.json` holds.
    """
    places = [f"run.name={root.name}", f"run.storage={root.parent}", "tracking.wandb=disabled"]
    command = parse_kfold(["--config-name=clip_classification_small", *places, *words])
    plan = write_or_compare(check_run(command.config, None), [], print)
    for number, name in enumerate(plan.members):
        for fold in range(plan.config.folds.count):
            _write_fold(plan, name, number, fold, sureness)
    folder = plan.folder
    config = folder.read_config()
    save_summary(folder, config, build_summary(folder, config, run_ensemble_stage(str(folder.root)), {"total": 1.0}))
    return folder, config, read_json(folder.summary)


def _write_fold(plan: Plan, name: str, number: int, fold: int, sureness: float) -> None:
    member, inventory = plan.members[name], plan.inventory
    folder, rng, split = member.folder, np.random.default_rng([number, fold]), member.folds.split(fold)
    target_of = dict(zip(inventory.ids.tolist(), inventory.target.tolist(), strict=True))
    wanted = {"validation": split.validation_ids, "blend": split.blend_ids, "test": inventory.test_ids}
    state = {"fold": fold, "state": "completed", "attempt": 1, "started": 1e9, "finished": 1e9 + 9}
    write_json(folder.fold(fold).status, state)
    for checkpoint in CHECKPOINTS:
        for rows, ids in wanted.items():
            if ids is None or not len(ids):
                continue
            target_N = np.array([target_of.get(row_id, -1) for row_id in ids.tolist()])
            true_N = np.where(target_N < 0, np.arange(len(ids)) % len(inventory.classes), target_N)
            logits_NC = np.eye(len(inventory.classes))[true_N] + rng.normal(0, 0.6, (len(ids), len(inventory.classes)))
            powers_NC = np.exp(sureness * logits_NC)
            probability_NC = powers_NC / powers_NC.sum(axis=1, keepdims=True)
            of = {"fold": fold, "checkpoint": checkpoint, "member": folder.member}
            table = build_class_table(ids, probability_NC, target_N, inventory.classes, **of)
            write_parquet(folder.fold(fold).predictions(rows, checkpoint), table)
        write_checkpoint(folder.fold(fold).checkpoint(checkpoint), b"none", {"epoch": 3, "model_summary": {}})
    folder.fold(fold).write_manifest()
