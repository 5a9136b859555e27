"""The submission stage: reads the folds' predictions, combines them, writes `oof.parquet`, the submission and its info.

A Ray task in a K-fold run; `submit.py` calls it directly. It trains nothing and can be repeated at any time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.combine import combine, normalise_weights, weights_from_scores
from ensemble.config import EnsembleConfig
from ensemble.diversity import describe_spread, spread
from ensemble.predictions import stack_models
from ensemble.scores import score
from ray_jobs.config import RunConfig
from ray_jobs.errors import RunFolderError
from ray_jobs.run_folder import (
    CHECKPOINTS,
    RunFolder,
    read_description,
    read_json,
    read_parquet,
    write_csv,
    write_json,
    write_parquet,
)
from ray_jobs.tracking.record import log_news


def run_ensemble_stage(root: str) -> dict[str, Any]:
    """Scores the finished folds and, when all are finished, writes the submission.

    Args:
        root: the run's folder.

    Returns:
        What `summary.json` says about `scores` and `submission`.

    Raises:
        RunFolderError: a file of a finished fold is damaged.
        PredictionError: the folds' files do not belong together.
    """
    folder = RunFolder(root)
    config = folder.read_config()
    refuse_damaged(folder, config.folds.count)
    folds = folder.completed_folds(config.folds.count)
    if not folds:
        return {"scores": None, "submission": {"created": False, "reason": "no fold is finished"}}
    scores = score_folds(folder, config, folds)
    submission, metrics = _write_submission(folder, config, folds, scores)
    log_news(folder.submission_record, metrics)
    return {"scores": scores, "submission": submission}


def refuse_damaged(folder: RunFolder, num_folds: int) -> None:
    """Compares what this stage reads of finished folds with their manifests: predictions, and what is said of checkpoints.

    Raises:
        RunFolderError: a file is damaged; the message names it, and the command that repairs it.
    """
    for fold in range(num_folds):
        files = folder.fold(fold)
        described = (str((files.checkpoint(name) / "checkpoint.json").relative_to(files.root)) for name in CHECKPOINTS)
        damaged = files.find_damage("predictions/", *described) if files.manifest.exists() else []
        if damaged:
            command = read_json(folder.provenance, default={}).get("command", "the command that trained the run")
            raise RunFolderError(
                f"{damaged[0]} is damaged or missing: `{command}` trains fold {fold} again, with the same bits"
            )


def score_folds(folder: RunFolder, config: RunConfig, folds: list[int]) -> dict[str, Any]:
    """Scores each finished fold and all of them together, and writes `oof.parquet`.

    The constant predictor of a fold is expm1 of its training rows' mean log1p: what a model has to beat.
    """
    tables = {c: [read_parquet(folder.fold(f).predictions("validation", c)) for f in folds] for c in CHECKPOINTS}
    chosen = pa.concat_tables(tables[config.ensemble.checkpoint])
    write_parquet(folder.oof, chosen)
    constants = read_json(folder.provenance)["constant_predictions"]
    by_fold = []
    for index, fold in enumerate(folds):
        table = tables["best"][index]
        target = table["target"].to_numpy()
        by_fold.append(
            {"fold": fold, "num_rows": len(target)}
            | {c: score(target, tables[c][index]["prediction"].to_numpy()) for c in CHECKPOINTS}
            | {"constant": score(target, np.full(len(target), constants[fold]))}
        )
    target = chosen["target"].to_numpy()
    constant = np.array([constants[fold] for fold in chosen["fold"].to_pylist()])
    overall = {c: score(target, pa.concat_tables(tables[c])["prediction"].to_numpy()) for c in CHECKPOINTS}
    return {
        "folds": by_fold,
        "out_of_fold": {"num_rows": len(target), "checkpoint": config.ensemble.checkpoint, **overall}
        | {"constant": score(target, constant)},
    }


def _write_submission(
    folder: RunFolder, config: RunConfig, folds: list[int], scores: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The submission's part of the summary, and its metrics."""
    wanted, ensemble = config.folds.count, config.ensemble
    has_test = folder.fold(folds[0]).predictions("test", ensemble.checkpoint).exists()
    if len(folds) < wanted or not has_test:
        missing = sorted(set(range(wanted)) - set(folds))
        reason = "the data has no test table"
        if missing:
            without = " without folds.only" if config.folds.only else ""
            reason = f"folds {missing} are not trained; the same command{without} trains them"
        return {"created": False, "reason": reason}, {"ensemble/submission_created": 0}
    tables = [read_parquet(folder.fold(fold).predictions("test", ensemble.checkpoint)) for fold in folds]
    ids, predictions_MN = stack_models(tables)
    weights = choose_weights(ensemble, scores)
    final_N = combine(predictions_MN, ensemble.method, ensemble.space, weights, ensemble.trim)
    models = [read_description(folder.fold(fold).checkpoint(ensemble.checkpoint)) for fold in folds]

    path = folder.submission(ensemble.method)
    target_name = read_json(folder.provenance)["target"]
    write_csv(path, ["ID", target_name], [[row_id, repr(float(v))] for row_id, v in zip(ids, final_N, strict=True)])
    _write_test_predictions(folder, ids, predictions_MN, final_N)
    info = _describe_submission(ensemble, folds, models, weights, predictions_MN, final_N)
    write_json(path.with_suffix(".json"), info)
    metrics = _list_metrics(info, models, folds, str(path), weights)
    return {"created": True, "path": str(path), **info}, metrics


