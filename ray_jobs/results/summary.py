"""What a run has come to: `summary.json`, and the `README.md` that explains its folder."""

from __future__ import annotations

import time

from ray_jobs.cluster.versions import list_all_packages, package_versions
from ray_jobs.config.run import RunConfig, to_dict
from ray_jobs.config.words import write_command
from ray_jobs.results.headline import find_metric, show_score
from ray_jobs.results.wording import (
    describe_counts,
    describe_folds,
    describe_new_rows,
    describe_scored_rows,
    explain_choice,
    explain_cross_fitting,
    explain_ends,
    explain_intervals,
    explain_new_rows,
    explain_workers,
)
from ray_jobs.runs.file_table import MEMBERS, list_files
from ray_jobs.runs.folder import RunFolder, find_members
from ray_jobs.runs.json_files.provenance import find_provenance
from ray_jobs.runs.json_files.status import FoldState, list_workers, read_statuses
from ray_jobs.runs.json_files.summary import Combinations, FoldOutcome, StageResult, Summary, write_summary
from trainers.storage.whole_files import write_whole


def save_summary(folder: RunFolder, config: RunConfig, summary: Summary) -> None:
    """Writes `README.md` and `summary.json`."""
    write_whole(folder.readme, _explain(folder, config, summary).encode())
    write_summary(folder, summary)


def build_summary(folder: RunFolder, config: RunConfig, stage: StageResult, seconds: dict[str, float]) -> Summary:
    """What `summary.json` holds.

    Args:
        folder: the run.
        config: its config.
        stage: what the ensemble stage returned.
        seconds: wall time by phase.

    Returns:
        The summary.
    """
    folders = find_members(folder, config).values()
    workers = {own.member: [list_workers(own, fold) for fold in range(config.folds.count)] for own in folders}
    statuses = [(own.member, status) for own in folders for status in read_statuses(own, config.folds.count)]
    states = {status.state for _, status in statuses}
    if states == {FoldState.COMPLETED}:
        outcome = "complete"
    elif FoldState.FAILED in states:
        outcome = "failed"
    else:
        outcome = "interrupted" if folder.stop_request.exists() else "partial"
    provenance = find_provenance(folder)
    return Summary(
        run=folder.root.name,
        recipe=config.recipe,
        outcome=outcome,
        stage=stage,
        leaks=provenance.leaks or {},
        notes=provenance.notes or (),
        ensemble=to_dict(config)["ensemble"],
        bit_repeatable=len({number for of_folds in workers.values() for fold in of_folds for number in fold}) <= 1,
        folds=tuple(
            FoldOutcome(
                member=member,
                fold=status.fold,
                state=status.state,
                attempts=status.attempt,
                workers=tuple(workers[member][status.fold]),
                best_epoch=status.best_epoch,
                seconds=None if status.finished is None or status.started is None else status.finished - status.started,
                error=status.error,
                epochs=status.epoch,
                # A refit ends where the folds have: as it should.
                ended_by=None if config.folds.trains_all else status.ended_by,
            )
            for member, status in statuses
        ),
        seconds=seconds,
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        paths={name: str(getattr(folder, name)) for name in ("root", "config", "fold_plan", "metrics", "oof")},
        size_bytes=folder.measure_bytes(),
        versions=package_versions(list_all_packages()),
    )


def _explain(folder: RunFolder, config: RunConfig, summary: Summary) -> str:
    folds = "one model of all rows" if config.folds.trains_all else f"{config.folds.count} folds"
    lines = [
        f"# Run {folder.root.name}",
        "",
        f"Recipe `{config.recipe}`, {folds}: {summary.outcome}.",
        "",
    ]
    stage = summary.stage
    if stage.combinations:
        lines += _explain_combinations(stage.combinations)
    if stage.scores:
        metric = find_metric(folder, config)
        lines += [f"| {metric.label} | rows | best epoch | final epoch | constant |", "|---|---|---|---|---|"]
        for row in stage.scores.rows:
            cells = " | ".join(show_score(scores, metric) for scores in row.by_column.values())
            lines.append(f"| {row.name} | {row.num_rows} | {cells} |")
        lines += ["", f"{explain_choice(summary)}.", ""]
    if stage.new_rows:
        lines += [f"{describe_new_rows(stage.new_rows)}. {explain_new_rows(stage.new_rows)}", ""]
    if stage.members:
        lines += [f"That is member `main`; the others are in `{MEMBERS}/`, each a folder like this one.", ""]
    lines += [f"{line}.\n" for line in explain_ends(summary)]
    if not summary.bit_repeatable:
        lines += [f"This run is {explain_workers(summary)}.", ""]
    lines += [f"Leak: {line}; `leaks.csv` lists them.\n" for line in describe_counts(summary.leaks)]
    lines += [f"Data: {note}.\n" for note in summary.notes]
    lines.append(
        f"Submission: `{stage.submission.file}`{describe_folds(stage.submission.facts)}."
        if stage.submission.created
        else f"No submission: {stage.submission.reason}."
    )
    lines += [
        "",
        f"The same command continues this run. `{write_command('submit.py')}` combines it anew, without training.",
        "",
    ]
    rows_of_files = [f"| `{file.name}` | {file.about} |" for file in list_files(config.kind)]
    lines += ["| file | what it holds |", "|---|---|", *rows_of_files, ""]
    return "\n".join(lines)


def _explain_combinations(combinations: Combinations) -> list[str]:
    lines = [
        f"| {combinations.error_label} on {describe_scored_rows(combinations)} | | 95 % interval | minus "
        f"{combinations.best_member} |",
        "|---|---|---|---|",
    ]
    for row in combinations.rows:
        name = f"**{row.name}** (submitted)" if row.submitted else row.name
        lines.append(
            f"| {name} | {row.error:.4f} | {row.low:.4f} to {row.high:.4f} | {row.difference:+.4f} "
            f"({row.difference_low:+.4f} to {row.difference_high:+.4f}) |"
        )
    return [*lines, "", f"{explain_cross_fitting(combinations)} {explain_intervals(combinations)}", ""]
