"""What is found out about a tuning before anything is launched, and its folder: `tune.json`, `config.json` (the recipe
as it is), a run's folder for each trial. The data is read once for all trials that read the same of it, and divided
once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.cluster.versions import list_all_packages, package_versions
from ray_jobs.config.run import MAIN, RunConfig, find_differences
from ray_jobs.config.tune import TuneConfig
from ray_jobs.config.words import write_command
from ray_jobs.errors import ConfigChangedError, RunError, RunFolderError
from ray_jobs.planning.checks import check_run
from ray_jobs.planning.inventories import Inventories, describe_inputs
from ray_jobs.planning.plan import MemberPlan, Plan
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import Provenance, read_provenance, write_provenance
from ray_jobs.tuning.decisions import refuse_missing_search
from ray_jobs.tuning.space import Dimension, with_fields
from ray_jobs.tuning.trials import Trial
from trainers.interface import Inventory, Spread, call_here
from trainers.values import show_value

# Of the `tune` section: what must stay when a tuning goes on, for the trials that are there were chosen by it.
_CHOSEN_BY = ("space", "search", "scheduler", "reduction_factor", "seed")


@dataclass(frozen=True)
class Tuning:
    """A tuning that has passed every check.

    Attributes:
        plan: of the recipe as it is, in the tuning's own folder: its rows and folds are those of every trial.
        tune: how it is tuned.
        space: what.
        words: what the user typed but for `tune.*`, for the command that trains the best.
    """

    plan: Plan
    tune: TuneConfig
    space: list[Dimension]
    words: list[str]

    @property
    def folder(self) -> RunFolder:
        """The tuning's own."""
        return self.plan.folder

    @property
    def config(self) -> RunConfig:
        """Of the recipe as it is."""
        return self.plan.config

    def make_trial(self, number: int, fields: dict[str, str]) -> Trial:
        """A trial, whether its folder is there or not."""
        trial = Trial(number, fields, self.folder)
        return replace(trial, folder=self.folder.of_trial(trial.name))

    def plan_trial(self, trial: Trial) -> Plan:
        """A trial as a run of its own on the tuning's rows and folds.

        Raises:
            RunError: its values are not allowed together, or it has other rows than the recipe.
            DataError: the data cannot be read as its fields say.
        """
        config = with_fields(self.config, trial.fields)
        trainer, inventory = self._take_inventory(config)
        group = config.tracking.name or self.folder.root.name
        config = replace(
            config,
            trainer=trainer,
            run=replace(config.run, name=trial.name, storage=str(self.folder.trials)),
            # In W&B a trial is one run, of the tuning's; wandb_sync.py on its folder shows its folds, too.
            tracking=replace(config.tracking, wandb="disabled", name=f"{group}_{trial.name}"),
        )
        return Plan({MAIN: MemberPlan(config, trial.folder, inventory, self.plan.folds)}, self.plan.leaks)

    def _take_inventory(self, config: RunConfig) -> tuple[Any, Inventory]:
        """The trainer's config with whole paths, and the rows that it reads."""
        own = self.plan.inventory
        if describe_inputs(config) == describe_inputs(self.config):
            return config.trainer, own
        trainer, inventory = self._inventories.take(config)
        if not all(np.array_equal(getattr(own, n), getattr(inventory, n)) for n in ("ids", "target", "test_ids")):
            example = "".join(f", such as {str(row_id)!r}" for row_id in sorted({*own.ids} ^ {*inventory.ids})[:1])
            raise RunError(
                f"a trial reads {len(inventory.ids)} training and {inventory.num_test} test rows and the recipe "
                f"{len(own.ids)} and {own.num_test}, not all the same{example}: trials are compared row by row. "
                "Correct or remove the bad rows, or do not tune what decides which rows can be used"
            )
        return trainer, inventory

    @cached_property
    def _inventories(self) -> Inventories:
        """What trials read that is not as the recipe reads it."""
        return Inventories(self.folder.root, self.folder.cache, call_here)


