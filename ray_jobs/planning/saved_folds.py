"""The division that a run began with, from its folder: how new runs are divided may have changed since."""

from __future__ import annotations

import dataclasses

import numpy as np

from ray_jobs.config.run import MAIN, RunConfig, find_differences
from ray_jobs.errors import RunFolderError
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.planning.leaks import find_leaks
from ray_jobs.planning.plan import Plan, read_plan_table
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import read_provenance
from trainers.interface import Inventory


def find_saved_folds(folder: RunFolder, config: RunConfig, inventory: Inventory) -> FoldPlan | None:
    """The fold plan with which a run, a member or a tuning goes on.

    Args:
        folder: its own; of a tuning the plan is in the trials' folders.
        config: of it, now.
        inventory: its rows.

    Returns:
        None where it is new, its plan is damaged, or its rows or folds are to be others than they were.
    """
    try:
        begun = read_provenance(folder).plan_fingerprint
        changes, _ = find_differences(folder.read_config(), config)
    except RunFolderError:
        return None
    if any(name.startswith("folds.") for name in changes):
        return None
    for path in [folder.fold_plan, *sorted(folder.trials.glob("*/fold_plan.parquet"))]:
        try:
            table = read_parquet(path)
            ids, is_ordered = table["id"].to_pylist(), config.folds.kind == "time"
            plan = read_plan_table(table, inventory.ids, config.folds.count, is_ordered=is_ordered)
        except (RunFolderError, KeyError, ValueError):
            continue
        if np.array_equal(inventory.ids, ids) and plan.fingerprint() == begun:
            return plan
    return None


def with_saved_folds(plan: Plan) -> Plan:
    """The plan on the folds that the run and its members began with: another driver may have begun it since the
    checks."""
    main = plan.members[MAIN]
    folds = find_saved_folds(plan.folder, main.config, main.inventory) or plan.folds
    members = {}
    for name, member in plan.members.items():
        own = folds if member.folds is plan.folds else find_saved_folds(member.folder, member.config, plan.inventory)
        members[name] = dataclasses.replace(member, folds=own or member.folds)
    is_other = not np.array_equal(folds.fold, plan.folds.fold)
    return Plan(members, find_leaks(folds, plan.inventory) if is_other else plan.leaks)
