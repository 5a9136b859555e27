"""What is asked of folds while they train, as files in the run's folder: to stop, or to go on with other workers."""

from __future__ import annotations

import time
from enum import StrEnum

from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import FoldFolder, RunFolder


class StopWhen(StrEnum):
    """When a run that is asked to stop ends."""

    NOW = "now"  # at the next step
    EPOCH = "epoch"  # after the epochs that are under way


def request_stop(folder: RunFolder, when: StopWhen, by: str) -> None:
    """Asks the folds of a run to save where they are and end."""
    write_json(folder.stop_request, {"when": when.value, "by": by, "time": time.time()})


def read_stop_request(folder: RunFolder) -> StopWhen | None:
    """The request to stop, if there is one; storage that is away asks for nothing."""
    try:
        if not folder.stop_request.exists():
            return None
        return StopWhen(read_json(folder.stop_request, default={"when": StopWhen.EPOCH})["when"])
    except OSError:
        return None


def request_leave(fold: FoldFolder, attempt: int) -> None:
    """Asks an attempt of a fold to save where it is and end: it goes on in another one, with another number of workers,
    or off a node that is about to go."""
    write_json(fold.leave_request, {"attempt": attempt})


def is_leave_requested(fold: FoldFolder, attempt: int) -> bool:
    """Whether this attempt of a fold is to end; storage that is away asks for nothing."""
    try:
        return fold.leave_request.exists() and read_json(fold.leave_request, default={}).get("attempt") == attempt
    except OSError:
        return False
