"""What is found out about a run before anything is launched, and what its folder then holds: config, fold plan, provenance.

A run that exists must train the same on the same data; whatever differs is named, and nothing is written.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.config import FITTED_METHODS, METHODS, NOTHING_TO_FIT
from ensemble.metrics import is_mean_of_rows, measure_error
from ensemble.scores import predict_constant
from ray_jobs.cluster import package_versions
from ray_jobs.config import MAIN, RunConfig, TrackingConfig, find_differences
from ray_jobs.damage import is_plan_whole
from ray_jobs.errors import ConfigChangedError, RunError, RunFolderError
from ray_jobs.folds import FoldPlan, plan_folds
from ray_jobs.interrupts import in_submitted_job
from ray_jobs.leaks import COLUMNS, Leak, count_leaks, find_leaks, list_rows, refuse_leaks
from ray_jobs.map_submission import check_map_ensemble
from ray_jobs.member_columns import combines_folds, has_blend_set, read_external
from ray_jobs.members import resolve_members
from ray_jobs.mirror import working_folder
from ray_jobs.run_folder import MEMBERS, RunFolder, read_json, write_csv, write_json, write_parquet
from ray_jobs.submission_intervals import check_interval
from trainers.data_folder import MADE_DATA
from trainers.interface import Inventory, Spread, call_here, load_inventory_module
from trainers.object_storage import is_uri, open_place


@dataclass(frozen=True)
class MemberPlan:
    """A member that has passed every check."""

    config: RunConfig
    folder: RunFolder
    inventory: Inventory
    folds: FoldPlan


@dataclass(frozen=True)
class Plan:
    """A run that has passed every check: nothing of it was written or started yet.

    Attributes:
        members: every member by its name, `main`, which is the run's own config and folder, first.
        leaks: what is the same on both sides of a fold.
    """

    members: dict[str, MemberPlan]
    leaks: list[Leak]

    @property
    def config(self) -> RunConfig:
        """Of the run."""
        return self.members[MAIN].config

    @property
    def folder(self) -> RunFolder:
        """Of the run."""
        return self.members[MAIN].folder

    @property
    def inventory(self) -> Inventory:
        """Of what the run's own recipe reads."""
        return self.members[MAIN].inventory

    @property
    def folds(self) -> FoldPlan:
        """Of every member that does not repeat the cross-validation on another division."""
        return self.members[MAIN].folds


def check_run(config: RunConfig, scratch: Path | None, spread: Spread = call_here, *, is_tuning: bool = False) -> Plan:
    """Everything that can be found out before anything is launched.

    Args:
        config: as the user gave it.
        scratch: where to put data that the project makes; None: into the run's folder. (What is fetched goes into the storage's cache.)
        spread: reads what is in object storage.
        is_tuning: of a tuning's recipe, in its folder.

    Raises:
        RunError, DataError: the message says what is wrong.
    """
    _refuse_other_storage(config.run.storage)
    config = name_run(config)
    folder = RunFolder(find_place(config.run.storage, config.run.name))
    if in_submitted_job():
        _refuse_relative_paths(config)
    if folder.root.parent.name == MEMBERS:
        raise RunError(f"run.storage={folder.root.parent}: a folder named {MEMBERS} holds the members of a run")
    _check_storage_folder(folder.root, makes_it=scratch is None)
    if folder.cache.exists() and not os.access(folder.cache, os.W_OK):
        raise RunError(
            f"{folder.cache}, in which the runs of this storage share what need not be computed twice, belongs to somebody else and cannot "
            "be written to; have it opened to your group, or choose another run.storage"
        )
    if (folder.config.exists() or folder.is_tuning()) and folder.is_tuning() != is_tuning:
        kinds = ("run", "tune.name") if is_tuning else ("tuning, which tune.py continues", "run.name")
        raise RunError(f"{folder.root} is a {kinds[0]}; choose another {kinds[1]}")
    resolve_members(config)  # a mistake in one is told before the data is read
    take = partial(_take_inventory, (scratch or folder.root, folder.cache), spread)
    trainer, inventory = take(config)
    run = dataclasses.replace(config.run, name=folder.root.name, storage=_resolve_storage(config))
    config = with_absolute_external(dataclasses.replace(config, trainer=trainer, run=run))
    folds = plan_folds(config.folds, inventory)
    leaks = find_leaks(folds, inventory)
    refuse_leaks(leaks, config.folds)
    if config.predicts_maps:
        check_map_ensemble(config)
    else:
        check_ensemble(config, build_plan_table(folds), inventory.target)
    return Plan(_check_members(config, folder, inventory, folds, take), leaks)


