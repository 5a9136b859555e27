"""What a trial is, and what its folder says of it. The folders are the truth: a trial is known by its `config.json`. It
has ended when all its folds are there and were summed up, or when its `summary.json` says that it was stopped or has
failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.results.run_files import measure_folds
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, read_status
from ray_jobs.runs.json_files.summary import find_summary
from ray_jobs.tuning.space import Dimension, read_fields

_NAME = re.compile(r"trial_(\d{3,})")


class TrialState(StrEnum):
    """Where a trial is."""

    WAITING = "waiting"  # no fold has begun
    TRAINING = "training"  # this driver trains its folds
    INTERRUPTED = "interrupted"  # some of it is trained; it goes on
    COMPLETE = "complete"  # all folds are trained and scored
    STOPPED = "stopped"  # the scheduler has ended it after some folds
    FAILED = "failed"  # a fold failed


ENDED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)


@dataclass(frozen=True)
class Trial:
    """A recipe with other values in the tuned fields; as text, as one would type them."""

    number: int
    fields: dict[str, str]
    folder: RunFolder

    @property
    def name(self) -> str:
        """Its folder's name."""
        return name_trial(self.number)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.fields.items())


@dataclass(frozen=True)
class Result:
    """What is known of a trial.

    Attributes:
        folds: that are trained, in their order.
        score: error of all their out-of-fold predictions together; None: no fold is trained.
        fold_scores: error of each of them.
        seconds: that their training took, one after another.
        reason: why it failed or was stopped.
    """

    state: TrialState
    folds: tuple[int, ...] = ()
    score: float | None = None
    fold_scores: tuple[float, ...] = ()
    seconds: float = 0.0
    reason: str | None = None

    def as_json(self, metric: str) -> dict[str, Any]:
        """As `summary.json` of the trial has it."""
        return asdict(self) | {"metric": metric}


def name_trial(number: int) -> str:
    """The name of a trial and its folder."""
    return f"trial_{number:03d}"


def read_trials(tuning: RunFolder, space: Sequence[Dimension]) -> dict[int, Trial]:
    """The trials that have a folder, by number.

    Raises:
        RunFolderError: the config of one is damaged.
    """
    trials = {}
    for path in sorted(tuning.trials.glob("trial_*/config.json")):
        if match := _NAME.fullmatch(path.parent.name):
            folder, number = tuning.of_trial(path.parent.name), int(match[1])
            trials[number] = Trial(number, read_fields(space, folder.read_config()), folder)
    return dict(sorted(trials.items()))


def read_result(trial: Trial, config: RunConfig) -> Result:
    """What a trial's folder says of it.

    Args:
        trial: which.
        config: of the tuning: number of folds, metric, checkpoint.
    """
    folder, num_folds = trial.folder, config.folds.count
    folds = tuple(folder.completed_folds(num_folds))
    statuses = [read_status(folder, fold) for fold in range(num_folds)]
    summary = find_summary(folder)
    said = (
        summary.trial if summary else None
    ) or {}  # submit.py and kfold.py on a trial's folder write a summary without it
    state, reason = said.get("state"), said.get("reason")
    if summary and len(folds) == num_folds:
        state, reason, has_ended = TrialState.COMPLETE, None, True
    else:  # stopped or failed, as long as nobody has trained it further
        has_ended = state in (TrialState.STOPPED, TrialState.FAILED) and tuple(said["folds"]) == folds
    if not has_ended:
        began = bool(folds) or any(status.state != FoldState.WAITING for status in statuses)
        state, reason = TrialState.INTERRUPTED if began else TrialState.WAITING, None
    is_known = tuple(said.get("folds", ())) == folds and said.get("metric") == config.ensemble.metric
    score, fold_scores = (said["score"], tuple(said["fold_scores"])) if is_known else score_folds(folder, config, folds)
    seconds = sum(status.finished - status.started for status in statuses if status.finished and status.started)
    assert state is not None
    return Result(TrialState(state), folds, score, fold_scores, seconds, reason)


def score_folds(folder: RunFolder, config: RunConfig, folds: Sequence[int]) -> tuple[float | None, tuple[float, ...]]:
    """The error of all out-of-fold predictions of some folds together, and of each fold's own; by `ensemble.metric`, of
    `ensemble.checkpoint`.

    Raises:
        PredictionError: a file is damaged.
        RunError: the metric is not defined for a fold.
    """
    if not folds:
        return None, ()
    kind, metric = config.kind, config.ensemble.metric
    tables = measure_folds(folder, config, folds, config.ensemble.checkpoint)
    pairs = [kind.split(table) for table in tables]
    whole = [np.concatenate(columns) for columns in zip(*pairs, strict=True)]
    try:
        return kind.measure_error(metric, *whole), tuple(kind.measure_error(metric, *pair) for pair in pairs)
    except ValueError as error:
        raise RunError(
            f"{folder.root}: {error}. A tuning scores each fold: choose another ensemble.metric, or lower folds.count"
        ) from None
