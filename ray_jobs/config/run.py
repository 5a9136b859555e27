"""The whole config of a run: the sections that decide what is trained (owned by the model family) and those that decide
how. Frozen dataclasses; imports neither torch nor ray."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from ensemble.config import FITTED_METHODS, NOTHING_TO_FIT, EnsembleConfig
from ensemble.kinds import Kind, load_kind
from ray_jobs.config.durations import EXAMPLES, read_duration
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.json_fields import from_json
from ray_jobs.config.resources import ResourcesConfig
from trainers.interface import load_config_class
from trainers.values import check_choice, check_number, describe_name, refuse, show_value

WANDB_MODES = ("auto", "online", "offline", "disabled")
MAIN = "main"  # the member that every run has: its own recipe
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True)
class RunSection:
    """Name and place of a run, and how it is watched."""

    name: str | None = None
    """The run's name, and its folder's; None: the recipe's name; auto: with a time stamp, always a new run."""
    storage: str = "~/ray_results"
    """Folder that holds the runs, or s3://bucket/prefix (gs://, untested). On a cluster of several nodes a folder that
    all of them share, or object storage."""
    dashboard: bool = True
    """Start Ray's dashboard when the job starts a cluster of its own."""
    stall_timeout_s: float | None = 1800.0
    """A fold that has not done a step, a validation or a pass of predictions for so long writes down where each thread
    stands and begins another attempt. None: wait for ever."""
    time_budget: str | None = None
    """How long the folds may train, all together, such as 2h: each ends after the last epoch that fits into its share,
    and what there is is combined. Check, predictions, ensemble and report come on top. None: as long as they need."""

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise refuse("run.name", self.name, describe_name("_-.", 128))
        if self.time_budget is not None and not self.time_budget_s:
            raise refuse("run.time_budget", self.time_budget, f"{EXAMPLES}, above 0, or none")
        check_number("run.stall_timeout_s", self.stall_timeout_s, least=1, below=1e6, unit="seconds", instead="none")

    @property
    def time_budget_s(self) -> float | None:
        """Seconds that the folds may train."""
        return None if self.time_budget is None else read_duration("run.time_budget", self.time_budget)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a fold saves the point from which it goes on after a kill: at each epoch's end, and as often as is said
    here."""

    every_steps: int | None = None
    """Also after so many optimiser steps, in the middle of an epoch."""
    min_interval_s: float = 2.0
    """At an epoch's end only if the last point is so many seconds old: short epochs would be slowed by saving."""
    storage_patience_s: float = 300.0
    """How long a fold waits for storage that is full, read-only or away before it fails; 0: it fails at once."""

    def __post_init__(self) -> None:
        check_number("checkpoint.every_steps", self.every_steps, least=1, instead="none")
        check_number("checkpoint.storage_patience_s", self.storage_patience_s, least=0, below=1e6, unit="seconds")


@dataclass(frozen=True)
class TrackingConfig:
    """What is recorded and how often, and how W&B shows it. WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and WANDB_NAME set
    the defaults of `wandb`, `project`, `entity` and `name`, and so do W&B's settings files."""

    log_interval: int = 10
    """Optimiser steps between two fetches of the step losses from the device, and between two progress lines in the
    log. Every step has its row all the same."""
    log_batch_metrics: bool = False
    """Also write batch_metrics_<time>.csv, a line for each batch."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """auto: as W&B's settings files say (`wandb offline`, `wandb disabled`); else online where there is a key, else
    offline."""
    tensorboard: bool = False
    """Also write the numbers of the record to tensorboard/ in the run's folder."""
    project: str = "challenge_CSC_43M04_EP"
    """W&B project."""
    entity: str | None = None
    """W&B team or user; None: the key's own."""
    name: str | None = None
    """Experiment name in W&B, the runs' group and prefix, in which {time} is when the run came to W&B; None:
    run.name."""
    tags: tuple[str, ...] = ()
    """Tags of the W&B runs, besides the recipe's name."""
    finish_timeout_s: float = 60.0
    """How long the end of the run may wait for W&B; what is not uploaded by then stays to be sent by wandb_sync.py."""
    on_stop: Literal["report", "stop"] = "report"
    """What "Stop" on W&B's page does: only say so, or end the run after the epochs that are under way."""

    def __post_init__(self) -> None:
        check_number("tracking.log_interval", self.log_interval, least=1)
        check_number("tracking.finish_timeout_s", self.finish_timeout_s, least=0, below=1e6, unit="seconds")
        check_choice("tracking.wandb", self.wandb, WANDB_MODES)
        check_choice("tracking.on_stop", self.on_stop, ("report", "stop"))
        if not 1 <= len(self.project) <= 128 or any(character in self.project for character in "/\\#?%:"):
            raise refuse("tracking.project", self.project, "1 to 128 characters without any of / \\ # ? : %")
        if any(not 1 <= len(tag) <= 64 for tag in self.tags):
            raise refuse("tracking.tags", self.tags, "1 to 64 characters in each")


