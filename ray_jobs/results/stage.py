"""The ensemble stage: reads the folds' predictions, scores and combines them, writes `oof.parquet` and the
submission."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.members.combinations import Columns
from ensemble.numbers.scores import score
from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.results.checks import refuse_damaged
from ray_jobs.results.columns import find_columns
from ray_jobs.results.combinations import compare_combinations, list_metrics
from ray_jobs.results.headline import find_metric
from ray_jobs.results.map_scores import draw_out_of_fold, score_map_folds
from ray_jobs.results.map_submission import compare_on_blend, submit_maps
from ray_jobs.results.submission import NoSubmissionError, submit
from ray_jobs.runs.checkpoints import CHECKPOINTS
from ray_jobs.runs.files import read_json, read_parquet, write_parquet
from ray_jobs.runs.folder import RunFolder, find_members
from ray_jobs.runs.record import log_news


def run_ensemble_stage(root: str) -> dict[str, Any]:
    """Scores the finished folds and, when all are finished, writes the submission.

    Args:
        root: the run's folder.

    Returns:
        What `summary.json` says: `scores` (of `main`), `scored_folds` by member, `submission`; with several members `members`
        (the scores of each) and `combinations`.

    Raises:
        RunFolderError: a file of a finished fold is damaged.
        PredictionError: the folds' or members' files do not belong together.
    """
    folder = RunFolder(root)
    config = folder.read_config()
    folders = find_members(folder, config)
    folds = {name: own.completed_folds(config.folds.count) for name, own in folders.items()}
    for own in folders.values():
        refuse_damaged(own, config.folds.count)
    if config.predicts_maps:
        return _run_for_maps(folder, config, folds)
    scored = {name: score_folds(own, config, folds[name]) for name, own in folders.items() if folds[name]}
    stage: dict[str, Any] = {"scores": None, "scored_folds": folds}
    if not scored:
        return stage | {"submission": {"created": False, "reason": "no fold is finished"}}
    write_parquet(folder.oof, pa.concat_tables(table for _, table in scored.values()))
    scores = {name: scores for name, (scores, _) in scored.items()}
    stage["scores"] = scores.get(MAIN)
    if len(folders) > 1:
        stage["members"] = scores
    try:
        submission, metrics = _combine(folder, config, folds, scores, stage)
        submission = {"created": True, **submission}
    except NoSubmissionError as reason:
        submission, metrics = {"created": False, "reason": str(reason)}, {"ensemble/submission_created": 0}
    log_news(folder.submission_record, metrics)
    return stage | {"submission": submission}


def _run_for_maps(folder: RunFolder, config: RunConfig, folds: dict[str, list[int]]) -> dict[str, Any]:
    """The stage of a family that predicts maps, which has one member."""
    stage: dict[str, Any] = {"scores": None, "scored_folds": folds}
    if not folds[MAIN]:
        return stage | {"submission": {"created": False, "reason": "no fold is finished"}}
    stage["scores"], oof = score_map_folds(folder, config, folds[MAIN])
    write_parquet(folder.oof, oof)
    draw_out_of_fold(folder, config, oof)
    overall = stage["scores"]["out_of_fold"]
    metrics = {f"ensemble/out_of_fold_{name}": value for name, value in overall[overall["checkpoint"]].items()}
    missing = sorted(set(range(config.folds.count)) - set(folds[MAIN]))
    reason, submitted = _explain_missing(config, MAIN, missing) if missing else "the data has no test rows", None
    stage["compared"] = {}
    if not missing:
        submitted = submit_maps(folder, config, stage["scores"])
        compared = {"blend": compare_on_blend(folder, config, stage["scores"])}
        compared["test"] = submitted[0]["compared"] if submitted else []
        stage["compared"] = {part: rows for part, rows in compared.items() if rows}
    stage["submission"] = {"created": True, **submitted[0]} if submitted else {"created": False, "reason": reason}
    log_news(folder.submission_record, metrics | (submitted[1] if submitted else {"ensemble/submission_created": 0}))
    return stage


def _combine(
    folder: RunFolder, config: RunConfig, folds: dict[str, list[int]], scores: dict[str, Any], stage: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The submission's part of the summary, and its metrics; adds the members' combinations to the stage's result.

    Raises:
        NoSubmissionError: something is missing.
    """
    for name in config.combined_members:
        if missing := sorted(set(range(config.folds.count)) - set(folds[name])):
            raise NoSubmissionError(_explain_missing(config, name, missing))
    columns = find_columns(folder, config)
    if columns is not None:
        stage["combinations"], honest_N = compare_combinations(config, columns, find_metric(folder, config).error_label)
        _write_honest_predictions(folder, columns, honest_N)
        log_news(folder.submission_record, list_metrics(stage["combinations"]))
    return submit(folder, config, columns, scores)


def _write_honest_predictions(folder: RunFolder, columns: Columns, honest_N: np.ndarray) -> None:
    """The submitted combination's prediction of each row that scores it, by weights that did not see the row."""
    names = ("id", "fold", "target", "prediction")
    values = (columns.ids_N.astype(str), columns.fold_N.astype(np.int32), columns.target_N, honest_N)
    write_parquet(folder.honest_predictions, pa.table(dict(zip(names, map(pa.array, values), strict=True))))


def _explain_missing(config: RunConfig, name: str, missing: list[int]) -> str:
    without = " without folds.only" if config.folds.only else ""
    whose = f" of member {name}" if name != MAIN else ""
    others = [other for other in config.combined_members if other != name]
    advice = f"; ensemble.members=[{','.join(others)}] leaves it out" if others else ""
    return f"folds {missing}{whose} are not trained; the same command{without} trains them{advice}"


def score_folds(folder: RunFolder, config: RunConfig, folds: list[int]) -> tuple[dict[str, Any], pa.Table]:
    """Scores each finished fold of a member and all of them together, by `ensemble.metric` and others.

    The constant predictor of a fold is expm1 of its training rows' mean log1p: what a model has to beat.

    Returns:
        The scores, and the out-of-fold predictions of the config's checkpoint.
    """
    metric = config.ensemble.metric
    tables = {c: [read_parquet(folder.fold(f).predictions("validation", c)) for f in folds] for c in CHECKPOINTS}
    chosen = pa.concat_tables(tables[config.ensemble.checkpoint])
    constants = read_json(folder.provenance)["constant_predictions"]
    by_fold = []
    for index, fold in enumerate(folds):
        table = tables["best"][index]
        target = table["target"].to_numpy()
        by_fold.append(
            {"fold": fold, "num_rows": len(target)}
            | {c: score(target, tables[c][index]["prediction"].to_numpy(), metric) for c in CHECKPOINTS}
            | {"constant": score(target, np.full(len(target), constants[fold]), metric)}
        )
    target = chosen["target"].to_numpy()
    constant = np.array([constants[fold] for fold in chosen["fold"].to_pylist()])
    overall: dict[str, Any] = {
        c: score(target, pa.concat_tables(tables[c])["prediction"].to_numpy(), metric) for c in CHECKPOINTS
    }
    scores = {
        "folds": by_fold,
        "out_of_fold": {"num_rows": len(target), "checkpoint": config.ensemble.checkpoint, **overall}
        | {"constant": score(target, constant, metric)},
    }
    return scores, chosen
