"""What the writers of a run do while its storage takes nothing: say so once, wait, go on.

A disk that is full, read-only or away comes back; training that was thrown away does not. So a fold's writes are tried
again for `checkpoint.storage_patience_s`, and since nothing else moves on meanwhile, its bits do not change.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from typing import TypeVar

from ray_jobs.errors import REFUSALS_OF_MACHINE, RunError, RunFolderError, StorageError
from ray_jobs.runs.folder import RunFolder
from trainers.storage.object_storage import NO_ANSWER, WHAT_TO_CHECK

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0
_PROBE_INTERVAL_S, _PROBE_BYTES, _MEASURE_INTERVAL_S = 1.0, 65_536, 10.0
# ENOENT: a mount point without its file system is empty.
_PASSING = {*REFUSALS_OF_MACHINE, errno.ENOENT}


class Storage:
    """The storage of a run as one of its writers meets it.

    Args:
        folder: the run. Its `config.json` is written before anything is launched: a run without one is not there.
        patience_s: for how long an outage is borne, counted from its first failure; 0: not at all.
        say: tells that an outage begins and ends.
        while_waiting: called before each further try.
    """

    def __init__(
        self,
        folder: RunFolder,
        patience_s: float,
        say: Callable[[str], None] = logger.warning,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.patience_s, self.say, self.while_waiting = folder, patience_s, say, while_waiting
        self.was_there = os.path.exists(folder.config)
        self.failing_since: float | None = None

    def check(self) -> None:
        """Refuses to write where the run is not: a writer would begin a second one below an empty mount point.

        Raises:
            OSError: the run was there and is not now.
        """
        if self.was_there and not self.folder.config.exists():
            raise FileNotFoundError(
                errno.ENOENT, "the run's folder is gone (unmounted or moved?)", str(self.folder.root)
            )

    def retry_while_unavailable(self, what: str, do: Callable[[], Result], *, by_name: bool = True) -> Result:
        """Reads or writes, again and again while the storage is the cause that it fails.

        Args:
            what: for the message.
            do: may be called any number of times.
            by_name: it opens files by their name; otherwise it uses an open one, and succeeds at most once.

        Returns:
            What `do` returns.

        Raises:
            StorageError: it did not succeed in time.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                result = self._do_between_checks(do) if by_name else do()
            except (OSError, RunFolderError) as error:
                if not self._may_pass(error):
                    raise
                self._wait(what, error, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if self.failing_since is not None:
                self.say(
                    f"the run's storage works again after {time.monotonic() - self.failing_since:.1f} s: {what} done"
                )
                self.failing_since = None
            return result

    def explain(self, error: OSError | RunError) -> str:
        """One message for what ended a run after something was launched, if it was the storage or a file.

        Raises:
            OSError: it was neither.
        """
        error = getattr(error, "cause", None) or error  # Ray's frame around the error of a task
        try:
            self.check()
        except OSError as gone:
            error = gone
        if isinstance(error, RunError):
            return f"error: {error}"
        if not _comes_from_storage(error):
            raise error
        return (
            f"error: the run's storage does not take or give a file: {error}. {_advise(error)}; the same command "
            "continues the run"
        )

    def _do_between_checks(self, do: Callable[[], Result]) -> Result:
        self.check()
        result = do()
        self.check()  # it may have gone in between, and what was read or written is not the run's
        return result

    def _may_pass(self, error: OSError | RunFolderError) -> bool:
        """Whether the storage is the cause; of a file that is missing or damaged only if the whole run is missing."""
        if isinstance(error, RunFolderError):
            return self.was_there and not os.path.exists(self.folder.config)
        return _comes_from_storage(error)

    def _wait(self, what: str, error: Exception, pause_s: float) -> None:
        now = time.monotonic()
        is_new, self.failing_since = self.failing_since is None, self.failing_since or now
        if now - self.failing_since >= self.patience_s:
            raise StorageError(
                f"{what} could not be done for {now - self.failing_since:.1f} s: {error}. {_advise(error)}; the same "
                "command continues"
            ) from None
        if is_new:
            self.say(
                f"{what} cannot be done: {error}. {_advise(error)}; tried again for {self.patience_s:g} s "
                "(checkpoint.storage_patience_s)"
            )
        self.while_waiting()
        time.sleep(min(pause_s, self.patience_s))


class StorageProbe:
    """Tells the driver's user that the folds wait: their own warnings lie on the storage that takes nothing.

    Args:
        folder: the run.
        say: shows a line to the user.
    """

    def __init__(self, folder: RunFolder, say: Callable[[str], None]) -> None:
        self.storage, self.say, self.is_failing, self.last = Storage(folder, 0.0), say, False, 0.0
        self.wanted_bytes, self.measured = 0, -_MEASURE_INTERVAL_S

    def look(self) -> None:
        """Writes and removes a small file, and asks whether a checkpoint would fit, if the last time is some seconds
        ago; speaks when the outcome changes."""
        if time.monotonic() - self.last < _PROBE_INTERVAL_S:
            return
        self.last = time.monotonic()
        try:
            self.storage.check()
            path = self.storage.folder.root / f".probe.{secrets.token_hex(6)}.tmp"
            try:
                path.write_bytes(bytes(_PROBE_BYTES))
            finally:
                path.unlink(missing_ok=True)
            self._ask_for_room()
        except OSError as error:
            if not self.is_failing:
                self.say(
                    f"the run's storage takes no files ({error}): free disk space or bring it back; the folds wait for "
                    "checkpoint.storage_patience_s"
                )
            self.is_failing = True
            return
        if self.is_failing:
            self.say("the run's storage works again")
        self.is_failing = False

    def _ask_for_room(self) -> None:
        """A small file may fit where the folds' largest does not: a write that failed has freed what it had taken.

        Raises:
            OSError: less is free than the largest checkpoint of the run takes.
        """
        root = self.storage.folder.root
        if time.monotonic() - self.measured > _MEASURE_INTERVAL_S:
            self.measured = time.monotonic()
            tensors = self.storage.folder.find_in_folds("checkpoints/*/*.safetensors")
            with contextlib.suppress(FileNotFoundError):  # one was just replaced
                self.wanted_bytes = max((path.stat().st_size for path in tensors), default=0)
        free_bytes = shutil.disk_usage(root).free
        if free_bytes < self.wanted_bytes:
            free, wanted = (f"{number / 1e6:.0f} MB" for number in (free_bytes, self.wanted_bytes))
            raise OSError(errno.ENOSPC, f"{free} are free and a checkpoint takes {wanted}", str(root))


def _advise(error: Exception) -> str:
    """What to do about a storage that fails."""
    if getattr(error, "errno", None) == NO_ANSWER:  # object storage
        return WHAT_TO_CHECK
    return "Free disk space or bring the storage back"


def _comes_from_storage(error: OSError) -> bool:
    """Whether an error may go away with more disk space or a storage that is back."""
    return error.errno in _PASSING
