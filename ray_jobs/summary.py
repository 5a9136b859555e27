"""How a run ends: `summary.json`, the `README.md` that explains its folder, the report, and the last words on the
terminal."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ray_jobs.cluster import package_versions
from ray_jobs.config import RunConfig, to_dict
from ray_jobs.coordinator import FoldState, list_workers
from ray_jobs.leaks import describe_counts
from ray_jobs.members import find_members
from ray_jobs.mirror import find_uri
from ray_jobs.run_folder import MEMBERS, RunFolder, read_json, write_json, write_whole
from ray_jobs.score_words import name_metric, show_metric
from ray_jobs.terminal import (
    describe_scored_rows,
    explain_cross_fitting,
    print_combinations,
    print_compared_maps,
    print_members,
    print_scores,
    read_statuses,
)
from ray_jobs.tracking.record import log_news
from ray_jobs.tracking.wandb_sink import WandbSink

FILES = {
    "config.json": "the whole config, resolved",
    "provenance.json": "command, package versions, fingerprint of the data",
    "fold_plan.parquet": "id, repeat, fold (the fold that validates the row; -1: none, -2: the blend set), group where groups are kept together",
    "fold_info.csv": "rows that train and validate in each fold",
    "bad_rows.csv": "rows that were dropped or mended (only if there are any)",
    "leaks.csv": "kind, fold, id, other_id, where: rows with the same picture, text, group or id in training and validation "
    "(fold) or test rows, each with one such training row (only if there are any)",
    "events.jsonl": "what happened when: folds launched, started, completed, failed",
    "metrics/": "the metric record: fold_<i>.jsonl, ensemble.jsonl, submission.jsonl; one JSON object a line",
    "wandb/": "W&B's local files; ids.json names the W&B runs",
    "log/": "log of each fold; ray.log holds what Ray printed",
    "folds/<i>/": "status.json, checkpoints/{best,final}/, predictions/{validation,test}_{best,final}.parquet; "
    "bad_rows.jsonl lists pictures that could not be decoded",
    "inputs/": "the rows as they were checked, which the folds read",
    "frozen_encoders-*.safetensors": "weights that all folds share (only if the encoders are frozen)",
    "members/<name>/": "a further member: a folder like this one, without submission and report (only if there are any)",
    "made_data/": "the data that the project made (only without data.root)",
    "oof.parquet": "one honest prediction for each row that some fold validated",
    "ensemble/test_predictions.parquet": "each model's prediction of each test row, the combined one, their std",
    "ensemble/honest_predictions.parquet": "id, fold, target, prediction: the combination on the rows that score it, by weights that "
    "did not see the row (only with members or a blend set)",
    "sweep/": "leaderboard.csv and sweep.json: what sweep.py tried (only if it was called)",
    "submission_<method>.csv": "ID and prediction; what was combined and how stands beside it as .json",
    "predictions/": "what predict.py predicted of new rows (only if it was called)",
    "summary.json": "scores, times, paths, versions",
    "report.html": "scores, figures, config and files on one page that needs no network",
    "figures/": "the figures of report.html as PNG",
    "analysis/": "what analyze.py made of the metrics (only if it was called)",
}


MAP_FILES = {
    "folds/<i>/": "status.json, checkpoints/{best,final}/, predictions/{validation,test}_{best,final}.parquet: of each row its "
    "probabilities and its true classes, as PNG pictures in the table",
    "oof.parquet": "of each row that some fold validated its true and predicted share of foreground, Dice and IoU, by the model that did "
    "not see it",
    "masks/": "out_of_fold/ and test/: the class of each place, predicted by the model that did not see the row, and by the ensemble",
    "overlays/": "the same over what it lies on, true edges in white; out of fold at most 100, from the worst Dice to the best",
    "disagreement/": "test/: the standard deviation of the models' probabilities; white is a half, the most there can be",
    "ensemble/test_predictions.parquet": "each model's share of foreground in each test row, the ensemble's, the mean disagreement",
    "submission_<method>.csv": "of each test row the share of foreground, the disagreement, Dice and IoU where the truth is known, its mask; "
    "what was combined and how stands beside it as .json",
}
_OF_NUMBERS = ("frozen_encoders-*.safetensors", "members/<name>/", "ensemble/honest_predictions.parquet", "sweep/")


def list_files(config: RunConfig) -> dict[str, str]:
    """What the files of such a run hold, by their names."""
    if not config.predicts_maps:
        return FILES
    return {name: text for name, text in (FILES | MAP_FILES).items() if name not in _OF_NUMBERS}


def conclude(
    folder: RunFolder,
    config: RunConfig,
    stage: dict[str, Any],
    seconds: dict[str, float],
    sink: WandbSink,
    console: Console,
) -> dict[str, Any]:
    """Writes summary and report, records the report's pictures, waits for W&B as long as is allowed, says how it went.

    Args:
        folder: the run.
        config: its config.
        stage: what the ensemble stage returned.
        seconds: wall time by phase.
        sink: the run's W&B side.
        console: where to.

    Returns:
        The summary.
    """
    from ray_jobs.reporting.html_report import write_report_or_warn  # matplotlib is not loaded before the folds train

    folder.remove_leftovers()
    summary = build_summary(folder, config, stage, seconds)
    write_report_or_warn(folder, config, summary)
    _record_pictures(folder)
    save_summary(folder, config, summary)  # last: a run that has one is finished
    sink.finish(config.tracking.finish_timeout_s)
    print_outcome(console, folder, summary)
    return summary


def conclude_again(
    folder: RunFolder,
    config: RunConfig,
    stage: dict[str, Any],
    seconds: dict[str, float],
    sink: WandbSink,
    console: Console,
) -> dict[str, Any]:
    """As `conclude`, of a run whose folds were trained earlier: the other phases keep their times, and there is no total."""
    known = read_json(folder.summary, default={}).get("seconds", {}) | seconds
    known.pop("total", None)
    return conclude(folder, config, stage, known, sink, console)


def _record_pictures(folder: RunFolder) -> None:
    """A row with the report's pictures; each with its checksum, since the next submission draws them anew."""
    pictures = {
        f"ensemble/figures/{path.stem}": {
            "image": f"figures/{path.name}",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.figures.glob("*.png"))
    }
    log_news(folder.submission_record, pictures)


