"""What ended an attempt of a fold, in the user's words, and whether another attempt can help. Pure.

PREEMPTED  its node is being taken away, and it was asked to leave: goes on elsewhere, as often as need be
NO_ROOM    others took the room that its workers were given: tried again as often as need be (elastic folds only; others
           wait)
DIED       its process, its controller or its node is gone, or a file that it had saved: tried again, at most
           `MAX_DEATHS` times without a point gained
STALLED    it did nothing for `run.stall_timeout_s` and ended itself, or Ray has seen that its ranks' GPUs wait for
           each other: like a death
MEMORY     a GPU is full: the same settings would fill it again. Where folds share a GPU, the fold is tried again with
           one of its own, once (`launcher.py`)
ERROR      an error of the trainer or its data, NaN losses among them: the same bits would fail again; and storage that
           was away for longer than the fold's patience: the fold has tried again for long enough
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ray_jobs.errors import LostFileError, StorageError

MAX_DEATHS = 3
# Errors by which Ray says that a process is gone; their texts are pages of Ray's own affairs.
_DEATHS = ("ActorDiedError", "ActorUnavailableError", "RayActorError", "WorkerCrashedError", "NodeDiedError",
           "OutOfMemoryError", "WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError",
           "WorkerGroupStartupFailedError",
           "WorkerGroupStartupTimeoutError")  # fmt: skip
_FULL_GPU = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Cause(StrEnum):
    """Why an attempt ended."""

    PREEMPTED = "preempted"
    NO_ROOM = "no room"
    DIED = "died"
    STALLED = "stalled"
    MEMORY = "memory"
    ERROR = "error"


@dataclass(frozen=True)
class Failure:
    """An attempt that ended badly."""

    cause: Cause
    message: str

    def may_be_retried(self, num_deaths: int) -> bool:
        """Whether another attempt makes sense, after so many deaths without a resume point gained, this one
        included."""
        if self.cause in (Cause.PREEMPTED, Cause.NO_ROOM):
            return True
        return self.cause in (Cause.DIED, Cause.STALLED) and num_deaths <= MAX_DEATHS


def explain_failure(error: Exception, memory_advice: str = "") -> Failure:
    """The worker's own error rather than Ray Train's frame around it.

    When one rank fails, the others lose their connection to it; the rank that did not is the cause. Ray does not wait
    for all of them: where only lost connections are known, a rank has died.

    Args:
        error: what has ended the attempt.
        memory_advice: which options of the family make a fold need less memory of a GPU.
    """
    failures = getattr(error, "worker_failures", None)
    if type(error).__name__.startswith("RayTaskError"):  # of a fold of one worker
        failures = {0: error}
    error = getattr(error, "controller_failure", None) or error
    if not failures:
        if type(error).__name__ in ("WorkerGroupStartupTimeoutError", "NoRoomError"):
            return Failure(Cause.NO_ROOM, "found no room for its workers in time")
        if type(error).__name__ == "NCCLHangError":
            return Failure(Cause.STALLED, f"its ranks waited for each other without end: {str(error)[:300]}")
        if type(error).__name__ == "PreemptionError":
            return Failure(Cause.PREEMPTED, "its node was taken away before it could save where it was")
        if type(error).__name__ == "ActorUnschedulableError":  # Ray Train's controllers run beside the driver
            return Failure(
                Cause.ERROR,
                "the driver's own node is being taken away, and no fold can start from there; the same command on "
                "another node goes on",
            )
        if _is_death(error):
            return Failure(Cause.DIED, _describe_death(error))
        return Failure(Cause.ERROR, f"{type(error).__name__}: {error}")
    causes = {rank: getattr(failure, "cause", None) or failure for rank, failure in failures.items()}
    rank = min(causes, key=lambda rank: (_is_lost_connection(causes[rank]), rank))
    cause = causes[rank]
    if _is_death(cause):
        return Failure(Cause.DIED, f"rank {rank}: {_describe_death(cause)}")
    if _is_lost_connection(cause):  # the rank at the other end is gone, and Ray has not noticed yet
        return Failure(Cause.DIED, f"rank {rank} has lost its connection to another rank, which may have died: {cause}")
    if any(words in str(cause) for words in _FULL_GPU):
        advice = "give a fold more of a GPU (resources.gpus_per_fold)"
        advice = f"{memory_advice}, or {advice}" if memory_advice else advice
        return Failure(Cause.MEMORY, f"rank {rank}: the GPU's memory is full: {advice}. {cause}")
    if isinstance(cause, StorageError):
        return Failure(Cause.ERROR, str(cause))
    speaks_for_itself = type(cause).__module__.startswith(("ray_jobs.", "trainers."))
    notes = "".join(f" {note}" for note in getattr(cause, "__notes__", ()))
    return Failure(
        Cause.ERROR, f"rank {rank}: {'' if speaks_for_itself else type(cause).__name__ + ': '}{cause}{notes}"
    )


def _is_lost_connection(error: BaseException) -> bool:
    """Whether it is what torch.distributed says on a rank when another one is gone."""
    is_of_torch = isinstance(error, RuntimeError) and type(error).__module__.startswith(("builtins", "torch"))
    words = ("onnection", "NCCL", "Gloo", "gloo")
    return is_of_torch and "out of memory" not in str(error) and any(word in str(error) for word in words)


def _is_death(error: BaseException) -> bool:
    return isinstance(error, LostFileError) or (type(error).__name__ in _DEATHS and "CUDA" not in str(error))


def _describe_death(error: BaseException) -> str:
    if isinstance(error, LostFileError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError" or "low on memory" in str(error):
        return (
            "Ray has ended its process, because its machine was nearly out of memory: train fewer folds at once "
            "(resources.max_folds_at_once), or reserve what a fold takes (resources.memory_per_fold)"
        )
    return "its process or node died (killed, out of memory, or lost)"
