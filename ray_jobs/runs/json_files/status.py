"""The state of a fold as its folder tells it, and the numbers of its attempts."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from ray_jobs.config.json_fields import from_json
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events_by_fold import read_events
from ray_jobs.runs.location import find_uri
from trainers.interface import EndReason


class FoldState(StrEnum):
    """Where a fold is."""

    WAITING = "waiting"  # planned, or launched and waiting for its resources
    TRAINING = "training"  # its workers run
    COMPLETED = "completed"  # checkpoints and predictions are on disk, with a manifest
    FAILED = "failed"  # its last attempt ended with an error
    INTERRUPTED = "interrupted"  # it ended after an epoch because the run was asked to stop, or its driver is gone


@dataclass(frozen=True)
class FoldStatus:
    """What `status.json` of a fold holds. Losses and scores are None until the first epoch ends; times unix seconds.
    `preparation` is what is done before the training, and of how many rows how many have gone through it; `prepared`
    when that was said; `num_workers` those of the attempt, 0 before the first; `nodes` Ray's ids of the nodes on which
    they run, rank 0's first, and `pid` its process; `heard` when rank 0 last said anything, `pace` when it first said
    how much was done, and how much (see `amounts`). Without epochs `num_epochs` is 0 and the best is known by its step;
    `stage` is empty where there is one only; `tokens` are None where nobody counts them; `evaluated` is the step of the
    last evaluation that ended no epoch; `ended_by` says why the training ended before all its steps."""

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
    pid: int = 0
    heard: float | None = None
    pace: tuple[float, int] | None = None
    stage: str = ""
    best_step: int | None = None
    evaluated: int | None = None
    tokens: int | None = None
    num_tokens: int | None = None
    ended_by: EndReason | None = None

    @property
    def amounts(self) -> tuple[int, int]:
        """What is done, and all of it (0: unknown): in tokens where they are counted, else in steps."""
        return (self.step, self.num_steps) if self.tokens is None else (self.tokens, self.num_tokens or 0)

    def estimate_remaining(self, now: float) -> float:
        """Seconds that a fold in training still needs, by what its attempt has done since its pace is known; 0 where
        nothing is known. What came before the first word of steps was no training."""
        done, total = self.amounts
        since, first = self.pace or (now, done)
        return (now - since) * (total - done) / (done - first) if first < done < total else 0.0

    def with_pace(self, now: float) -> FoldStatus:
        """With the pace, if none is known yet."""
        return self if self.pace else replace(self, pace=(now, self.amounts[0]))


def read_status(folder: RunFolder, fold: int) -> FoldStatus:
    """The status of a fold as its folder tells; a fold whose manifest is gone is not completed, whatever was noted.
    Where there is no status, or a damaged one, only the attempt is known: the events tell it."""
    known = read_json(folder.fold(fold).status, default=None)
    if known is None:
        return FoldStatus(fold, attempt=last_attempt(folder, fold))
    status = from_json(FoldStatus, {"fold": fold, **known})
    if status.state == FoldState.COMPLETED and not folder.fold(fold).is_complete() and not _is_elsewhere(folder):
        return FoldStatus(fold, attempt=status.attempt, train_size=status.train_size, val_size=status.val_size)
    return status


class StatusReader:
    """Reads the statuses of folds again and again: a file that is as it was is not read again, nor are the files of a
    fold that was whole."""

    def __init__(self) -> None:
        self.known: dict[tuple[Path, int], tuple[tuple[int, int, int], FoldStatus]] = {}

    def read(self, folder: RunFolder, num_folds: int) -> list[FoldStatus]:
        """The status of every fold."""
        return [self._read_one(folder, fold) for fold in range(num_folds)]

    def _read_one(self, folder: RunFolder, fold: int) -> FoldStatus:
        try:
            found = os.stat(folder.fold(fold).status)
        except FileNotFoundError:
            return read_status(folder, fold)
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self.known.get((folder.root, fold))
        if known is None or known[0] != stamp:
            known = self.known[folder.root, fold] = (stamp, read_status(folder, fold))
        return known[1]


def _is_elsewhere(folder: RunFolder) -> bool:
    """Whether the run is in object storage: a reader does not download all of it."""
    return find_uri(folder) is not None and not folder.is_locked()


def forget_attempt(folder: RunFolder, fold: int) -> None:
    """Sets a fold that is about to be trained again back to waiting, whatever its last attempt came to."""
    write_status(folder, FoldStatus(fold, attempt=last_attempt(folder, fold)))


def write_status(folder: RunFolder, status: FoldStatus) -> None:
    """Replaces a fold's status."""
    write_json(folder.fold(status.fold).status, asdict(status), checksum=True)


def last_attempt(folder: RunFolder, fold: int) -> int:
    """Number of the latest attempt of a fold, also when its folder was deleted; 0 if it was never launched."""
    return max((row["attempt"] for row in read_events(folder, fold)), default=0)


def find_budget_end(folder: RunFolder, fold: int) -> int | None:
    """The step at which a fold's time was up; None: it was not. What was decided holds for its further attempts."""
    found = [
        int(row["step"])
        for row in read_events(folder, fold)
        if row["event"] == "EndedEarly" and row["reason"] == "budget"
    ]
    return found[-1] if found else None


def list_workers(folder: RunFolder, fold: int) -> list[int]:
    """Workers of each attempt that has trained a fold as it is now, in their order."""
    events, trained = read_events(folder, fold), list[int]()
    launched = {row["attempt"]: row["num_workers"] for row in events if row["event"] == "FoldLaunched"}
    for row in events:
        if row["event"] == "FoldStarted" and row["attempt"] in launched:
            trained = [*(trained if row["step"] else []), launched[row["attempt"]]]
    return trained


def read_statuses(folder: RunFolder, num_folds: int) -> list[FoldStatus]:
    """The status of every fold."""
    return [read_status(folder, fold) for fold in range(num_folds)]
