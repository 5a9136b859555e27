"""What the user sees while a run works and when it ends: a live table of the folds, then the scores.

Everything is read from the run's folder, so `status.py` shows the same from another terminal. Without a terminal
(a log file, `ray job submit`) it is plain lines.
"""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ray_jobs.coordinator import FoldState, FoldStatus, read_status
from ray_jobs.errors import printable
from ray_jobs.folds import FoldsConfig
from ray_jobs.leaks import Leak, describe_grouping, describe_leaks
from ray_jobs.run_folder import RunFolder
from ray_jobs.score_words import compare_with_constant, name_metric, show_metric
from ray_jobs.storage import LossyFile
from trainers.interface import Inventory

_MOST_ROWS = 24  # of the live table
_COLOURS = {
    FoldState.WAITING: "dim",
    FoldState.TRAINING: "cyan",
    FoldState.COMPLETED: "green",
    FoldState.FAILED: "bold red",
    FoldState.INTERRUPTED: "yellow",
}


class RunConsole(Console):
    """Shows texts as they are: no markup, and nothing that the terminal would obey. Keeps each line until somebody takes it to another
    log."""

    def __init__(self, file: TextIO, **options: Any) -> None:
        super().__init__(file=file, highlight=False, markup=False, soft_wrap=True, **options)
        self._lines: list[str] = []

    def print(self, *objects: Any, **options: Any) -> None:
        """Shows texts and tables."""
        shown = [printable(one) if isinstance(one, str) else one for one in objects]
        super().print(*shown, **options)
        if shown and all(isinstance(one, (str, Table)) for one in shown):  # not the live table's own
            self.keep(*shown)

    def keep(self, *objects: str | Table) -> None:
        """Keeps lines without showing them."""
        text = io.StringIO()
        Console(file=text, width=120, highlight=False, markup=False, soft_wrap=True).print(*objects)
        self._lines += text.getvalue().splitlines()

    def take_lines(self) -> list[str]:
        """What was shown or kept since the last call."""
        taken, self._lines = self._lines, []
        return taken


def open_console() -> RunConsole:
    """The console of a run, bound to the stream that is the screen now."""
    return RunConsole(sys.stdout)


@contextmanager
def chatter_to(path: Path) -> Iterator[None]:
    """What libraries print goes to a file; the screen is for the run (its console was opened before)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        io.TextIOWrapper(io.BufferedWriter(LossyFile(path, "a")), line_buffering=True) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        yield


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


def fold_table(members: Mapping[str, Sequence[FoldStatus]], title: str) -> Table:
    """The live table: a row for each fold, by member where there are several. Of many folds only those that are under way, or
    have gone wrong, have a row."""
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
        best = "" if status.best_score is None else f"{status.best_score:.4f} @ {status.best_epoch}"
        elapsed, left = _times(status)
        table.add_row(
            str(status.fold) if len(members) == 1 else f"{member} {status.fold}",
            *((str(status.num_workers or ""),) if several else ()),
            Text(status.preparation[0] if status.preparation else status.state.value, style=_COLOURS[status.state]),
            f"{status.epoch}/{status.num_epochs}" if status.num_epochs else "",
            _step(status),
            *(_number(value) for value in (status.train_loss, status.val_loss)),
            best,
            elapsed,
            left,
        )
    return table


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
        quiet = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
        self.live = Live(console=console, **quiet) if console.is_terminal else None
        self.shown: dict[tuple[str, int], tuple[FoldState, int, int, int]] = {}
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
            members = {folder.member: read_statuses(folder, self.num_folds) for folder in self.folders}
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
            key = (status.state, status.attempt, _epochs_scored(status), _tenths_prepared(status))
            if status.state != FoldState.WAITING and self.shown.get(fold) != key:
                self.shown[fold] = key
                line = _line(folder.describe_fold(status.fold), status)
                if self.live:
                    self.console.keep(line)
                else:
                    self.console.print(line)


def _tenths_prepared(status: FoldStatus) -> int:
    return 10 * status.preparation[1] // status.preparation[2] if status.preparation else 0


def _epochs_scored(status: FoldStatus) -> int:
    return status.epoch if status.score is not None else 0


def say_what_is_awaited(console: Console, waits_for: str | None) -> None:
    """That nothing happens before a node is started, if so."""
    if waits_for:
        console.print(f"waiting for the autoscaler to start {waits_for}", style="yellow")


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
    metric = name_metric(scores)
    title = f"{show_metric(metric)} on the rows that each fold validates"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("", "rows", "best epoch", "final epoch", "constant"):
        table.add_column(name, justify="right" if name else "left")
    overall = scores["out_of_fold"]
    for name, row in [*((f"fold {fold['fold']}", fold) for fold in scores["folds"]), ("out of fold", overall)]:
        if row is overall:
            table.add_section()
        cells = (f"{row[kind][metric]:.4f}" for kind in ("best", "final", "constant"))
        table.add_row(name, str(row["num_rows"]), *cells, style="bold" if row is overall else "")
    console.print(table)
    console.print("best was chosen on these rows, so its score is a little optimistic; final was not", style="dim")
    console.print(compare_with_constant(scores))


def print_members(console: Console, members: Mapping[str, Any]) -> None:
    """The out-of-fold score of each member beside the constant predictor's."""
    metric = name_metric(next(iter(members.values())))
    title = f"{show_metric(metric)} on the rows that each fold validates"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("member", "folds", "rows", "best epoch", "final epoch", "constant"):
        table.add_column(name, justify="left" if name == "member" else "right")
    for name, scores in members.items():
        overall = scores["out_of_fold"]
        cells = (f"{overall[kind][metric]:.4f}" for kind in ("best", "final", "constant"))
        table.add_row(name, str(len(scores["folds"])), str(overall["num_rows"]), *cells)
    console.print(table)
    console.print("best was chosen on these rows, so its score is a little optimistic; final was not", style="dim")


