"""Everything that can be found out about a run before anything is launched."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray_jobs.cluster.signals import in_submitted_job
from ray_jobs.config.members import resolve_members
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.planning.folds import FoldPlan, plan_folds
from ray_jobs.planning.inventories import Inventories
from ray_jobs.planning.leaks import find_leaks, refuse_leaks
from ray_jobs.planning.notes import note_division
from ray_jobs.planning.plan import MemberPlan, Plan, build_plan_table
from ray_jobs.planning.saved_folds import find_saved_folds
from ray_jobs.results.checks import check_ensemble, with_absolute_external, with_usual_metric
from ray_jobs.runs.file_table import MEMBERS
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_place, join_run, open_cache, refuse_other_storage, resolve_storage
from ray_jobs.runs.remote.run_mirror import bring_division
from trainers.interface import Inventory, Spread, call_here, load_inventory_module
from trainers.storage.object_storage import is_uri


def check_run(config: RunConfig, scratch: Path | None, spread: Spread = call_here, *, is_tuning: bool = False) -> Plan:
    """Everything that can be found out before anything is launched.

    Args:
        config: as the user gave it.
        scratch: where to put data that the project makes; None: into the run's folder. (What is fetched goes into the
            storage's cache.)
        spread: reads what is in object storage.
        is_tuning: of a tuning's recipe, in its folder.

    Raises:
        RunError, DataError: the message says what is wrong.
    """
    refuse_other_storage(config.run.storage)
    config = name_run(config)
    assert config.run.name is not None
    folder = RunFolder(find_place(config.run.storage, config.run.name))
    if in_submitted_job():
        _refuse_relative_paths(config)
    if folder.root.parent.name == MEMBERS:
        raise RunError(
            f"run.storage={folder.root.parent}: expected another name than {MEMBERS}, which holds a run's members"
        )
    _check_storage_folder(folder.root, makes_it=scratch is None)
    if folder.cache.exists() or is_uri(config.trainer.data.root or ""):
        open_cache(folder.cache)
    if (folder.config.exists() or folder.is_tuning()) and folder.is_tuning() != is_tuning:
        kinds = ("run", "tune.name") if is_tuning else ("tuning, which tune.py continues", "run.name")
        raise RunError(f"{folder.root} is a {kinds[0]}; choose another {kinds[1]}")
    resolve_members(config)  # a mistake in one is told before the data is read
    if uri := join_run(config.run.storage, folder.root.name):
        bring_division(folder, uri)
    take = partial(_take_inventory, (scratch or folder.root, folder.cache), spread)
    trainer, inventory = take(config)
    run = dataclasses.replace(config.run, name=folder.root.name, storage=resolve_storage(config.run.storage))
    config = with_absolute_external(with_usual_metric(dataclasses.replace(config, trainer=trainer, run=run)))
    folds = _divide(config, folder, inventory)
    notes = note_division(config.folds, folds, inventory, config.kind)
    inventory = dataclasses.replace(inventory, notes=(*inventory.notes, *notes))
    leaks = find_leaks(folds, inventory)
    refuse_leaks(leaks, config.folds)
    check_ensemble(config, build_plan_table(folds), inventory.require_target)
    return Plan(_check_members(config, folder, inventory, folds, take), leaks)


def name_run(config: RunConfig) -> RunConfig:
    """The config with the run's name: the recipe's where none is given, a new one for `auto`."""
    name = config.run.name or config.recipe
    if name == "auto":
        name = f"{config.recipe}_{time.strftime('%Y%m%d_%H%M%S')}"
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def _refuse_relative_paths(config: RunConfig) -> None:
    """Raises RunError for what a submitted job would look for in its temporary copy of the working directory."""
    places = {
        "run.storage": config.run.storage,
        "data.root": config.trainer.data.root,
        "ensemble.external": config.ensemble.external,
    }
    for name, value in places.items():
        if value and not os.path.isabs(os.path.expanduser(value)) and not is_uri(value):
            raise RunError(
                f"{name}={value} is a relative path: a submitted job runs in a temporary copy of the working "
                "directory. Set the absolute path as the cluster's machines see it, such as "
                f"{name}=/mnt/shared/{Path(value).name}"
            )


def _check_storage_folder(root: Path, *, makes_it: bool) -> None:
    """Refuses a place in which the run's folder cannot be made.

    Args:
        root: the run's folder.
        makes_it: whether it is made soon: then a folder is made on trial.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir():
        raise RunError(f"{there} is a file: expected a folder; choose another run.storage or run.name")
    refused = "" if os.access(there, os.W_OK) else "permission denied"
    if makes_it and not refused:
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".trial_", dir=there))
        except OSError as error:
            refused = str(error.strerror)
    if refused:
        raise RunError(
            f"run.storage={root.parent} cannot be written to ({refused.lower()}); choose another run.storage"
        )


def _check_members(
    config: RunConfig, folder: RunFolder, inventory: Inventory, folds: FoldPlan, take: Callable[[RunConfig], Any]
) -> dict[str, MemberPlan]:
    """Every member on its own view of the data, and on its own folds where it repeats the cross-validation.

    Raises:
        RunError: a member has other rows than the run, because of what it reads of them.
    """
    inventories = Inventories(config, inventory, take)
    members = {}
    for name, member in resolve_members(config).items():
        trainer, own = inventories.take(
            member,
            f"member {name!r}",
            "the run",
            "give the run and all members the same columns and pictures, so that all drop the same rows",
        )
        member, its_folder = dataclasses.replace(member, trainer=trainer), folder.of_member(name)
        divided = folds if member.folds.seed == config.folds.seed else _divide(member, its_folder, inventory)
        members[name] = MemberPlan(member, its_folder, own, divided)
    return members


def _divide(config: RunConfig, folder: RunFolder, inventory: Inventory) -> FoldPlan:
    """The rows as they were divided when the run began; those of a new run are divided now."""
    return find_saved_folds(folder, config, inventory) or plan_folds(config.folds, inventory)


def _take_inventory(places: tuple[Path, Path], spread: Spread, config: RunConfig) -> tuple[Any, Inventory]:
    taken: tuple[Any, Inventory] = load_inventory_module(config.family).take_inventory(config.trainer, *places, spread)
    return taken
