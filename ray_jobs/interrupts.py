"""SIGINT (Ctrl-C) and SIGTERM (`ray job stop`), both as KeyboardInterrupt."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class Interrupts:
    """Remembers an interrupt: an exception that strikes inside a library's callback is swallowed there."""

    def __init__(self) -> None:
        self.was_heard = False

    def listen(self) -> None:
        """Takes over both signals; to be called again after a library (Ray, when it starts) has taken one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as a shell sets SIGINT for what runs in its background
                signal.signal(number, self._hear)

    def check(self) -> None:
        """To be called between two steps of work.

        Raises:
            KeyboardInterrupt: there was an interrupt.
        """
        if self.was_heard:
            raise KeyboardInterrupt

    def _hear(self, *_: object) -> NoReturn:
        self.was_heard = True
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Interrupts]:
    """Listens to interrupts; afterwards the signals do what they did before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupts = Interrupts()
    interrupts.listen()
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
