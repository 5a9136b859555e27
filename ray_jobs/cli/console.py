"""The console of a command, and what each command says of the cluster it waits for."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.table import Table

from ray_jobs.cli.screen import LossyFile, open_screen
from ray_jobs.errors import printable

_MOST_KEPT_LINES = 10_000


class LineConsole(Protocol):
    """Where lines are shown, and kept until somebody takes them to another log."""

    def print(self, text: str, /, **options: Any) -> None:
        """Shows a line."""

    def take_lines(self) -> list[str]:
        """What was shown or kept since the last call."""


class LineKeeper:
    """Keeps lines until somebody takes them to another log."""

    def __init__(self) -> None:
        # Bounded, because not every command has another log; a deque, because threads show lines, too.
        self._lines: deque[str] = deque(maxlen=_MOST_KEPT_LINES)

    def keep(self, *objects: str | Table) -> None:
        """Keeps lines without showing them."""
        text = io.StringIO()
        Console(file=text, width=120, highlight=False, markup=False, soft_wrap=True).print(*objects)
        self._lines.extend(text.getvalue().splitlines())

    def take_lines(self) -> list[str]:
        """What was shown or kept since the last call."""
        return [self._lines.popleft() for _ in range(len(self._lines))]


class RunConsole(LineKeeper, Console):
    """Shows texts as they are: no markup, and nothing that the terminal would obey. Keeps what it shows."""

    def __init__(self, file: TextIO, **options: Any) -> None:
        LineKeeper.__init__(self)
        Console.__init__(self, file=file, highlight=False, markup=False, soft_wrap=True, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Shows texts and tables."""
        shown = [printable(one) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **options)
        if shown and all(isinstance(one, (str, Table)) for one in shown):  # not the live table's own
            self.keep(*shown)


class NamedConsole(LineKeeper):
    """A part of a job that shows its lines on the job's screen, each with the part's name. Keeps them for a log of its
    own.

    Args:
        console: the job's.
        name: the part's.
    """

    def __init__(self, console: Console, name: str) -> None:
        super().__init__()
        self.console, self.name = console, name

    def print(self, text: str, /, **options: Any) -> None:
        """Shows a line."""
        self.console.print(f"{self.name}: {text}", **options)
        self.keep(text)


def open_console() -> RunConsole:
    """The console of a run, bound to what is the screen now."""
    return RunConsole(open_screen(sys.stdout))


@contextmanager
def redirect_output(path: Path) -> Iterator[None]:
    """What libraries print goes to a file, also what is not written in Python: Ray's core, gRPC. The screen is for the
    run (its console was opened before)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = LossyFile(path, "a")
    screen = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        with (
            io.TextIOWrapper(io.BufferedWriter(file), line_buffering=True) as lines,
            redirect_stdout(lines),
            redirect_stderr(lines),
        ):
            yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def report_pending_nodes(console: Console, waits_for: str | None) -> None:
    """That nothing happens before a node is started, if so."""
    if waits_for:
        console.print(f"waiting for the autoscaler to start {waits_for}", style="yellow")