def _check_storage_folder(root: Path, *, makes_it: bool) -> None:
    """Refuses a place in which the run's folder cannot be made.

    Args:
        root: the run's folder.
        makes_it: whether the folder around it is made now.
    """
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir():
        raise RunError(f"{there} is a file; choose another run.storage or run.name")
    refused = "" if os.access(there, os.W_OK) else "permission denied"
    if makes_it and not refused:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refused = str(error.strerror)
    if refused:
        raise RunError(f"run.storage={root.parent} cannot be written to ({refused}); choose another folder")


def with_absolute_external(config: RunConfig) -> RunConfig:
    """The config with the whole path of `ensemble.external`."""
    if not config.ensemble.external:
        return config
    external = os.path.abspath(os.path.expanduser(config.ensemble.external))
    return dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, external=external))


def check_ensemble(config: RunConfig, plan: pa.Table, target_N: np.ndarray) -> None:
    """What of the ensemble's config can only be judged once the rows and their folds are known.

    Raises:
        RunError: a metric that is unknown or not defined for such targets, or fitted weights without rows to fit them to.
        PredictionError: `ensemble.external` does not belong to these rows and folds.
    """
    ensemble = config.ensemble
    if ensemble.method not in (*METHODS, *FITTED_METHODS):
        raise RunError(f"ensemble.method={ensemble.method} is of maps, and this family predicts numbers")
    try:
        measure_error(ensemble.metric, target_N, target_N)
    except ValueError as error:
        raise RunError(f"ensemble.metric={ensemble.metric}: {error}") from None
    if ensemble.method == "weighted_mean" and ensemble.weights is None and not is_mean_of_rows(ensemble.metric):
        raise RunError(
            f"ensemble.method=weighted_mean by ensemble.metric={ensemble.metric}: weights are one over the error, and a scorer's may be "
            "negative; give ensemble.weights, or use msle, mae or another error"
        )
    if combines_folds(config) and ensemble.method in FITTED_METHODS and not has_blend_set(plan):
        raise RunError(f"ensemble.method={ensemble.method}: {NOTHING_TO_FIT}")
    check_interval(config)
    read_external(config, plan)


def _check_members(
    config: RunConfig, folder: RunFolder, inventory: Inventory, folds: FoldPlan, take: Callable[[RunConfig], Any]
) -> dict[str, MemberPlan]:
    """Every member on its own view of the data, and on its own folds where it repeats the cross-validation.

    Raises:
        RunError: a member has other rows than the run, because of what it reads of them.
    """
    seen = {(config.trainer.data, config.trainer.model): (config.trainer, inventory)}
    members = {}
    for name, member in resolve_members(config).items():
        key = (member.trainer.data, member.trainer.model)
        if key not in seen:
            seen[key] = take(member)
        resolved, own = seen[key]
        if not all(np.array_equal(getattr(own, n), getattr(inventory, n)) for n in ("ids", "target", "test_ids")):
            raise RunError(
                f"member {name!r} reads {len(own.ids)} training and {own.num_test} test rows and the run {len(inventory.ids)} and "
                f"{inventory.num_test}, not all the same: members are combined row by row. Mend or remove the bad rows (they are "
                "dropped only where a member needs what is wrong with them)"
            )
        trainer = dataclasses.replace(member.trainer, data=resolved.data, model=resolved.model)
        divided = folds if member.folds.seed == config.folds.seed else plan_folds(member.folds, inventory)
        member = dataclasses.replace(member, trainer=trainer)
        members[name] = MemberPlan(member, folder.of_member(name), own, divided)
    return members


def _take_inventory(places: tuple[Path, Path], spread: Spread, config: RunConfig) -> tuple[Any, Inventory]:
    return load_inventory_module(config.family).take_inventory(config.trainer, *places, spread)


def name_run(config: RunConfig) -> RunConfig:
    """The config with the run's name: the recipe's where none is given, a new one for `auto`."""
    name = config.run.name or config.recipe
    if name == "auto":
        name = f"{config.recipe}_{time.strftime('%Y%m%d_%H%M%S')}"
    return dataclasses.replace(config, run=dataclasses.replace(config.run, name=name))


