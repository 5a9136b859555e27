"""The coordination actor: hears what the folds report, keeps their status on disk, records the `ensemble/` metrics.

It is a messenger, not a store: whatever it knows it has written to the run's folder, and it begins by reading that. While the
run's storage takes nothing it keeps what is to be written, and neither waits nor fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from ray_jobs.mirror import find_uri
from ray_jobs.run_folder import RunFolder, read_json, write_json
from ray_jobs.storage import Storage
from ray_jobs.tracking.record import MetricRecord, Record, read_lines

logger = logging.getLogger(__name__)
NAMESPACE = "kfold"


class FoldState(StrEnum):
    """Where a fold is."""

    WAITING = "waiting"  # planned, or launched and waiting for its resources
    TRAINING = "training"  # its workers run
    COMPLETED = "completed"  # checkpoints and predictions are on disk, with a manifest
    FAILED = "failed"  # its last attempt ended with an error
    INTERRUPTED = "interrupted"  # it ended after an epoch because the run was asked to stop, or its driver is gone


@dataclass(frozen=True)
class FoldStatus:
    """What `status.json` of a fold holds. Losses and scores are None until the first epoch ends; times unix seconds. `preparation`
    is what is done before the training, and of how many rows how many have gone through it; `prepared` when that was said;
    `num_workers` those of the attempt, 0 before the first; `nodes` Ray's ids of the nodes on which they run."""

    fold: int
    state: FoldState = FoldState.WAITING
    attempt: int = 0
    train_size: int = 0
    val_size: int = 0
    epoch: int = 0
    num_epochs: int = 0
    step: int = 0
    num_steps: int = 0
    first_step: int = 0
    train_loss: float | None = None
    val_loss: float | None = None
    score: float | None = None
    samples_per_second: float | None = None
    best_score: float | None = None
    best_epoch: int | None = None
    started: float | None = None
    finished: float | None = None
    error: str | None = None
    preparation: tuple[str, int, int] | None = None
    prepared: float | None = None
    num_workers: int = 0
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunStarted:
    """The driver has planned the folds and knows their resources."""

    total_samples: int
    num_gpus: float
    world_size: int
    sizes: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class FoldLaunched:
    """The driver has asked for a fold's workers."""

    fold: int
    attempt: int
    num_workers: int
    num_threads: int


@dataclass(frozen=True)
class FoldStarted:
    """A fold's workers run, on these nodes; from `step` on, if they go on where an earlier attempt was."""

    fold: int
    attempt: int
    epoch: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparationReported:
    """Rows have gone through what comes before a fold's training, such as the encoding of pictures; shown, not recorded."""

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


Event = (
    RunStarted
    | FoldLaunched
    | FoldStarted
    | PreparationReported
    | ProgressReported
    | EpochReported
    | FoldCompleted
    | FoldFailed
    | FoldStopped
    | FoldResized
)
# Shown in the live table only; events.jsonl keeps what changes a fold's state.
NOT_KEPT = (PreparationReported, ProgressReported, EpochReported)


