"""`report.html` of a K-fold run: one file that needs no network, for people who were not there.

It reads the run's folder and the summary and computes nothing anew; what a partial run lacks it says in words.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ray_jobs.config.run import MAIN, RunConfig, to_dict
from ray_jobs.reporting.html_parts import (
    build_figure,
    build_fold_out,
    build_link,
    build_page,
    build_paragraph,
    build_section,
    build_table,
)
from ray_jobs.reporting.report_figures import DrawnPicture, write_pictures
from ray_jobs.results.headline import find_metric, list_compared_metrics, show_score
from ray_jobs.results.run_files import combines_folds
from ray_jobs.results.wording import (
    describe_counts,
    describe_new_rows,
    describe_part,
    describe_scored_rows,
    describe_submission,
    explain_choice,
    explain_cross_fitting,
    explain_ends,
    explain_intervals,
    explain_new_rows,
    explain_outcome,
    explain_workers,
)
from ray_jobs.runs.file_table import list_files
from ray_jobs.runs.files import find_record
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import find_provenance
from ray_jobs.runs.json_files.status import FoldState
from ray_jobs.runs.json_files.summary import Combinations, FoldOutcome, Summary
from ray_jobs.runs.json_files.sweep_outcome import SweepOutcome
from ray_jobs.runs.record import read_lines
from trainers.storage.whole_files import write_whole

logger = logging.getLogger(__name__)
_MOST_BAD_ROWS = 50
_MOST_COMBINATIONS = 20
_MOST_LINKS = 12


def write_report(folder: RunFolder, config: RunConfig, summary: Summary) -> Path:
    """Writes `figures/*.png` and `report.html`.

    Args:
        folder: the run.
        config: its config.
        summary: what `summary.json` holds.

    Returns:
        Path of the report.
    """
    pictures = write_pictures(folder, config, summary)
    parts = [
        _write_headline(folder, config, summary),
        _write_scores(folder, config, summary),
        _write_combinations(summary),
        _write_compared_models(folder, config, summary),
        _write_sweep(folder),
        _write_problems(folder, summary),
        _write_figures(pictures),
        _write_timings(summary),
        _write_provenance(folder, config, summary),
        _list_files(folder, config),
    ]
    page = build_page(f"{summary.run}: {summary.outcome}", filter(None, parts))
    write_whole(folder.report, page.encode(errors="replace"))
    return folder.report


def write_report_or_warn(folder: RunFolder, config: RunConfig, summary: Summary) -> None:
    """`write_report` for a run that is finished: whatever goes wrong is logged, and the run stays finished."""
    try:
        write_report(folder, config, summary)
    except Exception as error:  # a report must not hurt a finished run
        is_bug = not isinstance(error, OSError)
        logger.warning("%s could not be written: %s", folder.report, error, exc_info=is_bug)


def _write_headline(folder: RunFolder, config: RunConfig, summary: Summary) -> str:
    provenance, stage = find_provenance(folder), summary.stage
    lead, kind = _judge_combination(stage.combinations) if stage.combinations else _judge(folder, config, summary)
    folds = f"{config.folds.count} {config.folds.kind} folds"
    folds = {"holdout": "one split without folds", "all": "one model of all rows"}.get(config.folds.kind, folds)
    about = f"Recipe {config.recipe}, {folds}, target {_show(provenance.target)}"
    about += f", {_show(provenance.num_train)} training rows, {_show(provenance.num_test)} test rows. "
    about += f"Finished {summary.finished}."
    submission, outcome = stage.submission, summary.outcome
    if submission.created:
        text = f"{describe_submission(config.kind, submission.facts)}, {submission.facts['test_samples']} rows: "
        last = f"<p>Submission: {escape(text)}{build_link(submission.file)}</p>"
    else:
        last = build_paragraph(f"No submission: {submission.reason}.", "bad")
    title = (
        f"<h1>{escape(summary.run)} <span "
        f"class={'soft' if outcome == 'complete' else 'bad'}>{escape(outcome)}</span></h1>"
    )
    return "\n".join([f"<header>{title}", build_paragraph(lead, f"lead {kind}"), build_paragraph(about, "soft"), last,
                      "</header>"])  # fmt: skip


def _show(fact: object) -> str:
    return "?" if fact is None else str(fact)


def _judge(folder: RunFolder, config: RunConfig, summary: Summary) -> tuple[str, str]:
    """The result in words, and whether it is good or bad news."""
    scores = summary.stage.scores
    if config.folds.trains_all and summary.notes:
        return f"{summary.notes[-1][0].upper()}{summary.notes[-1][1:]}.", "good"
    if not scores:
        return "No fold is finished, so there is no score yet.", "bad"
    metric, overall = find_metric(folder, config), scores.out_of_fold
    value, constant = scores.chosen.get(metric.name), overall.constant.get(metric.name)
    num_done, num_folds = len(scores.folds), sum(fold.member == MAIN for fold in summary.folds)
    if value is None or constant is None:
        return f"{metric.title} is not defined for the out-of-fold predictions, or for the constant predictor.", "bad"
    what = f"Out-of-fold {metric.label} {value:.4f} on {overall.num_rows:,} rows ({overall.checkpoint} checkpoints)"
    what = f"Member {MAIN}: {what[0].lower()}{what[1:]}" if summary.stage.members else what
    against = f"{config.kind.constant} would give {constant:.4f}"
    missing = "" if num_done == num_folds else f" Only {num_done} of {num_folds} folds are finished."
    if not (value > constant if metric.higher_is_better else value < constant):
        return f"{what}: no better than the constant predictor; {against}.{missing}", "bad"
    gain = "better than" if metric.higher_is_better else f"{1 - value / constant:.0%} below"
    return f"{what}: {gain} the constant predictor; {against}.{missing}", "good"


def _judge_combination(combinations: Combinations) -> tuple[str, str]:
    """Whether the submitted combination is better than the best member."""
    row, best = combinations.submitted, combinations.best_member
    kind = "members" if combinations.scored_on == "out_of_fold" else "fold models"
    number = sum(row.kind == "member" for row in combinations.rows)
    what = f"{combinations.error_label} {row.error:.4f} of the {row.name} of {number} {kind} on "
    what += describe_scored_rows(combinations)
    interval = f"{row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f})"
    if row.difference_high < 0:
        return f"{what}: better than the best of them, {best}, by {interval}.", "good"
    return f"{what}: not shown to be better than the best of them, {best}: {interval}.", "bad"


def _write_scores(folder: RunFolder, config: RunConfig, summary: Summary) -> str:
    scores = summary.stage.scores
    if config.folds.trains_all:
        return ""
    if not scores:
        return build_section("Scores", build_paragraph("There are none: no fold is finished."))
    metric, chosen = find_metric(folder, config), scores.out_of_fold.checkpoint or "best"
    others = [
        find_metric(folder, config, name)
        for name in scores.out_of_fold.best
        if name != metric.name and any(row.by_column[chosen].get(name) is not None for row in scores.rows)
    ]
    cells = []
    for row in scores.rows:
        own = row.by_column[chosen]
        cells.append([row.name, f"{row.num_rows:,}"])
        cells[-1] += [show_score(column, metric) for column in row.by_column.values()]
        if not metric.higher_is_better:
            cells[-1] += [_share_of_constant(own.get(metric.name), row.constant.get(metric.name))]
        cells[-1] += ["" if own[one.name] is None else f"{own[one.name]:,.4g}" for one in others]
    header = ["", "rows", f"{metric.label}, best epoch", "final epoch", "constant"]
    header += [] if metric.higher_is_better else ["of constant"]
    header += [f"{one.label}, {chosen}" for one in others]
    note = (
        f"Each fold is scored on the rows it did not train on; {metric.better} is better. {explain_choice(summary)}. "
    )
    note += f"Constant: {config.kind.constant}."
    title = f"Scores of member {MAIN}" if summary.stage.members else "Scores"
    table, parts = build_table(header, cells, has_total=True), [build_paragraph(note, "soft")]
    if new_rows := summary.stage.new_rows:
        parts += [
            build_paragraph(f"{describe_new_rows(new_rows)}."),
            build_paragraph(explain_new_rows(new_rows), "soft"),
        ]
    return build_section(title, table, *parts)


def _share_of_constant(value: float | None, constant: float | None) -> str:
    return "" if value is None or not constant else f"{100 * value / constant:.0f} %"


def _write_combinations(summary: Summary) -> str:
    """Members and combinations by their cross-fitted error; nothing where there is one member."""
    combinations = summary.stage.combinations
    if not combinations:
        return ""
    metric, best = combinations.error_label, combinations.best_member
    cells = [
        [
            row.name + (" (submitted)" if row.submitted else ""),
            row.kind,
            f"{row.error:.4f}",
            f"{row.low:.4f} to {row.high:.4f}",
            f"{row.difference:+.4f}",
            f"{row.difference_low:+.4f} to {row.difference_high:+.4f}",
        ]
        for row in sorted(combinations.rows, key=lambda row: row.error)
    ]
    header = ["", "", metric, "95 % interval", f"minus {best}", "95 % interval"]
    note = (
        f"{describe_scored_rows(combinations).capitalize()}, paired bootstrap. An interval below 0: better than "
        f"{best}. "
    )
    notes = build_paragraph(f"{note}{explain_cross_fitting(combinations)} {explain_intervals(combinations)}", "soft")
    return build_section("Combinations", build_table(header, cells), notes, *_write_diversity(combinations))


def _write_compared_models(folder: RunFolder, config: RunConfig, summary: Summary) -> str:
    """Fold models and methods on rows that no model has seen; nothing where there are none."""
    parts, metrics = [], list_compared_metrics(folder, config)
    kinds = {
        "model": "fold model" if combines_folds(config) else "member",
        "combination": "all models",
        "submitted": "all models (submitted)",
    }
    for part, compared in (summary.stage.compared or {}).items():
        rows = [
            [row.name, kinds[row.kind], *(show_score(row.scores, metric) for metric in metrics)] for row in compared
        ]
        parts.append(build_table(["", "", *(metric.label for metric in metrics)], rows))
        parts.append(build_paragraph(f"On {describe_part(part, compared)}; {metrics[0].better} is better.", "soft"))
    return build_section("Combinations", *parts) if parts else ""


def _write_diversity(combinations: Combinations) -> list[str]:
    """What the models' differing is worth, and what each of them adds; nothing of a single model, or where it is not
    known."""
    diversity, metric = combinations.diversity, combinations.error_label
    if diversity is None or not diversity["contributions"]:
        return []
    effective = diversity["effective_models"]
    text = (
        f"Their mean has a squared error of {diversity['ensemble_error']:.4f}: {diversity['member_error']:.4f} on "
        "average, less "
    )
    text += f"{diversity['ambiguity']:.4f} because they differ (ambiguity)."
    if effective is not None:
        text += (
            f" By the correlation of their errors {len(diversity['contributions'])} models amount to {effective:.2f} "
        )
        text += "that err independently."
    cells = []
    for number, one in enumerate(diversity["contributions"]):
        row = diversity["error_correlation"][number]
        others = [value for at, value in enumerate(row) if at != number and value is not None]
        mean = f"{sum(others) / len(others):.3f}" if others else ""
        cells.append([one["name"], f"{one['contribution']:+.4f}", f"{one['low']:+.4f} to {one['high']:+.4f}", mean])
    header = [
        "",
        f"what it adds to the mean ({metric})",
        "95 % interval",
        "mean correlation of its errors with the others'",
    ]
    return [build_paragraph(text), build_table(header, cells)]


def _write_sweep(folder: RunFolder) -> str:
    """The best of what sweep.py tried, and what to believe of it; nothing where it was not called."""
    outcome = find_record(folder.sweep_outcome, SweepOutcome)
    if not outcome:
        return ""
    cells = [["" if cell is None else f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row]
             for row in outcome.rows[:_MOST_COMBINATIONS]]  # fmt: skip
    lines = [build_paragraph(line) for line in explain_outcome(outcome)]
    return build_section("Sweep", *lines, build_table([name.replace("_", " ") for name in outcome.columns], cells))


def _write_problems(folder: RunFolder, summary: Summary) -> str:
    """Failed and missing folds, leaks, dropped and mended rows, workers that came and went; nothing where there are
    none."""
    parts = []
    for fold in summary.folds:
        if fold.state == FoldState.FAILED:
            parts.append(build_fold_out(f"{_name_fold(fold)} failed", str(fold.error), is_open=True))
        elif fold.state != FoldState.COMPLETED:
            parts.append(build_paragraph(f"{_name_fold(fold)} is not finished ({fold.state}).", "bad"))
    parts += [build_paragraph(f"{line[0].upper()}{line[1:]}.") for line in explain_ends(summary)]
    if not summary.bit_repeatable:
        parts.append(build_paragraph(f"This run is {explain_workers(summary)}."))
    parts += [build_paragraph(f"Leak: {line}.", "bad") for line in describe_counts(summary.leaks)]
    rows = _read_bad_rows(folder, summary.folds)
    if rows:
        shown = f", the first {_MOST_BAD_ROWS} of them" if len(rows) > _MOST_BAD_ROWS else ""
        parts.append(build_paragraph(f"Rows that were dropped or mended: {len(rows):,}{shown}"))
        parts.append(build_table(["table", "id", "problem", "done"], rows[:_MOST_BAD_ROWS]))
    return build_section("What went wrong", *parts) if parts else ""


def _name_fold(fold: FoldOutcome) -> str:
    return f"Fold {fold.fold}" if fold.member == MAIN else f"Fold {fold.fold} of member {fold.member}"


def _read_bad_rows(folder: RunFolder, folds: Sequence[FoldOutcome]) -> list[list[str]]:
    """table, id, problem, done of each bad row, found while checking or while training; each once."""
    rows = []
    if folder.bad_rows.is_file():
        with folder.bad_rows.open(encoding="utf-8", newline="") as file:
            rows = [
                [row.get(name) or "" for name in ("table", "id", "problem", "done")] for row in csv.DictReader(file)
            ]
    for fold in folds:
        for path in sorted(folder.of_member(fold.member).fold(fold.fold).root.glob("bad_rows*.jsonl")):
            rows += [[str(row.get(n, "")) for n in ("table", "id", "problem", "done")] for row in read_lines(path)]
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


def _write_figures(pictures: list[DrawnPicture]) -> str:
    drawn = [
        build_figure(one.picture.title, one.picture.caption, one.png, f"figures/{one.picture.name}.png")
        for one in pictures
        if one.png
    ]
    reasons: dict[str, list[str]] = {}
    for one in pictures:
        if not one.png:
            reasons.setdefault(one.missing, []).append(one.picture.title)
    missing = [build_paragraph(f"Left out: {', '.join(titles)} ({reason}).") for reason, titles in reasons.items()]
    return build_section("Figures", f'<div class="figures">{"".join(drawn)}</div>', *missing)


def _write_timings(summary: Summary) -> str:
    rows = [[name.replace("_", " "), f"{seconds:,.2f} s"] for name, seconds in summary.seconds.items()]
    rows += [[_name_fold(f).lower(), f"{f.seconds:,.2f} s"] for f in summary.folds if f.seconds is not None]
    return build_section("Times", build_table(["part", "wall time"], rows)) if rows else ""


def _write_provenance(folder: RunFolder, config: RunConfig, summary: Summary) -> str:
    provenance = find_provenance(folder)
    versions = summary.versions or provenance.versions
    facts = {"command": provenance.command, "started": provenance.started, "data": provenance.data_fingerprint}
    facts |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    return build_section(
        "Config and provenance",
        build_table(["", ""], [[name, str(value)] for name, value in facts.items() if value]),
        build_fold_out("The whole config", json.dumps(to_dict(config), indent=2, ensure_ascii=False)),
    )


def _list_files(folder: RunFolder, config: RunConfig) -> str:
    """Every file of the run's contract, with links to those that are there."""
    rows = []
    for file in list_files(config.kind):
        if file.name == folder.report.name:
            continue  # this page
        found = sorted(folder.root.glob(file.glob))
        links = [build_link(str(path.relative_to(folder.root)) + ("/" if path.is_dir() else "")) for path in found]
        more = f" and {len(links) - _MOST_LINKS} more" if len(links) > _MOST_LINKS else ""
        cell = ", ".join(links[:_MOST_LINKS]) + more or f"<code class=soft>{escape(file.name)}</code> (not there)"
        rows.append(f"<tr><td>{cell}</td><td>{escape(file.about)}</td></tr>")
    head = "<thead><tr><th>file</th><th>what it holds</th></tr></thead>"
    table = f'<div class="card"><table>{head}<tbody>{"".join(rows)}</tbody></table></div>'
    return build_section("Files", build_paragraph(str(folder.root), "soft"), table)
