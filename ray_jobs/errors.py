"""What can go wrong in a run, as the user sees it.

    RunError                 one message, exit code 2, nothing was launched
    ├── ConfigChangedError   the run exists and what is trained would differ
    ├── RunBusyError         another driver works on the run
    ├── RunFolderError       the folder is no run, or is damaged
    ├── ClusterError         the cluster is unsuitable (versions, resources that no node can have)
    ├── IncompleteRunError   a stage needs folds that are not finished
    ├── SupersededError      a later attempt of a fold has begun; the earlier one writes nothing more
    └── StorageError         the run's storage does not take or give files; exit code 1 once something was launched
    ClusterLostError         Ray is gone while the folds trained; exit code 1, the same command continues
    NonFiniteLossError       a fold's training loss is NaN or infinite; the fold has failed
    NoRoomError              the room that an elastic fold was given is taken; the fold looks for room again

`trainers.interface.DataError`, `ensemble.predictions.PredictionError`, and what a disk or network refuses (`is_refused_by_machine`) are
shown the same way. Any other error is a bug: it is shown with its traceback; exit code 1.
"""

from __future__ import annotations

import errno
import re

# What a full, read-only, broken, forbidden or unreachable file system says. A file that is not there is none of these.
REFUSALS_OF_MACHINE = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EACCES,
        errno.EPERM, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO,
    }
)  # fmt: skip


def printable(text: str) -> str:
    """A text without the characters that a terminal obeys: errors and names may come from data and other people's runs."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "�", text)


def is_refused_by_machine(error: OSError) -> bool:
    """Whether the disk, its permissions or the network are the cause, and not a path that is wrong."""
    return error.errno in REFUSALS_OF_MACHINE


class RunError(Exception):
    """A run that cannot go on, with what was found, what was expected and what to do."""


class ConfigChangedError(RunError):
    """The run exists and the config would change what is trained."""


class RunBusyError(RunError):
    """Another driver works on the run."""


class RunFolderError(RunError):
    """The folder is no run of this project, or a file of it is damaged."""


class ClusterError(RunError):
    """The cluster cannot run this: other package versions, or resources that no node can have."""


class IncompleteRunError(RunError):
    """A stage needs folds that are not finished."""


class SupersededError(RunError):
    """A later attempt of this fold has begun; this one must not write any more."""


class StorageError(RunError):
    """The run's storage (full, read-only, away) did not take or give a file for as long as was to be waited."""


class ClusterLostError(Exception):
    """The Ray cluster went away while folds were trained."""


class NoRoomError(Exception):
    """The room that an elastic fold was given is taken."""


class NonFiniteLossError(Exception):
    """The training loss is NaN or infinite: nothing that comes after it is worth anything."""