@dataclass(frozen=True)
class RunConfig:
    """Everything about a run.

    Attributes:
        recipe: name of the recipe it started from.
        family: folder in `trainers/`.
        trainer: the family's own `Config`; its sections (`data`, `model`, ...) stand beside the others in
            `config.json` and on the command line.
        members: what is trained beside the recipe itself on the same folds, each as `name [recipe] [field=value ...]`.
    """

    recipe: str
    family: str
    trainer: Any
    run: RunSection = field(default_factory=RunSection)
    folds: FoldsConfig = field(default_factory=FoldsConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.recipe_names
        for name in names[1:]:
            if not _MEMBER.fullmatch(name):
                raise ValueError(
                    f"--members: the name {name!r}: expected {describe_name('_-', 32)}, then the fields that differ, "
                    "such as 'wide model.hidden_dim=128'"
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"--members: the name {name!r} is used twice: expected each name once, and not {MAIN}, which is "
                    "the run's own recipe; rename one"
                )
        _check_combination(self.ensemble, self.member_names, self.folds)

    @property
    def kind(self) -> Kind:
        """What the family predicts."""
        return load_kind(self.trainer.PREDICTS)

    @property
    def error_name(self) -> str:
        """Of the error by `ensemble.metric`, in tables and records."""
        return self.kind.describe_metric(self.ensemble.metric).error_name

    @property
    def recipe_names(self) -> list[str]:
        """`main` and the names of the other members, as they are written."""
        return [MAIN, *((text.split() or [""])[0] for text in self.members)]

    @property
    def member_names(self) -> list[str]:
        """Of all that is trained and combined: each member and, with `ensemble.seeds`, its trainings with other seeds,
        which are members like others."""
        return [one for name in self.recipe_names for one in name_trainings(name, self.ensemble.seeds)]

    @property
    def combined_members(self) -> list[str]:
        """The run's members whose predictions are combined."""
        wanted = self.ensemble.members
        return self.member_names if wanted is None else [name for name in wanted if name in self.member_names]


def name_trainings(name: str, num_seeds: int) -> list[str]:
    """The names of a member's trainings: the first, with the seed of its config, has the member's own. (No name that
    users give has a dot.)"""
    return [name, *(f"{name}.seed{number}" for number in range(1, num_seeds))]


def _check_combination(ensemble: EnsembleConfig, names: list[str], folds: FoldsConfig) -> None:
    """Raises ValueError where what is to be combined does not fit how."""
    chosen = ensemble.members or ()
    unknown = [name for name in chosen if name not in names]
    if unknown and (ensemble.external is None or len(unknown) == len(chosen)):
        raise refuse("ensemble.members", chosen, f"members of the run: {', '.join(names)}")
    combined = len(ensemble.members or names)
    if ensemble.external is not None:
        return  # which columns the file has is known when it is read
    may_have_blend_set = folds.blend_fraction > 0 or folds.kind == "predefined"
    if ensemble.method in FITTED_METHODS and combined == 1 and not may_have_blend_set:
        raise ValueError(f"ensemble.method={ensemble.method}: {NOTHING_TO_FIT}")
    wanted, what = (combined, "member") if combined > 1 else (folds.count, "fold")
    if ensemble.weights is not None and what == "fold" and ensemble.folds != "all":
        raise ValueError(
            f"ensemble.weights gives each of {folds.count} folds one, and ensemble.folds={ensemble.folds} combines "
            "those that are there: leave out one of the two"
        )
    if ensemble.weights is not None and len(ensemble.weights) != wanted:
        raise refuse("ensemble.weights", ensemble.weights, f"{wanted} numbers, one for each {what}")


def refuse_idle_gpus(config: RunConfig) -> None:
    """Raises ValueError where a worker would train with GPUs that its trainer leaves alone."""
    resources = config.resources
    gpus, workers = resources.gpus_per_fold, resources.most_workers
    if gpus != "auto" and gpus > workers and not getattr(config.trainer, "USES_SEVERAL_GPUS", False):
        raise refuse(
            "resources.gpus_per_fold",
            gpus,
            f"at most {workers} with resources.workers_per_fold={show_value(resources.workers_per_fold)}, as a worker "
            "trains on one GPU; raise resources.workers_per_fold to use more",
        )


SECTIONS = ("run", "folds", "ensemble", "resources", "checkpoint", "tracking")
# Fields whose change trains something else. Everything of the family's config does, too.
_TRAINED_BY = (
    "folds.count",
    "folds.kind",
    "folds.seed",
    "folds.blend_fraction",
    "folds.holdout_fraction",
    "folds.gap",
    "folds.max_train",
    "folds.embargo_groups",
    "folds.last_step",
    "resources.workers_per_fold",
    "resources.cpus_per_fold",
)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The config as it stands in `config.json`: recipe, family, then one mapping a section; tuples are lists."""
    whole = {"recipe": config.recipe, "family": config.family, "run": dataclasses.asdict(config.run)}
    whole |= dataclasses.asdict(config.trainer)
    whole |= {name: dataclasses.asdict(getattr(config, name)) for name in SECTIONS[1:]}
    whole["members"] = config.members
    as_json: dict[str, Any] = json.loads(json.dumps(whole))
    return as_json


def from_dict(values: dict[str, Any]) -> RunConfig:
    """The config of such a mapping.

    Raises:
        ValueError: a field is unknown or has a value that is not allowed.
    """
    trainer_class = load_config_class(values["family"])
    trainer_sections = {f.name for f in dataclasses.fields(trainer_class)}
    known = {"recipe", "family", "members", *SECTIONS, *trainer_sections}
    if unknown := set(values) - known:
        raise ValueError(f"no section {sorted(unknown)[0]!r}: expected some of {', '.join(sorted(known))}")
    read = functools.partial(from_json, takes_unknown=False)
    return RunConfig(
        recipe=values["recipe"],
        family=values["family"],
        trainer=read(trainer_class, {name: values[name] for name in trainer_sections if name in values}),
        members=tuple(values.get("members", ())),
        **{name: read(_section_class(name), values[name]) for name in SECTIONS if name in values},
    )


def flatten(values: dict[str, Any]) -> dict[str, Any]:
    """{"folds": {"count": 3}} to {"folds.count": 3}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in flatten(value).items()}
        else:
            flat[name] = value
    return flat