class Coordination:
    """The state of all folds of one member; applies one event at a time. No Ray in it."""

    def __init__(self, folder: RunFolder, num_folds: int) -> None:
        self.folder, self.storage = folder, Storage(folder, 0.0)
        self.unwritten: list[tuple[str, Callable[[], Any]]] = []
        self.is_behind = False
        self.folds = {fold: read_status(folder, fold) for fold in range(num_folds)}
        self.events = Record(folder.events)
        self.noted = {
            (row["event"], row["fold"], row["attempt"]) for row in read_lines(folder.events) if "attempt" in row
        }
        self.record = MetricRecord(folder.ensemble_record)
        self.has_totals, self.all_are_said = False, False
        self.said: dict[int, str] = {}  # the last that the record says of each fold: start, completed
        for row in read_lines(self.record.path):
            self._follow(row)

    def apply(self, event: Event) -> None:
        """Takes in one event: memory, status file, metric record, in this order. A late word of an earlier attempt is
        ignored."""
        if not isinstance(event, RunStarted) and self._is_late(event):
            return
        if not isinstance(event, NOT_KEPT):
            self._note(event)
        if isinstance(event, RunStarted):
            self._start_run(event)
            return
        status = advance(self.folds[event.fold], event, time.time())
        self._keep(status)
        if isinstance(event, FoldStarted):
            self._log_start(status)
        elif isinstance(event, FoldCompleted):
            self._log_completion(event.fold)

    def settle(self) -> None:
        """Completes folds whose manifest is there although nobody said so: their driver was killed before it could."""
        for fold, status in self.folds.items():
            if self.folder.fold(fold).is_complete():
                if status.state != FoldState.COMPLETED:
                    self._keep(advance(status, FoldCompleted(fold, status.attempt), time.time()))
                self._log_completion(fold)

    def flush(self) -> None:
        """Writes what waits to be written, in order, as far as the storage takes it."""
        while self.unwritten:
            what, write = self.unwritten[0]
            try:
                self.storage.check()
                write()
            except OSError as error:
                if not self.is_behind:
                    logger.warning("%s waits to be written: %s", what, error)
                self.is_behind = True
                return
            self.unwritten.pop(0)
        self.is_behind = False

    def _write(self, what: str, write: Callable[[], Any]) -> None:
        self.unwritten.append((what, write))
        self.flush()

    def _keep(self, status: FoldStatus) -> None:
        self.folds[status.fold] = status
        what = f"status.json of fold {status.fold}"
        self.unwritten = [waiting for waiting in self.unwritten if waiting[0] != what]  # only the latest counts
        self._write(what, lambda: write_status(self.folder, status))

    def _note(self, event: Event) -> None:
        """Writes an event down, if it is not there already: Ray repeats a call when the actor had to restart."""
        name, values = type(event).__name__, asdict(event)
        if "attempt" in values:
            key = (name, values["fold"], values["attempt"])
            if key in self.noted:
                return
            self.noted.add(key)
        line = {"time": time.time(), "event": name, **values}
        self._write("a line of events.jsonl", lambda: self.events.append(line))

    def _is_late(self, event: Event) -> bool:
        """Whether a later attempt is known here, or on disk: then this is the actor of a driver that was killed."""
        known = self.folds[event.fold].attempt
        with contextlib.suppress(OSError):
            known = max(known, read_status(self.folder, event.fold).attempt)
        return event.attempt < known

    def _start_run(self, event: RunStarted) -> None:
        self.settle()
        for fold, train_size, val_size in event.sizes:
            known = self.folds[fold]
            if known.state == FoldState.TRAINING:  # left by an interrupted driver: this one has launched nothing yet
                known = FoldStatus(fold, attempt=known.attempt)
            self._keep(replace(known, train_size=train_size, val_size=val_size))
        if not self.has_totals:
            self._log(
                {
                    "ensemble/total_samples": event.total_samples,
                    "ensemble/n_folds": len(event.sizes),
                    "ensemble/n_gpus": event.num_gpus,
                    "ensemble/world_size": event.world_size,
                }
            )

    def _log_start(self, status: FoldStatus) -> None:
        """Records that a fold has started: once, however often it has to go on in another attempt."""
        name = f"ensemble/fold_{status.fold}"
        if self.said.get(status.fold) != "start":
            self._log(
                {f"{name}_start": 1, f"{name}_train_size": status.train_size, f"{name}_val_size": status.val_size}
            )

    def _log_completion(self, fold: int) -> None:
        """Records that a fold, and perhaps the run, is complete: once for each start."""
        if self.said.get(fold) != "completed":
            self._log({f"ensemble/fold_{fold}_completed": 1})
        if self.all_are_said or any(status.state != FoldState.COMPLETED for status in self.folds.values()):
            return
        table = [[status.fold, status.train_size, status.val_size] for status in self.folds.values()]
        self._log(
            {
                "ensemble/all_folds_completed": 1,
                "ensemble/ready_for_ensemble": 1,
                "ensemble/fold_info": {"columns": ["fold", "train_size", "val_size"], "data": table},
            }
        )

    def _log(self, metrics: dict[str, Any]) -> None:
        at = time.time()
        self._write("a line of ensemble.jsonl", lambda: self.record.log(self.record.num_lines, metrics, at=at))
        self._write("ensemble.jsonl", self.record.sync)
        self._follow(metrics)

    def _follow(self, row: Mapping[str, Any]) -> None:
        """What a row of the record says was recorded."""
        self.has_totals |= "ensemble/total_samples" in row
        for fold in self.folds:
            for what in ("start", "completed"):
                if f"ensemble/fold_{fold}_{what}" in row:
                    self.said[fold] = what
                    self.all_are_said = False
        self.all_are_said |= "ensemble/all_folds_completed" in row


def advance(status: FoldStatus, event: Event, now: float) -> FoldStatus:
    """The status after an event. Pure."""
    match event:
        case FoldLaunched():
            return FoldStatus(
                status.fold,
                attempt=event.attempt,
                train_size=status.train_size,
                val_size=status.val_size,
                num_workers=event.num_workers,
            )
        case FoldStarted():
            return replace(
                status,
                state=FoldState.TRAINING,
                attempt=event.attempt,
                started=now,
                epoch=event.epoch,
                step=event.step,
                first_step=event.step,
                best_score=event.best_score,
                best_epoch=event.best_epoch,
                nodes=event.nodes,
            )
        case PreparationReported():
            return replace(status, preparation=(event.what, event.done, event.total), prepared=now)
        case ProgressReported():
            return replace(
                status,
                epoch=event.epoch,
                num_epochs=event.num_epochs,
                step=event.step,
                num_steps=event.num_steps,
                preparation=None,
            )
        case EpochReported():
            score = event.metrics["score"]
            is_best = math.isfinite(score) and (status.best_score is None or score < status.best_score)
            return replace(
                status,
                epoch=event.epoch + 1,
                num_epochs=event.num_epochs,
                step=event.step,
                preparation=None,
                train_loss=event.metrics["train/loss_epoch"],
                val_loss=event.metrics["val/loss_epoch"],
                score=score,
                samples_per_second=event.metrics.get("train/samples_per_second"),
                best_score=score if is_best else status.best_score,
                best_epoch=event.epoch if is_best else status.best_epoch,
            )
        case FoldCompleted():
            return replace(status, state=FoldState.COMPLETED, finished=now, error=None, preparation=None)
        case FoldFailed():
            return replace(status, state=FoldState.FAILED, finished=now, error=event.error, preparation=None)
        case FoldStopped():
            return replace(status, state=FoldState.INTERRUPTED, finished=now, preparation=None)
        case FoldResized():
            return replace(status, state=FoldState.WAITING, preparation=None)
    raise AssertionError(event)


