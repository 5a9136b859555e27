"""The last words of a run on the terminal: scores, what is missing, where everything is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from ensemble.kinds import Metric
from ray_jobs.results.headline import (
    compare_with_constant,
    find_metric,
    list_compared_metrics,
    show_score,
)
from ray_jobs.results.importance_file import read_importance
from ray_jobs.results.wording import (
    describe_new_rows,
    describe_part,
    describe_scored_rows,
    describe_submission,
    explain_choice,
    explain_cross_fitting,
    explain_ends,
    explain_intervals,
    explain_workers,
)
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import Combinations, ScoredModel, Scores, Summary
from ray_jobs.runs.location import find_uri


def print_scores(console: Console, scores: Scores, metric: Metric, constant: str, choice: str) -> None:
    """Scores of each fold and of all out-of-fold predictions beside the constant predictor's.

    Args:
        console: where to.
        scores: the summary's.
        metric: that counts.
        constant: what the constant predictor says.
        choice: what was chosen on these rows.
    """
    title = f"{metric.label} on the rows that each fold validates"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("", "rows", "best epoch", "final epoch", "constant"):
        table.add_column(name, justify="right" if name else "left")
    for row in scores.rows:
        if row is scores.out_of_fold:
            table.add_section()
        cells = (show_score(column, metric) for column in row.by_column.values())
        table.add_row(row.name, str(row.num_rows), *cells, style="bold" if row is scores.out_of_fold else "")
    console.print(table)
    if any(show_score(fold.best, metric) != show_score(fold.final, metric) for fold in scores.folds):
        console.print(choice, style="dim")
    console.print(compare_with_constant(scores, metric, constant))


def print_members(console: Console, members: Mapping[str, Scores], metric: Metric, choice: str) -> None:
    """The out-of-fold score of each member beside the constant predictor's."""
    title = f"{metric.label} on the rows that each fold validates"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("member", "folds", "rows", "best epoch", "final epoch", "constant"):
        table.add_column(name, justify="left" if name == "member" else "right")
    for name, scores in members.items():
        overall = scores.out_of_fold
        cells = (show_score(column, metric) for column in overall.by_column.values())
        table.add_row(name, str(len(scores.folds)), str(overall.num_rows), *cells)
    console.print(table)
    console.print(choice, style="dim")


def print_compared_models(
    console: Console, part: str, compared: Sequence[ScoredModel], metrics: Sequence[Metric]
) -> None:
    """Fold models and methods on the blend set or the test rows whose truth is known, by the metrics, of which the
    first counts."""
    title = f"{metrics[0].label} on {describe_part(part, compared)}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    metrics = [metric for metric in metrics if any(show_score(row.scores, metric) for row in compared)]
    for metric in metrics:
        table.add_column(metric.label, justify="right", header_style="underline")  # a long label has several lines
    for row in compared:
        name = f"{row.name} <- submitted" if row.kind == "submitted" else row.name
        cells = (show_score(row.scores, metric) for metric in metrics)
        table.add_row(name, *cells, style="bold" if row.kind == "submitted" else "")
    console.print(table)


def print_combinations(console: Console, combinations: Combinations) -> None:
    """Members and combinations by their cross-fitted error, the best first, each with its difference from the best."""
    best = combinations.best_member
    title = f"{combinations.error_label} on {describe_scored_rows(combinations)}, with 95 % intervals"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for name in ("", "error", "interval", f"minus {best}", "interval"):
        table.add_column(name, justify="right" if name else "left", header_style="underline", no_wrap=bool(name))
    for row in sorted(combinations.rows, key=lambda row: row.error):
        style = "bold" if row.submitted else "cyan" if row.kind == "member" else ""
        is_best = row.name == best
        table.add_row(
            row.name + (" <- submitted" if row.submitted else ""),
            f"{row.error:.4f}",
            f"{row.low:.4f} {row.high:.4f}",
            "" if is_best else f"{row.difference:+.4f}",
            "" if is_best else f"{row.difference_low:+.4f} {row.difference_high:+.4f}",
            style=style,
        )
    console.print(table)
    console.print(f"{explain_cross_fitting(combinations)} {explain_intervals(combinations)}", style="dim")


def print_importance(console: Console, folder: RunFolder) -> None:
    """By how much the error grows when an input is shuffled, the most important first."""
    rows = read_importance(folder)
    first = rows[0]
    table = Table(
        title=f"{first['metric']} grows by, on {first['rows']} out-of-fold rows of {float(first['error']):.4f}",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in ("input", "shuffled", "95 % interval"):
        table.add_column(name, justify="left" if name == "input" else "right", header_style="underline", no_wrap=True)
    for row in rows:
        interval = f"{float(row['low']):+.4f} {float(row['high']):+.4f}"
        table.add_row(row["input"], f"{float(row['importance']):+.4f}", interval)
    console.print(table)
    console.print(f"all of it: {folder.importance}")


def _print_results(console: Console, folder: RunFolder, summary: Summary) -> None:
    """Scores, comparisons, and the error on new rows."""
    config, stage = folder.read_config(), summary.stage
    metric = find_metric(folder, config)
    if stage.members:
        print_members(console, stage.members, metric, explain_choice(summary))
    elif stage.scores:
        print_scores(console, stage.scores, metric, config.kind.constant, explain_choice(summary))
    if stage.combinations:
        print_combinations(console, stage.combinations)
    if stage.new_rows:
        console.print(describe_new_rows(stage.new_rows), style="bold", highlight=False)
    for part, rows in (stage.compared or {}).items():
        print_compared_models(console, part, rows, list_compared_metrics(folder, config))


def print_outcome(console: Console, folder: RunFolder, summary: Summary) -> None:
    """The last words: scores, what is missing, where everything is."""
    config = folder.read_config()
    stage = summary.stage
    _print_results(console, folder, summary)
    for fold in summary.folds:
        if fold.error:
            own = folder.of_member(fold.member)
            console.print(f"{own.describe_fold(fold.fold)} FAILED: {fold.error}", style="bold red")
            console.print(f"  its log: {own.newest_fold_log(fold.fold)}")
    for note in (
        *explain_ends(summary),
        *summary.notes,
        *(() if summary.bit_repeatable else (explain_workers(summary),)),
    ):
        console.print(note, style="yellow")
    if summary.outcome == "interrupted":
        console.print("the run was asked to stop; the same command continues it")
    submission, facts = stage.submission, stage.submission.facts
    if submission.created:
        weights = f", weights {[round(w, 4) for w in facts['weights']]}" if facts["weights"] else ""
        place = f"{find_uri(folder) or folder.root}/{submission.file}"  # wherever it was written
        console.print(f"submission: {place}\n  {describe_submission(config.kind, facts)}{weights}")
    else:
        console.print(f"no submission: {submission.reason}", style="yellow")
    if folder.report.is_file():
        console.print(f"report: {folder.report}")
    size = f"{summary.size_bytes / 1e6:,.0f} MB"
    console.print(f"everything: {find_uri(folder) or folder.root} ({size}; README.md there explains the files)")
    if "total" in summary.seconds:
        console.print(f"took {summary.seconds['total']:.0f} s")
