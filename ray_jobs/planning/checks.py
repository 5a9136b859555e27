"""Everything that can be found out about a run before anything is launched."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ray_jobs.cluster.signals import in_submitted_job
from ray_jobs.config.members import resolve_members
from ray_jobs.config.run import MAIN, RunConfig, refuse_idle_gpus
from ray_jobs.errors import RunError
from ray_jobs.planning.folds import FoldPlan, plan_folds
from ray_jobs.planning.inventories import Inventories
from ray_jobs.planning.leaks import find_leaks, refuse_leaks
from ray_jobs.planning.member_rows import (
    Reader,
    compare_rows,
    gather_notes,
    refuse_other_kind,
    with_all_row_keys,
)
from ray_jobs.planning.notes import note_division
from ray_jobs.planning.plan import MemberPlan, Plan, build_plan_table
from ray_jobs.planning.saved_folds import find_saved_folds
from ray_jobs.results.checks import check_ensemble, with_absolute_external, with_usual_metric
from ray_jobs.runs.file_table import MEMBERS
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_place, join_run, open_cache, refuse_other_storage, resolve_storage
from ray_jobs.runs.remote.run_mirror import bring_division
from trainers.interface import (
    DataError,
    Inventory,
    Spread,
    call_here,
)
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
    members = resolve_members(config)  # a mistake in one is told before the data is read
    for member in members.values():
        refuse_idle_gpus(member)
    if in_submitted_job():
        _refuse_relative_paths(config, members)
    if folder.root.parent.name == MEMBERS:
        raise RunError(
            f"run.storage={folder.root.parent}: expected another name than {MEMBERS}, which holds a run's members"
        )
    _check_storage_folder(folder.root, makes_it=scratch is None)
    made = [path for path in (folder.cache, *folder.cache.parents) if not path.exists()]
    if scratch is None or folder.cache.exists() or is_uri(config.trainer.data.root or ""):
        open_cache(folder.cache)
    if (folder.config.exists() or folder.is_tuning()) and folder.is_tuning() != is_tuning:
        kinds = ("run", "tune.name") if is_tuning else ("tuning, which tune.py continues", "run.name")
        raise RunError(f"{folder.root} is a {kinds[0]}; choose another {kinds[1]}")
    if uri := join_run(config.run.storage, folder.root.name):
        bring_division(folder, uri)
    inventories = Inventories(scratch or folder.root, folder.cache, spread)
    try:
        trainer, inventory = inventories.take(config)
    except DataError:
        for path in made:  # data that are not there leave nothing behind
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    run = dataclasses.replace(config.run, name=folder.root.name, storage=resolve_storage(config.run.storage))
    config = with_absolute_external(with_usual_metric(dataclasses.replace(config, trainer=trainer, run=run)))
    readers = _read_members(Reader(MAIN, config, inventory), inventories)
    plan = _plan_members(readers, folder)
    refuse_leaks(plan.leaks, config.folds)
    check_ensemble(config, build_plan_table(plan.folds), inventory.require_target)
    return plan


def name_run(config: RunConfig) -> RunConfig:
    """The config with the run's name: the recipe's where none is given, a new one for `auto`."""
    name = config.run.name or config.recipe
    if name == "auto":
        name = f"{config.recipe}_{time.strftime('%Y%m%d_%H%M%S')}"
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def _refuse_relative_paths(config: RunConfig, members: Mapping[str, RunConfig]) -> None:
    """Raises RunError for what a submitted job would look for in its temporary copy of the working directory."""
    places = [("run.storage", config.run.storage), ("ensemble.external", config.ensemble.external)]
    places += [("data.root", member.trainer.data.root) for member in members.values()]
    for name, value in places:
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


def _read_members(run: Reader, inventories: Inventories) -> list[Reader]:
    """Every member, the run's own recipe first, with what its family reads of the data.

    Raises:
        RunError: a member cannot read it, or predicts something else than the run.
    """
    readers = [run]
    for name, config in list(resolve_members(run.config).items())[1:]:
        try:
            trainer, inventory = inventories.take(config)
        except DataError as error:
            raise RunError(f"member {name!r} (recipe {config.recipe}): {error}") from None
        readers.append(Reader(name, dataclasses.replace(config, trainer=trainer), inventory))
        refuse_other_kind(run, readers[-1])
    return readers


def _plan_members(readers: list[Reader], folder: RunFolder) -> Plan:
    """Divides the rows, once for all members but those that repeat the cross-validation.

    Raises:
        RunError: a member does not have the run's rows.
        DataError: the rows cannot be divided so.
    """
    run, config = readers[0], readers[0].config
    # One for each other view of the data, the first that has it.
    others = list({id(one.inventory): one for one in reversed(readers) if one.inventory is not run.inventory}.values())
    notes = [note for one in others for note in compare_rows(run, one)]
    inventory = with_all_row_keys(run, others)
    folds = _divide(config, folder, inventory)
    notes += [*note_division(config.folds, folds, inventory, config.kind), *gather_notes(run, others)]
    inventory = dataclasses.replace(inventory, notes=(*inventory.notes, *notes))
    planned = {MAIN: MemberPlan(config, folder, inventory, folds)}
    for one in readers[1:]:
        own, its_folder = one.config, folder.of_member(one.name)
        divided = folds if own.folds.seed == config.folds.seed else _divide(own, its_folder, inventory)
        planned[one.name] = MemberPlan(own, its_folder, one.inventory, divided)
    return Plan(planned, find_leaks(folds, inventory))


def _divide(config: RunConfig, folder: RunFolder, inventory: Inventory) -> FoldPlan:
    """The rows as they were divided when the run began; those of a new run are divided now."""
    return find_saved_folds(folder, config, inventory) or plan_folds(config.folds, inventory)
