"""The live table of a run's folds.

Everything is read from the run's folder, so `status.py` shows the same from another terminal. Without a terminal (a log
file, `ray job submit`) it is plain lines.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ray_jobs.cli.console import RunConsole
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, StatusReader

_MOST_ROWS = 24  # of the live table
_COLOURS = {
    FoldState.WAITING: "dim",
    FoldState.TRAINING: "cyan",
    FoldState.COMPLETED: "green",
    FoldState.FAILED: "bold red",
    FoldState.INTERRUPTED: "yellow",
}


def fold_table(members: Mapping[str, Sequence[FoldStatus]], title: str) -> Table:
    """The live table: a row for each fold, by member where there are several. Of many folds only those that are under
    way, or have gone wrong, have a row."""
    total = sum(len(statuses) for statuses in members.values())
    hidden = (FoldState.WAITING, FoldState.COMPLETED) if total > _MOST_ROWS else ()
    if hidden:
        counts = Counter(status.state.value for statuses in members.values() for status in statuses)
        title += f": {total} folds, " + ", ".join(f"{number} {state}" for state, number in counts.items())
    # Fits into 80 columns: no frame, and only the best score (each epoch's is in the record and in the plain lines).
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    several = any(status.num_workers > 1 for statuses in members.values() for status in statuses)
    columns = ("fold", *(("workers",) if several else ()), "state", "epoch", "step", "train loss", "val loss")
    for name in (*columns, "best @ epoch", "time", "ETA"):
        table.add_column(name, justify="left" if name == "state" else "right", header_style="underline", no_wrap=True)
    shown = [(name, one) for name, statuses in members.items() for one in statuses if one.state not in hidden]
    for member, status in shown:
        best = "" if status.best_score is None else f"{status.best_score:.4f} @ {_best_place(status)}"
        elapsed, left = _times(status)
        table.add_row(
            str(status.fold) if len(members) == 1 else f"{member} {status.fold}",
            *((str(status.num_workers or ""),) if several else ()),
            Text(status.preparation[0] if status.preparation else _state(status), style=_COLOURS[status.state]),
            f"{status.epoch}/{status.num_epochs}" if status.num_epochs else "",
            _step(status),
            *(_number(value) for value in (status.train_loss, status.val_loss)),
            best,
            elapsed,
            left,
        )
    return table


class FoldWatcher(AbstractContextManager[Any], Protocol):
    """What shows how folds get on."""

    def update(self) -> None:
        """Shows what is new."""


class Watcher:
    """Shows the folds of a run while it works; use as a context manager and call `update` a few times a second.

    Args:
        folders: of the run's members, its own first.
        num_folds: folds of its plan.
        console: where to; without a terminal, and for its kept lines, as lines.
        waits_for: what the cluster's autoscaler has to start before any fold can train.
    """

    def __init__(
        self, folders: Sequence[RunFolder], num_folds: int, console: RunConsole, waits_for: str | None = None
    ) -> None:
        self.folders, self.num_folds, self.console = folders, num_folds, console
        # Without Live's own redirection: what libraries print belongs to the log, not above the table.
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self.shown: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.waits_for, self.reader = waits_for, StatusReader()

    def __enter__(self) -> Watcher:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        if self.live:
            self.live.stop()

    def update(self) -> None:
        """Reads the folder and shows what is new; storage that is away has nothing new."""
        try:
            members = {folder.member: self.reader.read(folder, self.num_folds) for folder in self.folders}
        except OSError:
            return
        everyone = [(folder, status) for folder in self.folders for status in members[folder.member]]
        if self.live:
            table = fold_table(members, f"run {self.folders[0].root.name}")
            is_waiting = self.waits_for and all(status.state == FoldState.WAITING for _, status in everyone)
            note = Text(f"waiting for {self.waits_for}", style="yellow")
            self.live.update(Group(table, note) if is_waiting else table, refresh=True)
        for folder, status in everyone:
            fold = (folder.member, status.fold)
            key = (status.state, status.attempt, status.stage, *_scored(status), _tenths_prepared(status))
            if status.state != FoldState.WAITING and self.shown.get(fold) != key:
                self.shown[fold] = key
                line = _line(folder.describe_fold(status.fold), status)
                if self.live:
                    self.console.keep(line)
                else:
                    self.console.print(line)


def _tenths_prepared(status: FoldStatus) -> int:
    return 10 * status.preparation[1] // status.preparation[2] if status.preparation else 0


def _scored(status: FoldStatus) -> tuple[int, int]:
    """The last epoch that was scored and, where there are no epochs, the last step."""
    if status.score is None:
        return 0, 0
    return status.epoch, 0 if status.num_epochs else (status.evaluated or 0)


def _state(status: FoldStatus) -> str:
    """Of a fold that trains in stages, which."""
    return status.stage if status.stage and status.state == FoldState.TRAINING else status.state.value


def _best_place(status: FoldStatus) -> str:
    """The epoch that was best or, where there was none at that step, the step."""
    return f"step {status.best_step}" if status.best_epoch is None else str(status.best_epoch)


def _line(fold: str, status: FoldStatus) -> str:
    if status.state == FoldState.FAILED:
        return f"{fold} FAILED: {status.error}"
    if status.preparation and status.state == FoldState.TRAINING:
        what, done, total = status.preparation
        return f"{fold} {what}: {done:,} of {total:,} (all folds together)"
    if status.score is None:
        workers = f", {status.num_workers} workers" if status.num_workers > 1 else ""
        return f"{fold} {_state(status)} (attempt {status.attempt}{workers})"
    elapsed, left = _times(status)
    where = f"epoch {status.epoch}/{status.num_epochs}" if status.num_epochs else f"step {_step(status)}"
    best = _best_place(status) if status.best_epoch is None else f"epoch {status.best_epoch}"
    losses = [
        f"{name} loss {_number(value)}"
        for name, value in (("train", status.train_loss), ("val", status.val_loss))
        if value is not None
    ]
    parts = [where, *losses, f"score {_number(status.score)}", f"best {_number(status.best_score)} @ {best}", elapsed]
    return f"{fold} {_state(status)}: " + ", ".join(parts) + (f", ETA {left}" if left else "")


def _step(status: FoldStatus) -> str:
    """Of the training; before that, the rows that are prepared."""
    if status.preparation:
        return f"{status.preparation[1]}/{status.preparation[2]}"
    if status.num_tokens:
        return f"{_short(status.tokens or 0)}/{_short(status.num_tokens)} tokens"
    return f"{status.step}/{status.num_steps}" if status.num_steps else str(status.step or "")


def _short(count: int) -> str:
    """A large number in few letters: 1.3B, 20.0M, 512k."""
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return f"{count // 1000}k" if count >= 10_000 else str(count)


def _times(status: FoldStatus) -> tuple[str, str]:
    if status.started is None:
        return "", ""
    seconds = (status.finished or time.time()) - status.started
    left = status.estimate_remaining(time.time()) if status.state == FoldState.TRAINING else 0.0
    return _clock(seconds), _clock(left) if left else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
