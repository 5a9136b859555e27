"""Writes a submission: the combined predictions of the test rows, what was combined and how, and the metrics that say so.

What is combined is the fold models of one member or, where there are several, the members.

Shape suffixes: M models that are combined, N test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.config import EnsembleConfig
from ensemble.members.combinations import Columns, Combination, Settled, settle
from ensemble.numbers.combine import normalise_weights, weights_from_scores
from ensemble.numbers.diversity import describe_spread, spread
from ray_jobs.config.run import RunConfig
from ray_jobs.results.columns import combines_folds, read_test
from ray_jobs.results.intervals import Intervals, build_intervals
from ray_jobs.runs.checkpoints import read_description
from ray_jobs.runs.files import read_json, write_csv, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder, find_members


class NoSubmissionError(Exception):
    """There is nothing to submit; the message says why."""


@dataclass(frozen=True)
class Model:
    """One of the models that are combined.

    Attributes:
        label: `{"fold": 0}` or `{"member": "wide"}`, and what else is known of it.
        summary: numbers that its family tells about it, such as the weights of its parts.
    """

    label: dict[str, Any]
    summary: dict[str, float]


def submit(
    folder: RunFolder, config: RunConfig, columns: Columns | None, scores: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Combines the test predictions of the members or, with one member, of its fold models.

    Args:
        folder: the run; all folds of what is combined are finished.
        config: of the run.
        columns: what weights are fitted to; None: nothing can be fitted.
        scores: of each member, by name.

    Returns:
        The submission's part of the summary, and its metrics.

    Raises:
        NoSubmissionError: there are no test rows.
    """
    ensemble = config.ensemble
    test = read_test(folder, config)
    if test is None:
        raise NoSubmissionError("the data has no test table")
    ids, predictions_MN = test
    settled = settle_ensemble(config, columns, scores)
    final_N, weights_M, intercept = settled.predict(predictions_MN), settled.weights_M, settled.intercept
    more: dict[str, Any] = {"intercept": intercept} if intercept else {}
    if combines_folds(config):
        models = _describe_folds(folder.of_member(config.combined_members[0]), config)
    else:
        assert columns is not None, "members are combined by their out-of-fold predictions"
        folders = find_members(folder, config)
        models = [Model({"member": name}, _average_summaries(folders.get(name), config)) for name in columns.names]
        more["fold_method"] = ensemble.fold_method
    intervals = None
    if ensemble.interval is not None:
        intervals = build_intervals(folder, config, ids, settled)
        more["interval"] = intervals.facts
    return _write(folder, ensemble, models, ids, predictions_MN, final_N, weights_M, intervals, more)


def settle_ensemble(config: RunConfig, columns: Columns | None, scores: dict[str, Any]) -> Settled:
    """The run's combination with its weights; arguments as in `submit`."""
    how = Combination.from_config(config.ensemble)
    if columns is not None:
        return settle(how, columns)
    return Settled(how, choose_weights(config.ensemble, scores[config.combined_members[0]]))


def _describe_folds(member: RunFolder, config: RunConfig) -> list[Model]:
    folds = range(config.folds.count)
    described = [read_description(member.fold(fold).checkpoint(config.ensemble.checkpoint)) for fold in folds]
    return [
        Model({"fold": fold, "epoch": model["epoch"]}, model["model_summary"])
        for fold, model in zip(folds, described, strict=True)
    ]


def _average_summaries(member: RunFolder | None, config: RunConfig) -> dict[str, float]:
    """What a member's fold models say of themselves, on average; nothing of a member that was made elsewhere."""
    if member is None:
        return {}
    places = [member.fold(fold).checkpoint(config.ensemble.checkpoint) for fold in range(config.folds.count)]
    summaries = [read_description(place)["model_summary"] for place in places]
    return {name: float(np.mean([summary[name] for summary in summaries])) for name in summaries[0]}


def choose_weights(ensemble: EnsembleConfig, scores: dict[str, Any]) -> np.ndarray | None:
    """One weight for each fold model, by `ensemble.metric` where none are given; None for methods without weights."""
    if ensemble.method != "weighted_mean":
        return None
    if ensemble.weights is not None:
        return normalise_weights(ensemble.weights, len(scores["folds"]))
    return weights_from_scores(
        np.array([fold[ensemble.checkpoint][ensemble.metric] for fold in scores["folds"]]), ensemble.weight_power
    )