def find_place(storage: str, name: str) -> Path:
    """The folder of a run, or the one in which it is worked on where it is on object storage."""
    return working_folder(storage, name) if is_uri(storage) else Path(_resolve_folder(storage)) / name


def _resolve_storage(config: RunConfig) -> str:
    storage = config.run.storage
    return storage.rstrip("/") if is_uri(storage) else _resolve_folder(storage)


def _resolve_folder(storage: str) -> str:
    return os.path.abspath(os.path.expanduser(storage))


def _refuse_other_storage(storage: str) -> None:
    """Raises RunError for what is neither a folder nor an object storage that is known."""
    if "://" in storage:
        try:
            open_place(storage)
        except ValueError as error:
            raise RunError(f"run.storage: {error}") from None
        if MEMBERS in storage.split("/"):
            raise RunError(f"run.storage={storage}: a folder named {MEMBERS} holds the members of a run")


def _refuse_relative_paths(config: RunConfig) -> None:
    places = {
        "run.storage": config.run.storage,
        "data.root": config.trainer.data.root,
        "ensemble.external": config.ensemble.external,
    }
    for name, value in places.items():
        if value and not os.path.isabs(os.path.expanduser(value)) and not is_uri(value):
            raise RunError(
                f"{name}={value} is a relative path: a submitted job runs in a temporary copy of the working directory. "
                f"Give the absolute path as the cluster's machines see it, such as {name}=/mnt/shared/{Path(value).name}"
            )


def write_or_compare(plan: Plan, argv: Sequence[str], say: Callable[[str], None], job: str = "kfold.py") -> Plan:
    """A new run, or a new member, writes its config and provenance; an existing one must train the same on the same data.

    Args:
        plan: of a run that this driver holds.
        argv: what the user typed after the job's name.
        say: shows a line to the user.
        job: the job that was typed.

    Returns:
        The plan, with what an existing run keeps.

    Raises:
        ConfigChangedError, RunFolderError: nothing was written.
    """
    config = plan.config
    known = {name: member for name, member in plan.members.items() if member.folder.config.exists()}
    if MAIN in known:
        config = _keep_wandb_place(_read_old(plan.folder), config)
    members = {
        name: dataclasses.replace(member, config=dataclasses.replace(member.config, tracking=config.tracking))
        for name, member in plan.members.items()
    }
    plan = dataclasses.replace(plan, members=members)
    changes = {name: _compare(members[name]) for name in known}
    for name, member in members.items():
        shares_plan = name != MAIN and member.folds is plan.folds
        if shares_plan or is_plan_whole(member.folder, member.folds):
            continue
        if name in known:
            say(f"{member.folder.own_fold_plan} is damaged: it is written anew")
        write_parquet(member.folder.own_fold_plan, build_plan_table(member.folds))
    for name, member in reversed(members.items()):  # main last: from there on the run exists
        if name not in known:
            _refuse_left_folds(member.folder)
            _write_new(plan, member, shlex.join(["python", f"ray_jobs/{job}", *argv]))
        elif changes[name]:
            member.folder.write_config(member.config)
    if other := changes.get(MAIN):
        say("changed in this run: " + ", ".join(f"{name}={now}" for name, (_, now) in other.items()))
    return plan


def _refuse_left_folds(folder: RunFolder) -> None:
    """Raises RunFolderError where a new run would go on from what an old one has left."""
    left = sorted(path for path in (folder.root / "folds").glob("*/checkpoints/*") if not path.name.startswith("."))
    if left:
        raise RunFolderError(
            f"{folder.config} is missing and {left[0]} is there. Put back a copy of the file, remove the folder, or choose another run.name"
        )


def _read_old(folder: RunFolder) -> RunConfig:
    try:
        return folder.read_config()
    except RunFolderError as error:
        raise _with_advice(error) from None


def _with_advice(error: RunFolderError) -> RunFolderError:
    return RunFolderError(f"{error}. Put back a copy of the file, or begin anew with another run.name (run.name=auto)")


