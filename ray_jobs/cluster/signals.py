"""SIGINT (Ctrl-C), SIGTERM (`ray job stop`) and SIGHUP (the terminal is gone), all as KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ray_jobs.cluster.ray_private import in_job

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 25.0  # of whoever ends processes elsewhere: Kubernetes gives 30 s, systemd 90 s, Ctrl-C all the time
_JOB_PATIENCE_S = 3  # Ray's default
_LEAVING_S = 5.0  # what the end of a driver takes after its folds have saved


def in_submitted_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the entry point of `ray job submit`."""
    return in_job(environment)


def find_save_time_s(environment: Mapping[str, str] = os.environ) -> float:
    """How long folds may go on saving where they are after an interrupt.

    `ray job stop` kills a job after RAY_JOB_STOP_WAIT_TIME_S. Ray takes it from the environment of the node that the
    job's driver runs on, or from the job's runtime environment; the driver inherits both."""
    if not in_submitted_job(environment):
        return _PATIENCE_S
    try:
        patience_s = int(environment.get("RAY_JOB_STOP_WAIT_TIME_S", _JOB_PATIENCE_S))
    except ValueError:  # Ray, too, would only find out when it stops the job
        patience_s = _JOB_PATIENCE_S
    return max(patience_s - _LEAVING_S, patience_s * 2 / 3)


class Interrupts:
    """Remembers an interrupt: an exception that strikes inside a library's callback is swallowed there."""

    def __init__(self) -> None:
        self.was_heard = False

    def listen(self) -> None:
        """Takes over the signals; to be called again after a library (Ray, when it starts) has taken one. Python gives
        them to the main thread only, and a script may call from another one."""
        for number in _INTERRUPTS if _is_main_thread() else ():
            # As a shell sets SIGINT for what runs in its background, and nohup SIGHUP.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hear)

    def check(self) -> None:
        """To be called between two steps of work.

        Raises:
            KeyboardInterrupt: there was an interrupt.
        """
        if self.was_heard:
            raise KeyboardInterrupt

    def _hear(self, number: int, _: object) -> None:
        """A second interrupt ends at once what the first one ends in good order. A terminal that goes is no second one:
        the system may tell it twice, and whoever has pressed Ctrl-C may close it."""
        if self.was_heard and number == signal.SIGHUP:
            return
        self.was_heard = True
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Interrupts]:
    """Listens to interrupts; afterwards the signals do what they did before."""
    before = {number: signal.getsignal(number) for number in _INTERRUPTS}
    interrupts = Interrupts()
    interrupts.listen()
    try:
        yield interrupts
    finally:
        for number, handler in before.items() if _is_main_thread() else ():
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def without_hangup() -> Iterator[None]:
    """Processes that are started here outlive the terminal, as the driver does: they still have to save where they
    are."""
    if not _is_main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
