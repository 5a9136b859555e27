"""How far a job is that goes through rows: a bar in a terminal, else a plain line every few seconds."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_INTERVAL_S = 10.0


class RowProgress:
    """Use as a context manager.

    Args:
        console: where to.
        num_rows: of all.
    """

    def __init__(self, console: Console, num_rows: int) -> None:
        self.console, self.num_rows, self.done = console, num_rows, 0
        self.began = self.shown = time.monotonic()
        self.bar = None
        if console.is_terminal:
            columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            # Without redirection: what libraries print belongs to the log, not above the bar.
            self.bar = Progress(
                *columns, TimeRemainingColumn(), console=console, redirect_stdout=False, redirect_stderr=False
            )
            self.task = self.bar.add_task("rows", total=num_rows, rate="")

    def __enter__(self) -> RowProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, num_rows: int) -> None:
        """So many rows more are done."""
        self.done += num_rows
        now = time.monotonic()
        rate = self.done / max(now - self.began, 1e-9)
        if self.bar:
            self.bar.update(self.task, completed=self.done, rate=f"{rate:,.0f} rows/s")
        elif now - self.shown >= _LINE_INTERVAL_S and self.done < self.num_rows:
            self.shown = now
            left = f"{(self.num_rows - self.done) / rate:,.0f} s left"
            self.console.print(f"{self.done:,} of {self.num_rows:,} rows, {rate:,.0f} rows/s, {left}")
