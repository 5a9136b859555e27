"""Trains a finished run's recipe once more on all rows, as one model for serving: a run of its own beside it.

It is trained for as many steps as the folds of the run were on average until their checkpoint that counts. No row is
left to score it: what is known of it is the run's out-of-fold score, and that is what it is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ray_jobs.cli.command_line import Command
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.driver.kfold import run_kfold
from ray_jobs.errors import RunError
from ray_jobs.planning.plan import Plan
from ray_jobs.results.checks import check_finished
from ray_jobs.results.run_files import with_one_model
from ray_jobs.results.wording import describe_new_rows
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import read_provenance
from ray_jobs.runs.json_files.status import read_statuses
from ray_jobs.runs.json_files.summary import find_summary
from ray_jobs.runs.location import find_refit, find_uri


def refit_run(folder: RunFolder, argv: Sequence[str]) -> int:
    """The job; returns an exit code as `run_kfold` does.

    Args:
        folder: of the finished run.
        argv: what was typed.

    Raises:
        RunError, DataError: nothing was launched; the message says why.
    """
    config = folder.read_config()
    if config.folds.trains_all:
        raise RunError(f"{folder.root} is a refit: expected the run that it is of; name that")
    check_finished(folder, config, [MAIN])
    num_steps = find_steps(folder, config)
    command = Command(build_config(folder, config, num_steps), dry_run=False, job="refit.py")
    return run_kfold(command, argv, lambda plan: _settle(plan, folder, config, num_steps))


def find_steps(folder: RunFolder, config: RunConfig) -> int | None:
    """For how many steps the folds were trained on average, until the checkpoint that counts; None: they have counted
    none, so that the recipe alone says how long it trains."""
    statuses = read_statuses(folder, config.folds.count)
    is_best = config.ensemble.checkpoint == "best"
    steps = [status.best_step if is_best else status.step for status in statuses]
    known = [number for number in steps if number]
    return round(sum(known) / len(known)) if len(known) == len(steps) else None


def build_config(folder: RunFolder, config: RunConfig, num_steps: int | None) -> RunConfig:
    """The config of the run that trains on all rows."""
    storage, own = find_uri(folder), with_one_model(config)
    return dataclasses.replace(
        own,
        run=dataclasses.replace(
            config.run,
            name=find_refit(folder.root.name),
            storage=storage.rpartition("/")[0] if storage else str(folder.root.parent),
            time_budget=None,
        ),
        folds=FoldsConfig(count=1, kind="all", seed=config.folds.seed, last_step=num_steps),
        ensemble=dataclasses.replace(own.ensemble, checkpoint="final", folds="all"),
    )


def _settle(plan: Plan, folder: RunFolder, config: RunConfig, num_steps: int | None) -> Plan:
    """The plan with what is to be said of the model.

    Raises:
        RunError: the run was trained on other data.
    """
    if not plan.inventory.has_fingerprint(read_provenance(folder).data_fingerprint):
        raise RunError(
            f"the tables or pictures below {config.trainer.data.root} are not those of {folder.root}: its score would "
            "say nothing of the model. Put them back, or train a run on these (kfold.py) first"
        )
    main = plan.members[MAIN]
    notes = (*main.inventory.notes, describe_refit(folder, config, num_steps))
    inventory = dataclasses.replace(main.inventory, notes=notes)
    return dataclasses.replace(plan, members={MAIN: dataclasses.replace(main, inventory=inventory)})


def describe_refit(folder: RunFolder, config: RunConfig, num_steps: int | None) -> str:
    """What is known of the model, in a sentence."""
    summary, checkpoint = find_summary(folder), config.ensemble.checkpoint
    text = f"one model of all rows, by the recipe of run {folder.root.name}"
    if num_steps:
        text += f", for the {num_steps:,} step(s) that its folds took on average to their {checkpoint} checkpoints"
    known = summary.stage.new_rows if summary else None
    scored = f"the out-of-fold one of that run's folds: {describe_new_rows(known)}" if known else "that of the run"
    return f"{text}. No row is left to score it: its score is {scored}"
