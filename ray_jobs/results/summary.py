"""What a run has come to: `summary.json`, and the `README.md` that explains its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_jobs.cluster.versions import list_all_packages, package_versions
from ray_jobs.config.run import RunConfig, to_dict
from ray_jobs.results.headline import find_metric, label_error, show_score
from ray_jobs.results.wording import (
    describe_counts,
    describe_scored_rows,
    explain_cross_fitting,
    explain_workers,
)
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import MEMBERS, RunFolder
from ray_jobs.runs.members import find_members
from ray_jobs.runs.status import FoldState, list_workers, read_statuses
from trainers.storage.whole_files import write_whole

FILES = {
    "config.json": "the whole config, resolved",
    "provenance.json": "command, package versions, fingerprint of the data, counts of leaks",
    "fold_plan.parquet": "id, repeat, fold, and the group where groups are kept together; fold is the fold that validates the row "
    "(-1: none, -2: the blend set)",
    "fold_info.csv": "rows that train and rows that validate in each fold",
    "bad_rows.csv": "rows that were dropped or repaired (only if there are any)",
    "leaks.csv": "kind, fold, id, other_id, where: rows that share picture, text, group or id with a training row "
    "(only if there are any)",
    "events.jsonl": "what happened when: folds launched, started, completed, failed",
    "metrics/": "the metric record: fold_<i>.jsonl, ensemble.jsonl, submission.jsonl, one JSON object a line; "
    "fold_<i>/ has CSV files of it",
    "wandb/": "W&B's local files; ids.json names the W&B runs",
    "log/": "fold_<i>/training_<time>.log of each fold; ray.log is what Ray printed; wandb.log is of the upload to W&B",
    "folds/<i>/": "status.json, checkpoints/{best,final}/, predictions/{validation,blend,test}_{best,final}.parquet; "
    "bad_rows.jsonl lists pictures that could not be decoded",
    "inputs/": "the checked rows, which the folds read",
    "*.safetensors": "weights that all folds share (only if there are any)",
    "members/<name>/": "a further member: a folder like this one, without submission and report (only if there are any)",
    "made_data/": "the data that the project made (only without data.root)",
    "oof.parquet": "for each member one prediction of each row that some fold validated, by the model that did not train on it",
    "ensemble/test_predictions.parquet": "each model's prediction of each test row, the combined one, their standard deviation",
    "ensemble/honest_predictions.parquet": "id, fold, target, prediction: the combination on the rows that score it, by weights that "
    "did not see the row (only with members or a blend set)",
    "sweep/": "leaderboard.csv and sweep.json: what sweep.py tried (only if it was called)",
    "submission_<method>.csv": "ID and prediction; the .json beside it says what was combined and how",
    "predictions/": "what predict.py predicted of new rows (only if it was called)",
    "summary.json": "scores, times, paths, versions",
    "report.html": "scores, figures, config and files on one page that needs no network",
    "figures/": "the figures of report.html as PNG",
    "analysis/": "what analyze.py made of the metrics (only if it was called)",
}


MAP_FILES = {
    "folds/<i>/": "status.json, checkpoints/{best,final}/, predictions/{validation,blend,test}_{best,final}.parquet: of each row its "
    "probabilities and its true classes, as PNG pictures in the table",
    "oof.parquet": "of each row that some fold validated: its true and its predicted share of foreground, Dice and IoU, by the model "
    "that did not train on it",
    "masks/": "out_of_fold/: the class of each pixel, by the model that did not train on the row; test/: by the ensemble",
    "overlays/": "the same over the pictures, true edges in white; out of fold at most 100, from the worst Dice to the best",
    "disagreement/": "test/: the standard deviation of the models' probabilities; white is 0.5, the largest possible value",
    "ensemble/test_predictions.parquet": "each model's share of foreground in each test row, the ensemble's, the mean disagreement",
    "submission_<method>.csv": "of each test row: share of foreground, disagreement, mask, and Dice and IoU where the truth is known; "
    "the .json beside it says what was combined and how",
}
_OF_NUMBERS = ("members/<name>/", "ensemble/honest_predictions.parquet", "sweep/")


def list_files(config: RunConfig) -> dict[str, str]:
    """What the files of such a run hold, by their names."""
    if not config.predicts_maps:
        return FILES
    return {name: text for name, text in (FILES | MAP_FILES).items() if name not in _OF_NUMBERS}


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
        "notes": read_json(folder.provenance, default={}).get("notes", []),
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
        "versions": package_versions(list_all_packages()),
    }
    return summary


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
        metric = find_metric(folder, config)
        lines += [f"| {metric.label} | rows | best epoch | final epoch | constant |", "|---|---|---|---|---|"]
        rows = [(f"fold {fold['fold']}", fold) for fold in summary["scores"]["folds"]]
        for name, row in [*rows, ("out of fold", summary["scores"]["out_of_fold"])]:
            cells = " | ".join(show_score(row[kind], metric) for kind in ("best", "final", "constant"))
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
    lines += [f"Data: {note}.\n" for note in summary.get("notes", [])]
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
    lines = [
        f"| {label_error(combinations)} on {describe_scored_rows(combinations)} | | 95 % interval | minus {combinations['best_member']} |",
        "|---|---|---|---|",
    ]
    for row in combinations["rows"]:
        name = f"**{row['name']}** (submitted)" if row["submitted"] else row["name"]
        lines.append(
            f"| {name} | {row['error']:.4f} | {row['low']:.4f} to {row['high']:.4f} | {row['difference']:+.4f} "
            f"({row['difference_low']:+.4f} to {row['difference_high']:+.4f}) |"
        )
    return [*lines, "", explain_cross_fitting(combinations), ""]
