"""What the user sees while a run works and when it ends: a live table of the folds, then the scores.

Everything is read from the run's folder, so `status.py` shows the same from another terminal. Without a terminal
(a log file, `ray job submit`) it is plain lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ray_jobs.coordinator import FoldState, FoldStatus, read_status
from ray_jobs.errors import printable
from ray_jobs.folds import FoldsConfig
from ray_jobs.leaks import Leak, describe_grouping, describe_leaks
from ray_jobs.run_folder import RunFolder
from trainers.interface import Inventory

_COLOURS = {
    FoldState.WAITING: "dim",
    FoldState.TRAINING: "cyan",
    FoldState.COMPLETED: "green",
    FoldState.FAILED: "bold red",
    FoldState.INTERRUPTED: "yellow",
}


class _PlainConsole(Console):
    """Shows texts as they are: no markup, and nothing that the terminal would obey."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **options)


def open_console() -> Console:
    """The console of a run, bound to the stream that is the screen now."""
    return _PlainConsole(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)


def read_statuses(folder: RunFolder, num_folds: int) -> list[FoldStatus]:
    """The status of every fold."""
    return [read_status(folder, fold) for fold in range(num_folds)]


def print_leaks(
    console: Console, leaks: Sequence[Leak], folds: FoldsConfig, inventory: Inventory, folder: RunFolder
) -> None:
    """What is the same on both sides of a fold or in test, a line a kind, and where the rows are listed."""
    if folds.on_leak == "group":
        console.print(describe_grouping(folds, inventory))
    for line in describe_leaks(leaks, folds):
        console.print(line, style="yellow")
    if leaks and folder.leaks.exists():
        console.print(f"all such rows: {folder.leaks}", style="yellow")


def fold_table(statuses: Sequence[FoldStatus], title: str) -> Table:
    """The live table."""
    # Fits into 80 columns: no frame, and only the best score (each epoch's is in the record and in the plain lines).
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("fold", "state", "epoch", "step", "train loss", "val loss", "best @ epoch", "time", "ETA"):
        table.add_column(name, justify="left" if name == "state" else "right", header_style="underline", no_wrap=True)
    for status in statuses:
        best = "" if status.best_score is None else f"{status.best_score:.4f} @ {status.best_epoch}"
        elapsed, left = _times(status)
        table.add_row(
            str(status.fold),
            Text(status.state.value, style=_COLOURS[status.state]),
            f"{status.epoch}/{status.num_epochs}" if status.num_epochs else "",
            f"{status.step}/{status.num_steps}" if status.num_steps else "",
            *(_number(value) for value in (status.train_loss, status.val_loss)),
            best,
            elapsed,
            left,
        )
    return table


class Watcher:
    """Shows the folds of a run while it works; use as a context manager and call `update` a few times a second.

    Args:
        folder: the run.
        num_folds: folds of its plan.
        console: where to.
        waits_for: what the cluster's autoscaler has to start before any fold can train.
    """

    def __init__(self, folder: RunFolder, num_folds: int, console: Console, waits_for: str | None = None) -> None:
        self.folder, self.num_folds, self.console = folder, num_folds, console
        # Without Live's own redirection: what libraries print belongs to the log, not above the table.
        quiet = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
        self.live = Live(console=console, **quiet) if console.is_terminal else None
        self.shown: dict[int, tuple[FoldState, int, int]] = {}
        self.waits_for = waits_for

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
            statuses = read_statuses(self.folder, self.num_folds)
        except OSError:
            return
        if self.live:
            table = fold_table(statuses, f"run {self.folder.root.name}")
            is_waiting = self.waits_for and all(status.state == FoldState.WAITING for status in statuses)
            note = Text(f"waiting for {self.waits_for}", style="yellow")
            self.live.update(Group(table, note) if is_waiting else table, refresh=True)
            return
        for status in statuses:
            key = (status.state, status.attempt, status.epoch if status.score is not None else 0)
            if status.state != FoldState.WAITING and self.shown.get(status.fold) != key:
                self.shown[status.fold] = key
                self.console.print(_line(status))


def warn_of_open_cluster(console: Console, *, is_own: bool) -> None:
    """Says, so that nobody overlooks it, that a cluster lets everybody in, and what closes it."""
    which, cure = (
        "the Ray cluster that this run joins",
        "`ray get-auth-token --generate` and RAY_AUTH_MODE=token, then ",
    )
    cure += "`ray stop` and `ray start` on each node"
    if is_own:
        which, cure = "this run's own Ray cluster", "unset RAY_AUTH_MODE"
    console.print(
        f"WARNING: {which} has NO AUTHENTICATION: whoever reaches its ports can run code on its machines and read what is "
        f"there. To close it: {cure}",
        style="bold red",
    )


def print_scores(console: Console, scores: dict[str, Any]) -> None:
    """Scores of each fold and of all out-of-fold predictions beside the constant predictor's."""
    table = Table(title="MSLE on the rows that each fold validates", title_justify="left", title_style="bold")
    for name in ("", "rows", "best epoch", "final epoch", "constant"):
        table.add_column(name, justify="right" if name else "left")
    overall = scores["out_of_fold"]
    for name, row in [*((f"fold {fold['fold']}", fold) for fold in scores["folds"]), ("out of fold", overall)]:
        if row is overall:
            table.add_section()
        cells = (f"{row[kind]['msle']:.4f}" for kind in ("best", "final", "constant"))
        table.add_row(name, str(row["num_rows"]), *cells, style="bold" if row is overall else "")
    console.print(table)
    share = overall[overall["checkpoint"]]["msle"] / overall["constant"]["msle"]
    console.print("best was chosen on these rows, so its score is a little optimistic; final was not", style="dim")
    console.print(f"out-of-fold MSLE is {share:.0%} of the constant predictor's")


def _line(status: FoldStatus) -> str:
    if status.state == FoldState.FAILED:
        return f"fold {status.fold} FAILED: {status.error}"
    if status.score is None:
        return f"fold {status.fold} {status.state.value} (attempt {status.attempt})"
    elapsed, left = _times(status)
    return (
        f"fold {status.fold} {status.state.value}: epoch {status.epoch}/{status.num_epochs}, train loss "
        f"{_number(status.train_loss)}, val loss {_number(status.val_loss)}, score {_number(status.score)}, best "
        f"{_number(status.best_score)} @ epoch {status.best_epoch}, {elapsed}" + (f", ETA {left}" if left else "")
    )


def _times(status: FoldStatus) -> tuple[str, str]:
    if status.started is None:
        return "", ""
    seconds = (status.finished or time.time()) - status.started
    left = ""
    if status.state == FoldState.TRAINING and status.first_step < status.step < status.num_steps:
        left = _clock(seconds * (status.num_steps - status.step) / (status.step - status.first_step))
    return _clock(seconds), left


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
