"""What a run's folder holds before the first fold: config, fold plan, provenance.

A run that exists must train the same on the same data; whatever differs is named, and nothing is written.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.kinds import Kind
from ray_jobs.cluster.versions import list_all_packages, package_versions
from ray_jobs.config.run import MAIN, Differences, RunConfig, TrackingConfig, find_differences
from ray_jobs.config.words import write_command
from ray_jobs.errors import ConfigChangedError, RunFolderError
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.planning.leaks import COLUMNS, count_leaks, list_rows
from ray_jobs.planning.plan import MemberPlan, Plan, build_plan_table, read_plan_table
from ray_jobs.planning.saved_folds import with_saved_folds
from ray_jobs.runs.files import read_parquet, write_csv, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import Provenance, read_provenance, write_provenance
from ray_jobs.tracking.wandb_settings import keep_wandb_mode
from trainers.interface import Inventory
from trainers.reading.data_folder import MADE_DATA
from trainers.values import show_value


def write_or_compare(plan: Plan, argv: Sequence[str], say: Callable[[str], None], job: str = "kfold.py") -> Plan:
    """A new run, or a new member, writes its config and provenance; an existing one must train the same on the same
    data.

    Args:
        plan: of a run that this driver holds.
        argv: what the user typed after the job's name.
        say: shows a line to the user.
        job: the job that was typed; a script's whole path.

    Returns:
        The plan, with what an existing run keeps.

    Raises:
        ConfigChangedError, RunFolderError: nothing was written.
    """
    plan = with_saved_folds(plan)
    config = plan.config
    known = {name: member for name, member in plan.members.items() if member.folder.config.exists()}
    if MAIN in known:
        config = _keep_wandb_place(keep_wandb_mode(_read_old(plan.folder)), config)
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
            _write_new(plan, member, write_command(job, argv))
        elif changes[name]:
            member.folder.write_config(member.config)
    _tell_changes(members, changes, say)
    return plan


def _tell_changes(
    members: Mapping[str, MemberPlan], changes: Mapping[str, Differences], say: Callable[[str], None]
) -> None:
    """Says what differs from the run as it was and is allowed to; of a member only what its family has words for."""
    if told := [
        f"{name}={now}" for name, (_, now) in changes.get(MAIN, {}).items() if not _find_words(members[MAIN], name)
    ]:
        say(f"changed in this run: {', '.join(told)}")
    for member_name, changed in changes.items():
        of_whom = "" if member_name == MAIN else f"member {member_name}: "
        for words in filter(None, (_find_words(members[member_name], name) for name in changed)):
            say(f"{of_whom}{words}")


def _find_words(member: MemberPlan, field: str) -> str:
    """By which a family tells the change of a field; empty: it has none."""
    words: str = getattr(member.config.trainer, "CHANGES", {}).get(field, "")
    return words


def _refuse_left_folds(folder: RunFolder) -> None:
    """Raises RunFolderError where a new run would go on from what an old one has left."""
    left = sorted(path for path in folder.root.glob("folds/*/checkpoints/*") if not path.name.startswith("."))
    if left:
        raise RunFolderError(
            f"{folder.config} is missing, and {left[0]} exists. Put back a copy of the file, remove the folder, or "
            "choose another run.name"
        )


def _read_old(folder: RunFolder) -> RunConfig:
    try:
        return folder.read_config()
    except RunFolderError as error:
        raise _with_advice(error) from None


def _with_advice(error: RunFolderError) -> RunFolderError:
    return RunFolderError(
        f"{error}. Put back a copy of the file, or choose another run.name (run.name=auto) for a new run"
    )


def _compare(member: MemberPlan) -> Differences:
    """The fields of a member that differ from what its folder says and do not change what is trained.

    Raises:
        ConfigChangedError: something else would be trained, on other data, or on other folds.
    """
    folder, config = member.folder, member.config
    try:
        old, known = folder.read_config(), read_provenance(folder)
        if not (known.data_fingerprint and known.plan_fingerprint):
            raise RunFolderError(f"{folder.provenance} has no fingerprints of data and folds")
    except RunFolderError as error:
        raise _with_advice(error) from None
    trained, other = find_differences(old, config)
    if "data.root" in trained and all(_is_made(root, folder) for root in trained["data.root"]):
        other["data.root"] = trained.pop("data.root")  # the run is worked on in another folder than before
    if trained:
        changes = "\n".join(
            f"  {name}: {show_value(was)} in the run, {show_value(now)} now" for name, (was, now) in trained.items()
        )
        anew = (
            "give the member another name"
            if folder.member != MAIN
            else "choose another run.name (run.name=auto) for a new run"
        )
        raise ConfigChangedError(
            f"{folder.root} exists and these fields change what is trained:\n{changes}\n"
            f"Use the old values to continue it, or {anew}"
        )
    if not member.inventory.has_fingerprint(known.data_fingerprint):
        raise ConfigChangedError(
            f"{folder.root} exists and its data changed: the tables or pictures below {config.trainer.data.root} are "
            "not the ones it began with. Put them back to continue it, or choose another run.name"
        )
    if known.plan_fingerprint != member.folds.fingerprint():
        raise ConfigChangedError(
            f"{folder.fold_plan} is missing or damaged, and the rows would be divided otherwise now: by another "
            "version of this project, or of scikit-learn (the run began with "
            f"{known.versions.get('scikit-learn')}). Put back a copy of the file to continue the run, or use "
            "another run.name"
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


def _write_new(plan: Plan, member: MemberPlan, command: str) -> None:
    folder, folds, inventory = member.folder, member.folds, member.inventory
    write_csv(folder.fold_info, ["fold", "train_size", "val_size"], folds.sizes())
    if inventory.bad_rows:
        columns = list(inventory.bad_rows[0])
        write_csv(folder.bad_rows, columns, [[row[name] for name in columns] for row in inventory.bad_rows])
    leaks = plan.leaks if folder.member == MAIN else []  # found by what the run's own recipe reads
    if leaks:
        write_csv(folder.leaks, COLUMNS, list_rows(leaks))
    provenance = Provenance(
        command=command,
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        target=inventory.target_name,
        data_fingerprint=inventory.fingerprint,
        plan_fingerprint=folds.fingerprint(),
        constant_predictions=tuple(_predict_constants(member.config.kind, folds, plan.inventory)),
        num_train=len(folds.ids),
        num_test=inventory.num_test,
        leaks=count_leaks(leaks, inventory),
        notes=inventory.notes,
        versions=package_versions(list_all_packages()),
    )
    write_provenance(folder, provenance)
    folder.write_config(member.config)  # last: from here on it exists


def _predict_constants(kind: Kind, folds: FoldPlan, inventory: Inventory) -> list[Any]:
    """For each fold the constant of its training rows that a model has to beat; none of a kind that finds it otherwise,
    or of rows without a target."""
    if inventory.target is None:
        return []
    target = dict(zip(folds.ids, inventory.target, strict=True))
    splits = [folds.split(fold) for fold in range(folds.count)]
    trained = [np.array([target[row_id] for row_id in split.train_ids]) for split in splits]
    constants = [kind.predict_constant(target_n, inventory.target) for target_n in trained]
    return [constant for constant in constants if constant is not None]


def is_plan_whole(folder: RunFolder, plan: FoldPlan) -> bool:
    """Whether `fold_plan.parquet` says what the plan says."""
    try:
        table = read_parquet(folder.fold_plan)
        saved = read_plan_table(table, plan.ids, plan.count, is_ordered=plan.ordered)
        return table["id"].to_pylist() == plan.ids.tolist() and saved.fingerprint() == plan.fingerprint()
    except (RunFolderError, KeyError, ValueError):
        return False