def choose_weights(ensemble: EnsembleConfig, scores: dict[str, Any]) -> np.ndarray | None:
    """One weight for each fold model; None for methods without weights."""
    if ensemble.method != "weighted_mean":
        return None
    if ensemble.weights is not None:
        return normalise_weights(ensemble.weights, len(scores["folds"]))
    return weights_from_scores(np.array([fold[ensemble.checkpoint]["msle"] for fold in scores["folds"]]))


def _describe_submission(
    ensemble: EnsembleConfig,
    folds: list[int],
    models: list[dict[str, Any]],
    weights: np.ndarray | None,
    predictions_MN: np.ndarray,
    final_N: np.ndarray,
) -> dict[str, Any]:
    spread_of_rows = describe_spread(predictions_MN)
    return {
        "method": ensemble.method,
        "space": ensemble.space,
        "trim": ensemble.trim if ensemble.method == "trimmed_mean" else None,
        "n_models": len(folds),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(final_N),
        "mean_std": spread_of_rows["pred_std_mean"],
        **spread_of_rows,
        "weights": None if weights is None else weights.tolist(),
        "model_weights": [
            {"fold": fold, "epoch": model["epoch"], **model["model_summary"]}
            for fold, model in zip(folds, models, strict=True)
        ],
        "final_pred_min": float(final_N.min()),
        "final_pred_max": float(final_N.max()),
        "final_pred_mean": float(final_N.mean()),
        "final_pred_std": float(final_N.std()),
    }


def _list_metrics(
    info: dict[str, Any], models: list[dict[str, Any]], folds: list[int], path: str, weights: np.ndarray | None
) -> dict[str, Any]:
    summaries = [model["model_summary"] for model in models]
    names = list(summaries[0])
    by_model = {f"ensemble/model_{f}/{name}": s[name] for f, s in zip(folds, summaries, strict=True) for name in names}
    if weights is not None:
        by_model |= {f"ensemble/model_{f}_weight": float(w) for f, w in zip(folds, weights, strict=True)}
    copied = ("prediction_diversity", "pred_std_mean", "pred_std_max", "pred_std_min", "method", "space", "n_models")
    copied += ("test_samples", "final_pred_min", "final_pred_max", "final_pred_mean", "final_pred_std")
    table = {
        "columns": ["fold", *(name.removesuffix("_weight") for name in names)],
        "data": [[fold, *summary.values()] for fold, summary in zip(folds, summaries, strict=True)],
    }
    return {
        **{f"ensemble/{name}": info[name] for name in copied},
        "ensemble/checkpoint_type": info["checkpoints"],
        **by_model,
        "ensemble/submission_created": 1,
        "ensemble/submission_path": path,
        "ensemble/model_weights": table,
    }


def _write_test_predictions(
    folder: RunFolder, ids: np.ndarray, predictions_MN: np.ndarray, final_N: np.ndarray
) -> None:
    """Each model's prediction of each test row beside the combined one and their standard deviation."""
    columns = {"id": pa.array([str(i) for i in ids])}
    columns |= {f"model_{number}": pa.array(row) for number, row in enumerate(predictions_MN)}
    columns |= {"prediction": pa.array(final_N), "std": pa.array(spread(predictions_MN))}
    write_parquet(folder.test_predictions, pa.table(columns))