Differences = dict[str, tuple[Any, Any]]  # by field: what it was, what it is


def find_differences(old: RunConfig, new: RunConfig) -> tuple[Differences, Differences]:
    """Fields that differ, {name: (old, new)}: first those that change what is trained, then the others."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    not_trained_by = {"members", *new.trainer.NOT_TRAINED_BY}
    trained: Differences = {}
    other: Differences = {}
    for name in sorted(before | after):
        if before.get(name) == after.get(name):
            continue
        section = name.partition(".")[0]
        is_trained = (
            (name in _TRAINED_BY and not _is_elastic(name, before, after))
            or _moves_rows(name, before, after)
            or (section not in SECTIONS and name not in not_trained_by)
        )
        (trained if is_trained else other)[name] = (before.get(name), after.get(name))
    return trained, other


def _moves_rows(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a change of `folds.on_leak` divides rows otherwise: warn and error do not."""
    return name == "folds.on_leak" and "group" in (before.get(name), after.get(name))


def _is_elastic(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a change of `resources.workers_per_fold` is one of the bounds between which it changes anyway."""
    return name == "resources.workers_per_fold" and all(isinstance(flat.get(name), list) for flat in (before, after))


def _section_class(name: str) -> type[Any]:
    section: type[Any] = typing.get_type_hints(RunConfig)[name]
    return section
