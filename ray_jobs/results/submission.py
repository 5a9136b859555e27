"""Writes a submission: the combined predictions of the test rows, what was combined and how, and the metrics that say
so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.run import Combinable, Model, Run
from ray_jobs.config.json_fields import from_json, to_json
from ray_jobs.config.run import RunConfig
from ray_jobs.results.run_files import describe_models, open_materials
from ray_jobs.results.wording import describe_part_of_folds
from ray_jobs.runs.files import write_csv, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import ScoredModel, Scores, SubmissionRecord

_FACTS = (
    *("method", "n_models", "test_samples", "prediction_diversity", "pred_std_mean", "pred_std_max", "pred_std_min"),
    *("final_pred_min", "final_pred_max", "final_pred_mean", "final_pred_std"),
)


def submit(
    folder: RunFolder, config: RunConfig, run: Run, columns: Combinable | None, scores: Mapping[str, Scores]
) -> tuple[SubmissionRecord, dict[str, Any], dict[str, tuple[ScoredModel, ...]] | None]:
    """Combines the test predictions of the members or, with one member, of its fold models.

    Args:
        folder, config, run: all folds of what is combined are finished.
        columns: what weights are fitted to; None: nothing can be fitted.
        scores: of each member, by name.

    Returns:
        The submission's part of the summary, its metrics, and what was compared of it, if anything was.

    Raises:
        NoSubmissionError: there are no test rows.
    """
    models = describe_models(folder, config, () if columns is None else columns.names)
    submission = config.kind.submit(run, columns, lambda: to_json(scores), models, open_materials(folder, config))
    path = folder.submission(config.ensemble.method)
    facts = submission.facts | describe_part_of_folds(run.folds, config.folds.count)
    write_csv(path, submission.header, submission.rows)
    write_parquet(folder.test_predictions, submission.table)
    write_json(path.with_suffix(".json"), facts)
    metrics = _list_metrics(facts, models, str(path)) | submission.metrics
    compared = {part: tuple(from_json(ScoredModel, row) for row in rows) for part, rows in submission.compared.items()}
    return SubmissionRecord(created=True, path=str(path), facts=facts), metrics, compared or None


def _list_metrics(facts: Mapping[str, Any], models: Sequence[Model], path: str) -> dict[str, Any]:
    names = list(dict.fromkeys(name for model in models for name in model.summary))
    by_model = {f"ensemble/model_{i}/{name}": value for i, m in enumerate(models) for name, value in m.summary.items()}
    by_model |= {f"ensemble/model_{i}_weight": weight for i, weight in enumerate(facts["weights"] or ())}
    label = next(iter(models[0].label))  # fold or member
    table = {
        "columns": [label, *(name.removesuffix("_weight") for name in names)],
        "data": [[model.label[label], *(model.summary.get(name) for name in names)] for model in models],
    }
    return {
        **{f"ensemble/{name}": facts[name] for name in _FACTS},
        "ensemble/checkpoint_type": facts["checkpoints"],
        **by_model,
        "ensemble/submission_created": 1,
        "ensemble/submission_path": path,
        "ensemble/model_weights": table,
    }