def _compare(member: MemberPlan) -> dict[str, tuple]:
    """The fields of a member that differ from what its folder says and do not change what is trained.

    Raises:
        ConfigChangedError: something else would be trained, on other data, or on other folds.
    """
    folder, config = member.folder, member.config
    try:
        old, known = folder.read_config(), _read_provenance(folder)
    except RunFolderError as error:
        raise _with_advice(error) from None
    trained, other = find_differences(old, config)
    if "data.root" in trained and all(_is_made(root, folder) for root in trained["data.root"]):
        other["data.root"] = trained.pop("data.root")  # the run is worked on in another folder than before
    if trained:
        changes = "\n".join(f"  {name}: {was!r} in the run, {now!r} now" for name, (was, now) in trained.items())
        anew = (
            "give the member another name"
            if folder.member != MAIN
            else "another run.name (run.name=auto) for a new run"
        )
        raise ConfigChangedError(
            f"{folder.root} exists and these fields change what is trained:\n{changes}\n"
            f"Use the old values to continue it, or {anew}"
        )
    if known["data_fingerprint"] != member.inventory.fingerprint:
        raise ConfigChangedError(
            f"{folder.root} exists and its data changed: the tables or pictures below {config.trainer.data.root} are not "
            "the ones it began with. Put them back to continue it, or use another run.name"
        )
    if known["plan_fingerprint"] != member.folds.fingerprint():
        raise ConfigChangedError(
            f"{folder.root} exists and its rows would be divided otherwise now: by another version of scikit-learn? It began "
            f"with {known['versions'].get('scikit-learn')}. Install that to continue it, or use another run.name"
        )
    return other


def _is_made(root: str, folder: RunFolder) -> bool:
    """Whether the data is what the project makes in a run's folder, wherever that was."""
    return Path(root).parts[-2:] == (folder.run_root.name, MADE_DATA)


def _keep_wandb_place(old: RunConfig, new: RunConfig) -> RunConfig:
    """A continued run stays where it is in W&B when its place was given by variables that this shell does not have."""
    kept = {
        name: getattr(old.tracking, name)
        for name in ("wandb", "project", "entity", "name")
        if getattr(new.tracking, name) == getattr(TrackingConfig(), name)
    }
    return dataclasses.replace(new, tracking=dataclasses.replace(new.tracking, **kept))


def _read_provenance(folder: RunFolder) -> dict[str, Any]:
    known = read_json(folder.provenance)
    missing = {"data_fingerprint", "plan_fingerprint", "versions"} - set(known)
    if missing:
        raise RunFolderError(f"{folder.provenance} has no {', '.join(sorted(missing))}")
    return known


def build_plan_table(folds: FoldPlan) -> pa.Table:
    """The fold plan as `fold_plan.parquet` has it."""
    columns = {
        "id": pa.array(folds.ids.tolist(), pa.string()),
        "repeat": pa.array(np.zeros(len(folds.ids), np.int32)),
        "fold": pa.array(folds.fold.astype(np.int32)),
    }
    if folds.group is not None:
        columns["group"] = pa.array(folds.group.astype(np.int64))
    return pa.table(columns)


def _write_new(plan: Plan, member: MemberPlan, command: str) -> None:
    folder, folds, inventory = member.folder, member.folds, member.inventory
    write_csv(folder.fold_info, ["fold", "train_size", "val_size"], folds.sizes())
    if inventory.bad_rows:
        columns = list(inventory.bad_rows[0])
        write_csv(folder.bad_rows, columns, [[row[name] for name in columns] for row in inventory.bad_rows])
    leaks = plan.leaks if folder.member == MAIN else []  # found by what the run's own recipe reads
    if leaks:
        write_csv(folder.leaks, COLUMNS, list_rows(leaks))
    provenance = {
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "target": inventory.target_name,
        "data_fingerprint": inventory.fingerprint,
        "plan_fingerprint": folds.fingerprint(),
        "constant_predictions": [] if member.config.predicts_maps else _predict_constants(folds, plan.inventory),
        "num_train": len(folds.ids),
        "num_test": inventory.num_test,
        "leaks": count_leaks(leaks, inventory),
        "versions": package_versions(),
    }
    write_json(folder.provenance, provenance, checksum=True)
    folder.write_config(member.config)  # last: from here on it exists


def _predict_constants(folds: FoldPlan, inventory: Inventory) -> list[float]:
    """For each fold the best constant of its training rows."""
    target = dict(zip(folds.ids, inventory.target, strict=True))
    splits = [folds.split(fold) for fold in range(folds.count)]
    return [predict_constant(np.array([target[row_id] for row_id in split.train_ids])) for split in splits]
