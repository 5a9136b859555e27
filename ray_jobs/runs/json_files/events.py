"""What happens to folds, and what each event makes of a fold's status. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ray_jobs.runs.json_files.status import FoldState, FoldStatus
from trainers.interface import EndReason


@dataclass(frozen=True)
class RunStarted:
    """The driver has planned the folds and knows their resources."""

    total_samples: int
    num_gpus: float
    world_size: int
    sizes: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class PrecisionChosen:
    """The first fold that has started says what `precision=auto` is in this run: fp32, bf16 or fp16."""

    precision: str


@dataclass(frozen=True)
class FoldLaunched:
    """The driver has asked for a fold's workers."""

    fold: int
    attempt: int
    num_workers: int
    num_threads: int


@dataclass(frozen=True)
class FoldStarted:
    """A fold's workers run, on these nodes, rank 0 as process `pid`; from `step` on, if they go on where an earlier
    attempt was."""

    fold: int
    attempt: int
    epoch: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    nodes: tuple[str, ...] = ()
    pid: int = 0
    stage: str = ""
    best_step: int | None = None


@dataclass(frozen=True)
class StageBegun:
    """A fold's training has come to another stage, in which the best score counts anew; shown, not recorded."""

    fold: int
    attempt: int
    stage: str


@dataclass(frozen=True)
class AliveReported:
    """A fold does something that has no other word for a while, such as a long validation; not recorded."""

    fold: int
    attempt: int


@dataclass(frozen=True)
class PreparationReported:
    """Rows have gone through what comes before a fold's training, such as the encoding of pictures; shown, not
    recorded."""

    fold: int
    attempt: int
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class ProgressReported:
    """A fold has done some steps; shown, not recorded."""

    fold: int
    attempt: int
    epoch: int
    num_epochs: int
    step: int
    num_steps: int
    tokens: int | None = None
    num_tokens: int | None = None


@dataclass(frozen=True)
class EpochReported:
    """A fold has finished an epoch."""

    fold: int
    attempt: int
    epoch: int
    num_epochs: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationReported:
    """A fold was evaluated between epochs, or has none."""

    fold: int
    attempt: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EndedEarly:
    """A fold's training ends at a step before all its steps are done. If its time was up, a later attempt that comes to
    the step ends there, too."""

    fold: int
    attempt: int
    step: int
    reason: EndReason


@dataclass(frozen=True)
class FoldCompleted:
    """A fold's manifest is written."""

    fold: int
    attempt: int


@dataclass(frozen=True)
class FoldFailed:
    """A fold's attempt has ended with an error."""

    fold: int
    attempt: int
    error: str


@dataclass(frozen=True)
class FoldStopped:
    """A fold's attempt has ended after an epoch because the run was asked to stop."""

    fold: int
    attempt: int


@dataclass(frozen=True)
class FoldResized:
    """A fold's attempt has ended because the fold is to go on with another number of workers."""

    fold: int
    attempt: int


FoldEvent = (
    FoldLaunched
    | FoldStarted
    | AliveReported
    | PreparationReported
    | ProgressReported
    | EpochReported
    | EvaluationReported
    | StageBegun
    | EndedEarly
    | FoldCompleted
    | FoldFailed
    | FoldStopped
    | FoldResized
)
Event = RunStarted | FoldEvent
# Shown in the live table only; events.jsonl keeps what changes a fold's state.
NOT_KEPT = (AliveReported, PreparationReported, ProgressReported, EpochReported, EvaluationReported, StageBegun)

_ENDS = (FoldState.COMPLETED, FoldState.FAILED, FoldState.INTERRUPTED)


def advance(status: FoldStatus, event: FoldEvent, now: float) -> FoldStatus:
    """The status after an event. Pure.

    The driver's words and those of the workers come in any order. So whichever comes first begins an attempt, and how
    one has ended stays, unless its files turn out to be whole."""
    if event.attempt > status.attempt:
        known = status
        status = FoldStatus(known.fold, attempt=event.attempt, train_size=known.train_size, val_size=known.val_size)
    if status.state in _ENDS and isinstance(event, FoldStarted | FoldFailed | FoldStopped | FoldResized):
        return status
    return _take_in(status, event, now)


def _take_in(status: FoldStatus, event: FoldEvent, now: float) -> FoldStatus:
    match event:
        case FoldLaunched():
            return replace(status, num_workers=event.num_workers)
        case FoldStarted():
            return replace(
                status,
                state=FoldState.TRAINING,
                started=now,
                epoch=event.epoch,
                step=event.step,
                first_step=event.step,
                best_score=event.best_score,
                best_epoch=event.best_epoch,
                nodes=event.nodes,
                pid=event.pid,
                stage=event.stage,
                best_step=event.best_step,
            )
        case StageBegun() | EndedEarly():
            return _turn(status, event)
        case AliveReported():
            return status
        case PreparationReported():
            return replace(status, preparation=(event.what, event.done, event.total), prepared=now)
        case ProgressReported():
            return replace(
                status,
                epoch=event.epoch,
                num_epochs=event.num_epochs,
                step=event.step,
                num_steps=event.num_steps,
                tokens=event.tokens,
                num_tokens=event.num_tokens,
                preparation=None,
            ).with_pace(now)
        case EpochReported() | EvaluationReported():
            return _score(status, event).with_pace(now)
        case FoldCompleted():
            return replace(status, state=FoldState.COMPLETED, finished=now, error=None, preparation=None)
        case FoldFailed():
            return replace(status, state=FoldState.FAILED, finished=now, error=event.error, preparation=None)
        case FoldStopped():
            return replace(status, state=FoldState.INTERRUPTED, finished=now, preparation=None)
        case FoldResized():
            return replace(status, state=FoldState.WAITING, preparation=None)


def _turn(status: FoldStatus, event: StageBegun | EndedEarly) -> FoldStatus:
    """The status in another stage, or at an early end; after the last stage its scores stay."""
    if isinstance(event, EndedEarly):
        return replace(status, ended_by=event.reason)
    stage = event.stage
    if not stage:
        return replace(status, stage="")
    status = replace(status, stage=stage, pace=None, train_loss=None, val_loss=None, score=None)
    return replace(status, best_score=None, best_epoch=None, best_step=None)


def _score(status: FoldStatus, event: EpochReported | EvaluationReported) -> FoldStatus:
    """The status after the model was scored, at the end of an epoch or between."""
    metrics, epoch = event.metrics, None
    if isinstance(event, EpochReported):
        epoch = event.epoch
        status = replace(status, epoch=epoch + 1, num_epochs=event.num_epochs)
    else:
        status = replace(status, evaluated=event.step)
    score = metrics["score"]
    if math.isfinite(score) and (status.best_score is None or score < status.best_score):
        status = replace(status, best_score=score, best_epoch=epoch, best_step=event.step)
    return replace(
        status,
        step=event.step,
        preparation=None,
        train_loss=metrics.get("train/loss_epoch"),
        val_loss=metrics.get("val/loss_epoch"),
        score=score,
        samples_per_second=metrics.get("train/samples_per_second"),
    )
