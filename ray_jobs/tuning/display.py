"""The table of a tuning's trials, live and at its end. Without a terminal it is plain lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import replace

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, read_statuses
from ray_jobs.tuning.space import read_space
from ray_jobs.tuning.trials import ENDED, Result, Trial, TrialState, read_result, read_trials

_MOST_ROWS = 24
_COLOURS = {
    TrialState.WAITING: "dim",
    TrialState.TRAINING: "cyan",
    TrialState.INTERRUPTED: "yellow",
    TrialState.COMPLETE: "green",
    TrialState.STOPPED: "dim",
    TrialState.FAILED: "bold red",
}


def build_trial_table(
    title: str, trials: Mapping[int, Trial], results: Mapping[int, Result], num_folds: int, *, ranked: bool = False
) -> Table:
    """A row for each trial, the best one bold. Of many trials those under way have one, and the best.

    Args:
        title: above the table.
        trials: by number.
        results: by number; a trial without one waits.
        num_folds: of a whole trial.
        ranked: whether the best comes first, rather than the first.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    names = list(next(iter(trials.values())).fields) if trials else []
    for name in ("trial", *names, "folds", "score", "seconds", "state"):
        is_text = name in ("trial", "state")
        table.add_column(name, justify="left" if is_text else "right", header_style="underline", overflow="fold")
    known = {number: results.get(number, Result(TrialState.WAITING)) for number in trials}
    order = rank_trials(known)
    best = order[0] if order and known[order[0]].state == TrialState.COMPLETE else None
    under_way = [number for number, result in known.items() if result.state not in (*ENDED, TrialState.WAITING)]
    shown = list(dict.fromkeys([*under_way, *order]))[:_MOST_ROWS] if len(trials) > _MOST_ROWS else list(trials)
    for number in [n for n in order if n in shown] if ranked else sorted(shown):
        result = known[number]
        table.add_row(
            trials[number].name + (" (recipe)" if number == 0 else ""),
            *trials[number].fields.values(),
            f"{len(result.folds)}/{num_folds}",
            "" if result.score is None else f"{result.score:.4f}",
            f"{result.seconds:.0f}" if result.seconds else "",
            Text(result.state.value, style=_COLOURS[result.state]),
            style="bold" if number == best else "",
        )
    return table


def rank_trials(results: Mapping[int, Result]) -> list[int]:
    """Numbers of trials, the best first: those with more folds before those with fewer, then by score."""

    def key(number: int) -> tuple[bool, int, float, int]:
        result = results[number]
        return result.state != TrialState.COMPLETE, -len(result.folds), result.score or 0.0, number

    return sorted(results, key=key)


def describe_result(console: Console, metric: str, trial: Trial, result: Result) -> None:
    """A line for a trial that has ended; a terminal has its row in the table instead."""
    if console.is_terminal and result.state != TrialState.FAILED:
        return
    score = "" if result.score is None else f", {metric} {result.score:.4f}"
    why = f": {result.reason}" if result.reason else ""
    style = "bold red" if result.state == TrialState.FAILED else ""
    console.print(
        f"{trial.name} {result.state.value.upper() if style else result.state.value}{why}{score}, "
        f"{result.seconds:.0f} s ({trial})",
        style=style,
    )


class TrialWatcher:
    """Shows the trials while a driver trains them; a context manager.

    Args:
        folder: the tuning's.
        config: of its recipe.
        console: where to.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, console: Console) -> None:
        self.folder, self.config, self.console = folder, config, console
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self.known: dict[int, Result] = {}

    def __enter__(self) -> TrialWatcher:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, trials: Mapping[int, Trial], results: Mapping[int, Result], running: Set[int]) -> None:
        """Reads the folders of trials under way, and shows what is new; storage that is away has nothing new."""
        num_folds = self.config.folds.count
        under_way = {number: self._look(trials[number], num_folds) for number in sorted(running)}
        if self.live:
            ended = sum(result.state in ENDED for result in results.values())
            title = f"tuning {self.folder.root.name}: {ended} of {len(trials)} trials"
            self.live.update(build_trial_table(title, trials, {**results, **under_way}, num_folds), refresh=True)

    def _look(self, trial: Trial, num_folds: int) -> Result:
        """What a trial under way has come to so far."""
        before = self.known.get(trial.number)
        try:
            folds = tuple(trial.folder.completed_folds(num_folds))
            if before is None or before.folds != folds:
                self.known[trial.number] = read_result(trial, self.config)
        except (OSError, RunError):  # whoever trains it tells
            return before or Result(TrialState.TRAINING)
        now = replace(self.known[trial.number], state=TrialState.TRAINING)
        if self.live:
            return now
        if before is None:
            self.console.print(f"{trial.name} training ({trial})")
        elif before.folds != folds and len(folds) < num_folds:
            score = f"{self.config.error_name} {now.score:.4f}"
            self.console.print(f"{trial.name}: {len(folds)} of {num_folds} folds, {score}")
        return now


def follow_tuning(folder: RunFolder, console: Console, interval_s: float) -> None:
    """Shows a tuning from another terminal, until its driver ends."""
    config, space = folder.read_config(), read_space(read_json(folder.tune)["tune"]["space"])
    num_folds, results = config.folds.count, dict[int, Result]()
    with TrialWatcher(folder, config, console) as watcher:
        while folder.is_locked():
            trials = read_trials(folder, space)
            results |= {n: read_result(trial, config) for n, trial in trials.items() if not _has_ended(results.get(n))}
            running = {
                n for n, trial in trials.items() if not _has_ended(results[n]) and _is_training(trial, num_folds)
            }
            watcher.update(trials, results, running)
            time.sleep(interval_s)
    trials = read_trials(folder, space)
    title = f"tuning {folder.root.name} (no driver is at work)"
    everyone = {number: read_result(trial, config) for number, trial in trials.items()}
    console.print(build_trial_table(title, trials, everyone, num_folds, ranked=True))


def _has_ended(result: Result | None) -> bool:
    return result is not None and result.state in ENDED


def _is_training(trial: Trial, num_folds: int) -> bool:
    return any(status.state == FoldState.TRAINING for status in read_statuses(trial.folder, num_folds))
