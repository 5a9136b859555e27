"""Compares members, ensembles and runs on the rows that all of them predict without having seen them.

    python ray_jobs/leaderboard.py auctions auctions_wide --metric=mae --csv=ranks.csv

Runs on other data have a table of their own. They are compared by --metric, else by the metric that counts in them,
ensemble.metric; where runs on the same rows do not agree on one there is a table for each. Each row's difference from
the best has a 95 % interval over the same rows, or the groups that a run kept together (paired bootstrap); the last
columns are the errors of the folds. Reads the runs' folders only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: imports start at the repository's root, not in this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ray_jobs.cli.arguments import parse
from ray_jobs.cli.entry import main_with_errors
from ray_jobs.cli.lookup import find_run, find_runs
from ray_jobs.cli.places import refuse_unwritable
from ray_jobs.errors import RunError, RunFolderError

_WIDTH_BESIDE_FOLDS = 58  # columns of a terminal that the names and the other numbers need
COLUMNS = (
    "rank",
    "run",
    "what",
    "rows",
    "metric",
    "error",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
)


@dataclass(frozen=True)
class Arguments:
    """What is typed."""

    runs: tuple[str, ...]
    """Each a run's folder, its name below run.storage, or its s3:// address; without one, all runs in run.storage."""
    metric: str | None = None
    """The error to compare by. By default ensemble.metric of the runs; where runs on the same rows have several, a
    table for each."""
    csv: Path | None = None
    """Also write the table to a file."""


def main(argv: list[str]) -> int:
    typed = parse("leaderboard.py", argv, __doc__, Arguments)
    given, storage = typed.arguments, typed.storage
    if given.csv:
        refuse_unwritable(given.csv.parent, f"--csv={given.csv}: name another file")
    roots = [find_run(run, storage) for run in given.runs] or find_runs(storage)
    return compare(roots, given.metric, given.csv)


def compare(roots: Sequence[Path], metric: str | None, csv: Path | None) -> int:
    """Shows a table for each group of runs on the same rows and each metric."""
    from ray_jobs.cli.console import open_console
    from ray_jobs.results.leaderboard import group_entries, read_entries
    from ray_jobs.runs.files import write_csv
    from ray_jobs.runs.folder import RunFolder

    kinds = find_kinds_with(metric)
    console, entries = open_console(), []
    for root in roots:
        try:
            entries += [entry for entry in read_entries(RunFolder(root)) if entry.kind.name in kinds]
        except RunFolderError as error:
            console.print(f"left out: {error}", style="yellow")
    if not entries:
        which, other = (f" to which --metric={metric} applies", ", or choose another --metric") if metric else ("", "")
        raise RunError(
            f"no out-of-fold predictions{which} in these runs: expected at least one run with them; finish its folds "
            f"first{other}"
        )
    rows: list[list[Any]] = []
    for group in group_entries(entries):
        for name in [metric] if metric else group.metrics:
            try:
                lines, num_folds = group.rank(name)
            except RunFolderError as error:
                console.print(f"left out: {error}", style="yellow")
                continue
            rows += lines
            console.print(_build_table(lines, group.label_error(name), group.describe_rows(), num_folds, console.width))
            console.print(group.explain_intervals(), style="dim")
    if csv:
        write_csv(
            csv,
            [*COLUMNS, *(f"fold_{fold}" for fold in range(max(map(len, rows), default=len(COLUMNS)) - len(COLUMNS)))],
            rows,
        )
        console.print(f"written: {csv}")
    return 0


def find_kinds_with(metric: str | None) -> set[str]:
    """The kinds of predictions that can be compared by a metric; None: all.

    Raises:
        RunError: there is none.
    """
    from ensemble.kinds import find_kinds

    kinds, refusals = find_kinds(), {}
    for name, kind in kinds.items():
        try:
            if metric is not None:
                kind.check_metric(metric)
        except ValueError as error:
            refusals[name] = str(error)
    if len(refusals) == len(kinds):
        raise RunError(f"--metric={metric}: {'; '.join(refusals.values())}")
    return kinds.keys() - refusals.keys()


def _build_table(lines: Sequence[Sequence[Any]], label: str, rows: str, num_folds: int, width: int) -> Any:
    """Names wrap, numbers keep their width; folds for which there is no room are in the CSV file only."""
    from rich.table import Table

    runs = {run for _, run, *_ in lines}
    title = f"{label} on {rows} that every one of these predicts unseen"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    shown = min(num_folds, max(0, (width - _WIDTH_BESIDE_FOLDS) // 7))
    numbers = {"": 2, "error": 6, "minus best": 10, "95 % interval": 15} | {f"fold {fold}": 6 for fold in range(shown)}
    for name in ("", "what", *list(numbers)[1:]):
        is_text = name == "what"
        table.add_column(
            f"run {next(iter(runs))}" if is_text and len(runs) == 1 else name,
            justify="left" if is_text else "right",
            header_style="underline",
            no_wrap=not is_text,
            min_width=numbers.get(name),
        )
    for rank, run, what, _, _, error, _, _, difference, low, high, *folds in lines:
        is_best = rank == 1
        cells = ["" if is_best else f"{difference:+.4f}", "" if is_best else f"{low:+.4f} {high:+.4f}"]
        in_folds = ["" if value is None else f"{value:.4f}" for value in folds[:shown]]
        name = what if len(runs) == 1 else f"{run} {what}"
        table.add_row(str(rank), name, f"{error:.4f}", *cells, *in_folds, style="bold" if is_best else "")
    return table


if __name__ == "__main__":
    main_with_errors(main)
