"""Ends a worker that stands still: a file that hangs, a rank that waits for another for ever.

Python's own `faulthandler` does it, from a thread that needs no interpreter: it writes the stack of every thread to a
file and ends the process, which the driver sees as a death."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from ray_jobs.runs.folder import RunFolder

TOUCH_INTERVAL_S, ALIVE_INTERVAL_S = 1.0, 30.0


class Watchdog:
    """Ends this process when nothing calls `touch` for too long; as a context manager, while the context lasts.

    Args:
        folder: the run.
        fold, attempt, rank: whose stacks they are.
        timeout_s: how long nothing may move; None: for ever.

    Attributes:
        say_alive: called now and then while something moves, for whoever watches this process from outside.
    """

    say_alive: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, folder: RunFolder, fold: int, attempt: int, rank: int, timeout_s: float | None) -> None:
        # A file that stays empty is removed with other leftovers when this process is killed.
        self.path = folder.fold_logs(fold) / f".stacks_attempt{attempt}_rank{rank}.tmp"
        self.timeout_s, self.touched, self.said = timeout_s, 0.0, time.monotonic()

    def __enter__(self) -> Self:
        if self.timeout_s is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("w")
            self.touch()
        return self

    def touch(self) -> None:
        """Something has moved."""
        if self.timeout_s is not None and time.monotonic() - self.touched > min(TOUCH_INTERVAL_S, self.timeout_s / 4):
            self.touched = time.monotonic()
            faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=self.file)
            if self.touched - self.said > ALIVE_INTERVAL_S:
                self.said = self.touched
                self.say_alive()

    def __exit__(self, *_: object) -> None:
        if self.timeout_s is not None:
            faulthandler.cancel_dump_traceback_later()
            self.file.close()
            self.path.unlink(missing_ok=True)


def keep_stacks(folder: RunFolder, fold: int, attempt: int) -> list[Path]:
    """The stacks that ranks of an attempt which is over have left because nothing moved, under their lasting names."""
    left = sorted(folder.fold_logs(fold).glob(f".stacks_attempt{attempt}_rank*.tmp"))
    return [path.rename(path.with_name(path.stem[1:] + ".txt")) for path in left if path.stat().st_size > 0]