def save_summary(folder: RunFolder, config: RunConfig, summary: dict[str, Any]) -> None:
    """Writes `summary.json` and `README.md`."""
    write_whole(folder.readme, _explain(folder, config, summary).encode())
    write_json(folder.summary, summary)


def build_summary(
    folder: RunFolder, config: RunConfig, stage: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
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
    summary = {
        "run": folder.root.name,
        "recipe": config.recipe,
        "outcome": outcome,
        **stage,
        "leaks": read_json(folder.provenance, default={}).get("leaks", {}),
        "ensemble": to_dict(config)["ensemble"],
        "bit_repeatable": len({number for of_folds in workers.values() for fold in of_folds for number in fold}) <= 1,
        "folds": [
            {
                "member": member,
                "fold": status.fold,
                "state": status.state.value,
                "attempts": status.attempt,
                "workers": workers[member][status.fold],
                "best_epoch": status.best_epoch,
                "seconds": None
                if status.finished is None or status.started is None
                else status.finished - status.started,
                "error": status.error,
            }
            for member, status in statuses
        ],
        "seconds": seconds,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "paths": {name: str(getattr(folder, name)) for name in ("root", "config", "fold_plan", "metrics", "oof")},
        "size_bytes": folder.measure_bytes(),
        "versions": package_versions(),
    }
    return summary


def print_outcome(console: Console, folder: RunFolder, summary: dict[str, Any]) -> None:
    """The last words: scores, what is missing, where everything is."""
    if "members" in summary:
        print_members(console, summary["members"])
    elif summary["scores"]:
        print_scores(console, summary["scores"])
    if "combinations" in summary:
        print_combinations(console, summary["combinations"])
    for part, rows in summary.get("compared", {}).items():
        print_compared_maps(console, part, rows)
    for fold in summary["folds"]:
        if fold["error"]:
            own = folder.of_member(fold["member"])
            console.print(f"{own.describe_fold(fold['fold'])} FAILED: {fold['error']}", style="bold red")
            console.print(f"  its log: {own.newest_fold_log(fold['fold'])}")
    if not summary.get("bit_repeatable", True):
        console.print(explain_workers(summary), style="yellow")
    if summary["outcome"] == "interrupted":
        console.print("the run was asked to stop; the same command continues it")
    submission = summary["submission"]
    if submission["created"]:
        weights = f", weights {[round(w, 4) for w in submission['weights']]}" if submission["weights"] else ""
        place = f"{find_uri(folder) or folder.root}/{Path(submission['path']).name}"  # wherever it was written
        console.print(f"submission: {place}\n  {describe_submission(submission)}{weights}")
    else:
        console.print(f"no submission: {submission['reason']}", style="yellow")
    if folder.report.is_file():
        console.print(f"report: {folder.report}")
    size = f"{summary['size_bytes'] / 1e6:,.0f} MB"
    console.print(f"everything: {find_uri(folder) or folder.root} ({size}; README.md there explains the files)")
    if "total" in summary["seconds"]:
        console.print(f"took {summary['seconds']['total']:.0f} s")


def explain_workers(summary: Mapping[str, Any]) -> str:
    """Why a run cannot be repeated bit for bit."""
    several = len({fold["member"] for fold in summary["folds"]}) > 1
    folds = [
        f"{fold['member'] + ' ' if several else ''}fold {fold['fold']}: {', then '.join(map(str, fold['workers']))}"
        for fold in summary["folds"]
        if fold["workers"]
    ]
    return f"not bit-repeatable: the number of workers was not always the same ({'; '.join(folds)})"


def describe_submission(submission: Mapping[str, Any]) -> str:
    """What was combined and how, in one line."""
    what = "members'" if "fold_method" in submission else "models'"
    space = f"in {submission['space']} space" if "space" in submission else "place by place"
    return (
        f"{submission['method']} of {submission['n_models']} {what} {submission['checkpoints']} checkpoints "
        f"{space}{_describe_interval(submission.get('interval'))}"
    )


def _describe_interval(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return ""
    guaranteed = facts["guaranteed"]
    what = "nothing is guaranteed" if guaranteed is None else f"coverage at least {guaranteed:.3f}"
    return f", with {facts['level']:.0%} intervals ({facts['kind']}: {what})"


def _explain(folder: RunFolder, config: RunConfig, summary: dict[str, Any]) -> str:
    lines = [
        f"# Run {folder.root.name}",
        "",
        f"Recipe `{config.recipe}`, {config.folds.count} folds: {summary['outcome']}.",
        "",
    ]
    if "combinations" in summary:
        lines += _explain_combinations(summary["combinations"])
    if summary["scores"]:
        metric = name_metric(summary["scores"])
        lines += [f"| {show_metric(metric)} | rows | best epoch | final epoch | constant |", "|---|---|---|---|---|"]
        rows = [(f"fold {fold['fold']}", fold) for fold in summary["scores"]["folds"]]
        for name, row in [*rows, ("out of fold", summary["scores"]["out_of_fold"])]:
            cells = " | ".join(f"{row[kind][metric]:.4f}" for kind in ("best", "final", "constant"))
            lines.append(f"| {name} | {row['num_rows']} | {cells} |")
        lines += [
            "",
            "`best` was chosen on the rows it is scored on, so its score is a little optimistic; `final` was not chosen.",
            "",
        ]
    if "members" in summary:
        lines += [f"That is member `main`; the others are in `{MEMBERS}/`, each a folder like this one.", ""]
    if not summary.get("bit_repeatable", True):
        lines += [f"This run is {explain_workers(summary)}.", ""]
    lines += [f"Leak: {line}; `leaks.csv` lists them.\n" for line in describe_counts(summary["leaks"])]
    submission = summary["submission"]
    lines.append(
        f"Submission: `{Path(submission['path']).name}`."
        if submission["created"]
        else f"No submission: {submission['reason']}."
    )
    lines += [
        "",
        "The same command continues this run. `python ray_jobs/submit.py` combines it anew, without training.",
        "",
    ]
    files = list_files(config)
    lines += ["| file | what it holds |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in files.items()), ""]
    return "\n".join(lines)


def _explain_combinations(combinations: Mapping[str, Any]) -> list[str]:
    metric = combinations["metric"].upper()
    lines = [
        f"| {metric} on {describe_scored_rows(combinations)} | | 95 % interval | minus {combinations['best_member']} |",
        "|---|---|---|---|",
    ]
    for row in combinations["rows"]:
        name = f"**{row['name']}** (submitted)" if row["submitted"] else row["name"]
        lines.append(
            f"| {name} | {row['error']:.4f} | {row['low']:.4f} to {row['high']:.4f} | {row['difference']:+.4f} "
            f"({row['difference_low']:+.4f} to {row['difference_high']:+.4f}) |"
        )
    return [*lines, "", explain_cross_fitting(combinations), ""]