def read_status(folder: RunFolder, fold: int) -> FoldStatus:
    """The status of a fold as its folder tells; a fold whose manifest is gone is not completed, whatever was noted. Where there is
    no status, or a damaged one, only the attempt is known: the events tell it."""
    known = read_json(folder.fold(fold).status, default=None)
    if known is None:
        return FoldStatus(fold, attempt=last_attempt(folder, fold))
    known = {name: value for name, value in known.items() if name in FoldStatus.__dataclass_fields__}
    status = FoldStatus(**{"fold": fold, **known})
    status = replace(status, state=FoldState(status.state))
    if status.state == FoldState.COMPLETED and not folder.fold(fold).is_complete() and not _is_elsewhere(folder):
        return FoldStatus(fold, attempt=status.attempt, train_size=status.train_size, val_size=status.val_size)
    return status


def _is_elsewhere(folder: RunFolder) -> bool:
    """Whether the run is in object storage, of which somebody who only looks does not bring everything."""
    return find_uri(folder) is not None and not folder.is_locked()


def forget_attempt(folder: RunFolder, fold: int) -> None:
    """Sets a fold that is about to be trained again back to waiting, whatever its last attempt came to."""
    write_status(folder, FoldStatus(fold, attempt=last_attempt(folder, fold)))


def write_status(folder: RunFolder, status: FoldStatus) -> None:
    """Replaces a fold's status."""
    write_json(folder.fold(status.fold).status, asdict(status), checksum=True)


def last_attempt(folder: RunFolder, fold: int) -> int:
    """Number of the latest attempt of a fold, also when its folder was deleted; 0 if it was never launched."""
    attempts = [row["attempt"] for row in read_lines(folder.events) if row.get("fold") == fold]
    return max(attempts, default=0)


def list_workers(folder: RunFolder, fold: int) -> list[int]:
    """Workers of each attempt that has trained a fold as it is now, in their order."""
    launched: dict[int, int] = {}
    trained: list[int] = []
    for row in read_lines(folder.events):
        if row.get("fold") != fold:
            continue
        if row["event"] == "FoldLaunched":
            launched[row["attempt"]] = row["num_workers"]
        elif row["event"] == "FoldStarted" and row["attempt"] in launched:
            trained = [*(trained if row["step"] else []), launched[row["attempt"]]]
    return trained


def actor_name(folder: RunFolder) -> str:
    """Name of the run's coordination actor: the run's name, and a mark of its folder so that two users' runs differ."""
    place = find_uri(folder) or str(folder.run_root)
    mark = hashlib.sha256(place.encode()).hexdigest()[:6]
    return f"{folder.run_root.name}-coordinator-{mark}"


class Coordinator:
    """Ray's form of `Coordination`: one actor for all members of a run. Sets the folds' gauges, too."""

    def __init__(self, root: str, members: list[str], num_folds: int) -> None:
        from ray_jobs.tracking.gauges import FoldGauges

        folder = RunFolder(root)
        self.members = {name: Coordination(folder.of_member(name), num_folds) for name in members}
        self.gauges = FoldGauges(folder.root.name, {name: state.folds for name, state in self.members.items()})
        self.gauges.start()

    def apply(self, member: str, event: Event) -> None:
        """Takes in an event of one member's folds."""
        self.members[member].apply(event)
        self.gauges.export()  # at once: the actor may end before the next refresh

    def show(self, lines: list[str]) -> None:
        """Prints what the driver's terminal shows into this actor's log, which Ray's dashboard opens: a driver that was not submitted has none
        there."""
        print(*lines, sep="\n", flush=True)

    def flush(self) -> None:
        """Writes what waits to be written, as far as the storage takes it."""
        for state in self.members.values():
            state.flush()


def start_actor(folder: RunFolder, members: list[str], num_folds: int) -> Any:
    """Starts the actor; it reserves nothing and comes back by itself if it dies. Of a run on object storage it lives on the driver's
    machine, whose files it writes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Coordinator)
    options = {"name": actor_name(folder), "namespace": NAMESPACE}
    if find_uri(folder) is not None:
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    return actor.options(**options).remote(str(folder.root), members, num_folds)
