"""The ensemble stage: reads the folds' predictions, scores and combines them, writes `oof.parquet` and the
submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.run import Combinable, NoSubmissionError
from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.results.checks import refuse_damaged
from ray_jobs.results.combinations import compare_combinations, list_metrics
from ray_jobs.results.headline import find_metric
from ray_jobs.results.new_rows_error import estimate_of_combination, estimate_of_folds
from ray_jobs.results.run_files import (
    describe_run,
    explain_part,
    list_combined_folds,
    open_materials,
    score_folds,
)
from ray_jobs.results.submission import submit
from ray_jobs.results.suspicious_rows import write_suspects
from ray_jobs.runs.files import write_parquet
from ray_jobs.runs.folder import RunFolder, find_members
from ray_jobs.runs.json_files.summary import Combinations, NewRowsError, Scores, StageResult, SubmissionRecord
from ray_jobs.runs.record import log_news


def run_ensemble_stage(root: str) -> StageResult:
    """Scores the finished folds and, when all are finished that are to be combined, writes the submission. The run's
    summary is gone until somebody writes it anew.

    Args:
        root: the run's folder.

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
    folder.summary.unlink(missing_ok=True)  # what is written from here on may be combined in another way than it says
    scored = {
        name: score_folds(own, config, folds[name])
        for name, own in folders.items()
        if folds[name] and not config.folds.trains_all
    }
    stage = StageResult(scored_folds={name: tuple(done) for name, done in folds.items()})
    if config.folds.trains_all:
        return _submit_one_model(folder, config, stage)
    if not scored:
        return replace(stage, submission=SubmissionRecord(reason="no fold is finished"))
    write_parquet(folder.oof, pa.concat_tables(lines for _, lines in scored.values()))
    scores = {name: scores for name, (scores, _) in scored.items()}
    stage = replace(stage, scores=scores.get(MAIN), members=scores if len(folders) > 1 else None)
    if MAIN in scored:
        own_folds = [folder.fold(fold) for fold in range(config.folds.count)]
        materials = open_materials(folder, config)
        config.kind.draw_out_of_fold(config.ensemble, own_folds, scored[MAIN][1], materials)
        write_suspects(folder, config, scored[MAIN][1])
        new_rows = estimate_of_folds(folder, config, scored[MAIN][1], len(folds[MAIN]))
        stage = replace(stage, new_rows=new_rows)
    recorded = _list_scores(config, stage.scores)
    try:
        _refuse_missing(folder, config, folds)
        run = describe_run(folder, config)
        columns = config.kind.find_columns(run)
        if columns is not None:
            combinations, new_rows = _compare(folder, config, columns, run.num_folds)
            stage = replace(stage, combinations=combinations, new_rows=new_rows)
        submission, metrics, compared = submit(folder, config, run, columns, scores)
        stage = replace(stage, submission=submission, compared=compared)
    except NoSubmissionError as reason:
        metrics = {"ensemble/submission_created": 0}
        stage = replace(stage, submission=SubmissionRecord(reason=str(reason)))
    log_news(folder.submission_record, recorded | metrics)
    return stage


def _submit_one_model(folder: RunFolder, config: RunConfig, stage: StageResult) -> StageResult:
    """The submission of a model of all rows, which no row is left to score."""
    try:
        _refuse_missing(folder, config, stage.scored_folds)
        submission, metrics, _ = submit(folder, config, describe_run(folder, config), None, {})
    except NoSubmissionError as reason:
        submission, metrics = SubmissionRecord(reason=str(reason)), {"ensemble/submission_created": 0}
    log_news(folder.submission_record, metrics)
    return replace(stage, submission=submission)


def _list_scores(config: RunConfig, scores: Scores | None) -> dict[str, Any]:
    """The out-of-fold scores of a kind that has them recorded."""
    if scores is None or not config.kind.records_scores:
        return {}
    return {f"ensemble/out_of_fold_{name}": value for name, value in scores.chosen.items()}


def _compare(
    folder: RunFolder, config: RunConfig, columns: Combinable, num_folds: int
) -> tuple[Combinations, NewRowsError | None]:
    """Every combination on the rows that score it, and the submitted one's error on new rows; its predictions are
    written, by weights that did not see the row."""
    metric = find_metric(folder, config)
    combinations, cross_fitted_N = compare_combinations(config, columns, metric, num_folds)
    kept = config.kind.join(columns.target_N, cross_fitted_N)
    names = {"id": pa.array(columns.ids_N.astype(str)), "fold": pa.array(columns.fold_N.astype(np.int32))}
    write_parquet(folder.honest_predictions, pa.table(names | kept))
    log_news(folder.submission_record, list_metrics(combinations, metric))
    return combinations, estimate_of_combination(folder, config, columns, cross_fitted_N, num_folds)


def _refuse_missing(folder: RunFolder, config: RunConfig, folds: Mapping[str, Sequence[int]]) -> None:
    """Raises NoSubmissionError where a fold of what is combined is not finished, or too few are."""
    combined = list_combined_folds(folder, config)
    for name in config.combined_members:
        if missing := sorted(set(combined) - set(folds[name])):
            raise NoSubmissionError(_explain_missing(config, name, missing, folds[name]))
    if reason := explain_part(folder, config, combined):
        raise NoSubmissionError(reason)


def _explain_missing(config: RunConfig, name: str, missing: list[int], finished: Sequence[int]) -> str:
    without = " without folds.only" if config.folds.only else ""
    whose = f" of member {name}" if name != MAIN else ""
    others = [other for other in config.combined_members if other != name]
    advice = f"; ensemble.members=[{','.join(others)}] leaves it out" if others else ""
    advice += "; ensemble.folds=finished combines the others" if finished else ""
    return f"folds {missing}{whose} are not trained; the same command{without} trains them{advice}"