def describe_part(part: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows on which maps are compared: those of the blend set, or test rows."""
    which = "rows of the blend set" if part == "blend" else "test rows whose truth is known"
    return f"{rows[0]['num_rows']:,} {which}, which no model has seen"


def print_compared_maps(console: Console, part: str, compared: Sequence[Mapping[str, Any]]) -> None:
    """Fold models and methods on the blend set or the test rows whose truth is known."""
    title = f"Dice on {describe_part(part, compared)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("", "Dice", "IoU", "mean Dice of rows"):
        table.add_column(name, justify="right" if name else "left", header_style="underline", no_wrap=True)
    for row in compared:
        name = f"{row['name']} <- submitted" if row["kind"] == "submitted" else row["name"]
        cells = (f"{row[key]:.4f}" for key in ("dice", "iou", "dice_of_rows"))
        table.add_row(name, *cells, style="bold" if row["kind"] == "submitted" else "")
    console.print(table)


def print_combinations(console: Console, combinations: Mapping[str, Any]) -> None:
    """Members and combinations by their honest error, the best first, each with its difference from the best member."""
    best = combinations["best_member"]
    title = f"{combinations['metric']} on {describe_scored_rows(combinations)}, with 95 % intervals"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("", "error", "interval", f"minus {best}", "interval"):
        table.add_column(name, justify="right" if name else "left", header_style="underline", no_wrap=True)
    for row in sorted(combinations["rows"], key=lambda row: row["error"]):
        style = "bold" if row["submitted"] else "cyan" if row["kind"] == "member" else ""
        is_best = row["name"] == best
        table.add_row(
            row["name"] + (" <- submitted" if row["submitted"] else ""),
            f"{row['error']:.4f}",
            f"{row['low']:.4f} {row['high']:.4f}",
            "" if is_best else f"{row['difference']:+.4f}",
            "" if is_best else f"{row['difference_low']:+.4f} {row['difference_high']:+.4f}",
            style=style,
        )
    console.print(table)
    console.print(explain_cross_fitting(combinations), style="dim")


def describe_scored_rows(combinations: Mapping[str, Any]) -> str:
    """Which rows score the combinations."""
    what = "rows of the blend set" if combinations["scored_on"] == "blend" else "out-of-fold rows"
    return f"{combinations['num_rows']:,} {what}"


def explain_cross_fitting(combinations: Mapping[str, Any]) -> str:
    """How fitted weights are scored, and what leak remains."""
    if combinations["scored_on"] == "blend":
        return (
            "Fitted weights are scored by cross-fitting: each fifth of the blend set by weights from the others. No model has seen any of "
            "these rows."
        )
    return (
        "Fitted weights are scored by cross-fitting: each fold by weights from the other folds. Those folds' predictions come from models "
        "that were trained on its rows, so a small leak of the second level remains."
    )


def explain_outcome(outcome: Mapping[str, Any]) -> list[str]:
    """What to believe of a search, in sentences."""
    lines = [
        f"Chosen inside each fold and scored on it: {outcome['metric']} {outcome['nested_error']:.4f}. That is what choosing is worth; "
        f"the winner's own {outcome['winner_error']:.4f} is the best of {outcome['num_combinations']} and flattered by luck. The default has "
        f"{outcome['default_error']:.4f}."
    ]
    bound = f"{outcome['improvement']:+.4f}, at least {outcome['improvement_low']:+.4f} (95 %, for all together)"
    if outcome["replaces"]:
        lines.append(
            f"The winner is better than the default by {bound}: {outcome['winner']}. --apply writes its submission."
        )
    elif outcome["winner"] == outcome["default"]:
        lines.append("The default is the winner.")
    else:
        lines.append(
            f"The winner, {outcome['winner']}, is not shown to be better than the default: {bound}. The default stays."
        )
    return lines


def _line(fold: str, status: FoldStatus) -> str:
    if status.state == FoldState.FAILED:
        return f"{fold} FAILED: {status.error}"
    if status.preparation and status.state == FoldState.TRAINING:
        what, done, total = status.preparation
        return f"{fold} {what}: {done:,} of {total:,} (all folds together)"
    if status.score is None:
        workers = f", {status.num_workers} workers" if status.num_workers > 1 else ""
        return f"{fold} {status.state.value} (attempt {status.attempt}{workers})"
    elapsed, left = _times(status)
    return (
        f"{fold} {status.state.value}: epoch {status.epoch}/{status.num_epochs}, train loss "
        f"{_number(status.train_loss)}, val loss {_number(status.val_loss)}, score {_number(status.score)}, best "
        f"{_number(status.best_score)} @ epoch {status.best_epoch}, {elapsed}" + (f", ETA {left}" if left else "")
    )


def _step(status: FoldStatus) -> str:
    """Of the training; before that, the rows that are prepared."""
    if status.preparation:
        return f"{status.preparation[1]}/{status.preparation[2]}"
    return f"{status.step}/{status.num_steps}" if status.num_steps else ""


def _times(status: FoldStatus) -> tuple[str, str]:
    if status.started is None:
        return "", ""
    seconds = (status.finished or time.time()) - status.started
    left = ""
    if status.state == FoldState.TRAINING and status.first_step < status.step < status.num_steps:
        seconds_of_steps = seconds - max(0.0, (status.prepared or status.started) - status.started)
        left = _clock(seconds_of_steps * (status.num_steps - status.step) / (status.step - status.first_step))
    return _clock(seconds), left


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