def check_tuning(
    config: RunConfig,
    tune: TuneConfig,
    space: list[Dimension],
    words: Sequence[str],
    scratch: Path | None = None,
    spread: Spread = call_here,
) -> Tuning:
    """Everything that can be found out before anything is launched.

    Args:
        config: the recipe with the user's fields.
        tune: how it is tuned.
        space: what.
        words: what the user typed but for `tune.*`.
        scratch: where to put data that the project makes; None: into the tuning's folder.
        spread: reads what is in object storage.

    Raises:
        RunError, DataError: the message says what is wrong.
    """
    if "://" in config.run.storage:
        raise RunError(
            f"run.storage={config.run.storage}: expected a folder that all nodes share; tune.py takes no other"
        )
    if config.folds.only is not None:
        raise RunError(
            f"folds.only={list(config.folds.only)}: expected none, as a trial is scored on all folds; leave it out"
        )
    if config.ensemble.seeds > 1:
        raise RunError(f"ensemble.seeds={config.ensemble.seeds}: expected 1, as a trial trains one recipe once")
    name = tune.name or f"{config.recipe}_tune"
    if config.run.name not in (None, name):
        raise RunError(f"run.name={config.run.name}: expected none, as tune.name names the tuning; set tune.name")
    if "tuning" not in config.kind.offers:
        raise RunError(f"recipe {config.recipe} predicts {config.kind.title}: expected a recipe that predicts numbers")
    workers = config.resources.workers_per_fold
    if isinstance(workers, tuple):
        raise RunError(
            f"resources.workers_per_fold={list(workers)}: expected one number, as the workers of a trial's fold do not "
            "change"
        )
    refuse_missing_search(tune)
    plan = check_run(replace(config, run=replace(config.run, name=name)), scratch, spread, is_tuning=True)
    plan.config.kind.load_modules()  # trials are scored in threads
    return Tuning(plan, dataclasses.replace(tune, name=name), space, list(words))


def write_or_compare_tuning(tuning: Tuning, argv: Sequence[str]) -> None:
    """A new tuning writes what it is; one that exists must tune the same on the same data.

    Raises:
        ConfigChangedError, RunFolderError: nothing was written.
    """
    folder, plan = tuning.folder, tuning.plan
    provenance = Provenance(
        command=write_command("tune.py", argv),
        started=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        data_fingerprint=plan.inventory.fingerprint,
        plan_fingerprint=plan.folds.fingerprint(),
        versions=package_versions(list_all_packages()),
    )
    known = _read_known(folder)
    if known is not None:
        _refuse_changes(tuning, provenance, *known)
    else:
        write_provenance(folder, provenance)
    write_json(folder.tune, read_json(folder.tune, default={}) | {"tune": asdict(tuning.tune)})
    folder.write_config(tuning.config)  # last: from here on it exists


def _read_known(folder: RunFolder) -> tuple[RunConfig, Provenance, dict[str, Any]] | None:
    """The config, provenance and `tune` section that a tuning began with; None: it is new."""
    if not folder.config.exists():
        return None
    try:
        return folder.read_config(), read_provenance(folder), read_json(folder.tune)["tune"]
    except (RunFolderError, KeyError) as error:
        raise RunFolderError(
            f"{error}. Put back a copy of the file, or choose another tune.name for a new tuning"
        ) from None


def _refuse_changes(
    tuning: Tuning, provenance: Provenance, old: RunConfig, was: Provenance, before: dict[str, Any]
) -> None:
    now = asdict(tuning.tune)
    changes = {f"tune.{name}": (before.get(name), now[name]) for name in _CHOSEN_BY}
    changes["tune.space"] = (list(before.get("space", ())), list(now["space"]))
    changes |= find_differences(old, tuning.config)[0]
    lines = [
        f"  {name}: {show_value(first)} in the tuning, {show_value(then)} now"
        for name, (first, then) in changes.items()
        if first != then
    ]
    if lines:
        raise ConfigChangedError(
            f"{tuning.folder.root} exists and these fields change its trials:\n" + "\n".join(lines) + "\n"
            "Use the old values to continue it, or choose another tune.name for a new tuning"
        )
    for begun, now_is, what in (
        (was.data_fingerprint, provenance.data_fingerprint, "its data changed"),
        (was.plan_fingerprint, provenance.plan_fingerprint, "its rows would be divided otherwise"),
    ):
        if begun != now_is:
            raise ConfigChangedError(
                f"{tuning.folder.root} exists and {what}. Put back what it began with to continue it, or "
                "choose another tune.name"
            )