def _write(
    folder: RunFolder,
    ensemble: EnsembleConfig,
    models: list[Model],
    ids: np.ndarray,
    predictions_MN: np.ndarray,
    final_N: np.ndarray,
    weights_M: np.ndarray | None,
    intervals: Intervals | None,
    more: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder.submission(ensemble.method)
    target_name = read_json(folder.provenance)["target"]
    columns = {target_name: final_N}
    if intervals is not None:
        columns |= {f"{target_name}_low": intervals.low_T, f"{target_name}_high": intervals.high_T}
    rows = zip(ids, *columns.values(), strict=True)
    write_csv(path, ["ID", *columns], [[row_id, *(repr(float(value)) for value in values)] for row_id, *values in rows])
    _write_test_predictions(folder, ids, predictions_MN, final_N)
    info = _describe(ensemble, models, weights_M, predictions_MN, final_N) | more
    write_json(path.with_suffix(".json"), info)
    return {"path": str(path), **info}, _list_metrics(info, models, str(path), weights_M)


def _describe(
    ensemble: EnsembleConfig,
    models: list[Model],
    weights_M: np.ndarray | None,
    predictions_MN: np.ndarray,
    final_N: np.ndarray,
) -> dict[str, Any]:
    spread_of_rows = describe_spread(predictions_MN)
    return {
        "method": ensemble.method,
        "space": ensemble.space,
        "trim": ensemble.trim if ensemble.method == "trimmed_mean" else None,
        "n_models": len(models),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(final_N),
        "mean_std": spread_of_rows["pred_std_mean"],
        **spread_of_rows,
        "weights": None if weights_M is None else weights_M.tolist(),
        "model_weights": [{**model.label, **model.summary} for model in models],
        "final_pred_min": float(final_N.min()),
        "final_pred_max": float(final_N.max()),
        "final_pred_mean": float(final_N.mean()),
        "final_pred_std": float(final_N.std()),
    }


def _list_metrics(info: dict[str, Any], models: list[Model], path: str, weights_M: np.ndarray | None) -> dict[str, Any]:
    names = list(dict.fromkeys(name for model in models for name in model.summary))
    by_model = {f"ensemble/model_{i}/{name}": value for i, m in enumerate(models) for name, value in m.summary.items()}
    if weights_M is not None:
        by_model |= {f"ensemble/model_{i}_weight": float(weight) for i, weight in enumerate(weights_M)}
    copied: tuple[str, ...] = (
        "prediction_diversity",
        "pred_std_mean",
        "pred_std_max",
        "pred_std_min",
        "method",
        "space",
        "n_models",
    )
    copied += ("test_samples", "final_pred_min", "final_pred_max", "final_pred_mean", "final_pred_std")
    kind = next(iter(models[0].label))  # fold or member
    table = {
        "columns": [kind, *(name.removesuffix("_weight") for name in names)],
        "data": [[model.label[kind], *(model.summary.get(name) for name in names)] for model in models],
    }
    return {
        **{f"ensemble/{name}": info[name] for name in copied},
        "ensemble/checkpoint_type": info["checkpoints"],
        **by_model,
        "ensemble/submission_created": 1,
        "ensemble/submission_path": path,
        "ensemble/model_weights": table,
        **{f"ensemble/interval_{name}": value for name, value in info.get("interval", {}).items() if value is not None},
    }


def _write_test_predictions(
    folder: RunFolder, ids: np.ndarray, predictions_MN: np.ndarray, final_N: np.ndarray
) -> None:
    """Each model's prediction of each test row beside the combined one and their standard deviation."""
    columns = {"id": pa.array([str(i) for i in ids])}
    columns |= {f"model_{number}": pa.array(row) for number, row in enumerate(predictions_MN)}
    columns |= {"prediction": pa.array(final_N), "std": pa.array(spread(predictions_MN))}
    write_parquet(folder.test_predictions, pa.table(columns))
