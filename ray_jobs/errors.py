"""What can go wrong, and how a command ends then.

    Exception
    ├── RunError                       the user can mend it: one message, exit code 2
    │   ├── ConfigChangedError         the run exists and what is trained would differ
    │   ├── RunBusyError               another driver works on the run
    │   ├── RunFolderError             the folder is no run, or is damaged
    │   │   └── LostFileError          somebody has removed what a fold had saved; another attempt makes it anew
    │   ├── ClusterError               the cluster is unsuitable (versions, resources that no node can have)
    │   ├── IncompleteRunError         a stage needs folds that are not finished
    │   ├── FoldsFailedError           folds have failed, of a run that a script has started
    │   └── StorageError               the run's storage does not take or give files
    ├── ValueError
    │   ├── trainers.interface.DataError            the user's data cannot be trained on: as RunError
    │   ├── ensemble.predictions.PredictionError    files of predictions do not belong together: as RunError
    │   └── of a config's dataclass                 a value is not allowed: a RunError once it was typed or read
    ├── OSError                        what a disk or network refuses (`is_refused_by_machine`): as RunError
    ├── ClusterLostError               Ray is gone while folds trained: how to go on, exit code 1
    │
    │   An attempt of a fold ends, and no command:
    ├── FoldStoppedError               it was asked to, and has saved where it is
    ├── SupersededError                a later attempt has begun; this one writes nothing more
    ├── NoRoomError                    the room that an elastic fold was given is taken; it looks for room again
    └── NonFiniteLossError             the training loss is NaN or infinite; the fold has failed

Once folds were launched a driver ends with 1 where the storage or a fold has failed (`driver/session.py`). Any other
error is a bug: it is shown with its traceback; exit code 1. `cli/entry.py` sees to that. What one module raises for
another of its folder stays there.
"""

from __future__ import annotations

import errno
import re

EXIT_OK, EXIT_INCOMPLETE, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 130
# What a full, read-only, broken, forbidden or unreachable file system says. A file that is not there is none of these.
_REFUSALS = (
    "ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EACCES", "EPERM", "ENODEV", "ENXIO",
    "EHOSTDOWN",
    "EHOSTUNREACH", "EREMOTE", "EREMOTEIO",
)  # fmt: skip
# By name: not every system has all of them.
REFUSALS_OF_MACHINE = frozenset(getattr(errno, name) for name in _REFUSALS if hasattr(errno, name))


def printable(text: str) -> str:
    """A text without the characters that a terminal obeys: errors and names may come from data and other people's
    runs."""
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


class LostFileError(RunFolderError):
    """Somebody has removed a file that a fold had saved, before the fold was complete."""


class ClusterError(RunError):
    """The cluster cannot run this: other package versions, or resources that no node can have."""


class IncompleteRunError(RunError):
    """A stage needs folds that are not finished."""


class FoldsFailedError(RunError):
    """Folds of a run that a script has started have failed; the message has the error of each."""


class StorageError(RunError):
    """The run's storage (full, read-only, away) did not take or give a file for as long as was to be waited."""


class ClusterLostError(Exception):
    """The Ray cluster went away while folds were trained."""


class FoldStoppedError(Exception):
    """The run was asked to stop, or this fold to go on elsewhere or with other workers; it has saved where it is. Or it
    was complete already."""


class SupersededError(Exception):
    """A later attempt of this fold has begun; this one must not write any more."""


class NoRoomError(Exception):
    """The room that an elastic fold was given is taken."""


class NonFiniteLossError(Exception):
    """The training loss is NaN or infinite: nothing that comes after it is worth anything."""
