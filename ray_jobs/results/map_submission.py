"""Combines the fold models' maps of the test rows, compares every way to combine them where the truth is known, and writes what is to
be seen. It knows nothing of what the maps are of.

    masks/test/<id>.png           the class of each place
    overlays/test/<id>.png        the same over what it lies on, true edges in white
    disagreement/test/<id>.png    where the models differ: their standard deviation, white a half

Shape suffixes: M models, T test rows, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.config import MAP_METHODS
from ensemble.maps.combine import choose_classes, combine_maps, measure_disagreement
from ensemble.maps.files import StoredMap, read_maps, to_png
from ensemble.maps.overlays import draw_overlay, to_heat, to_mask_picture
from ensemble.numbers.combine import normalise_weights, weights_from_scores
from ensemble.predictions import PredictionError
from ray_jobs.config.run import RunConfig
from ray_jobs.results.map_scores import METRICS, Tally, count_classes, measure_share, open_backgrounds
from ray_jobs.runs.checkpoints import read_description
from ray_jobs.runs.files import read_json, write_csv, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from trainers.storage.whole_files import write_whole


def choose_map_weights(config: RunConfig, scores: dict[str, Any]) -> np.ndarray | None:
    """One weight for each fold model; None for methods without."""
    ensemble = config.ensemble
    if ensemble.method != "weighted_mean":
        return None
    if ensemble.weights is not None:
        return normalise_weights(ensemble.weights, len(scores["folds"]))
    return _weigh_by_score(config, scores)


def _weigh_by_score(config: RunConfig, scores: dict[str, Any]) -> np.ndarray:
    ensemble = config.ensemble
    errors_M = np.array([1 - fold[ensemble.checkpoint][ensemble.metric] for fold in scores["folds"]])
    return weights_from_scores(errors_M, ensemble.weight_power)


def submit_maps(
    folder: RunFolder, config: RunConfig, scores: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Combines the fold models' maps of the test rows and writes masks, overlays, disagreement and a table of all rows.

    Returns:
        The submission's part of the summary and its metrics; None without test rows.

    Raises:
        PredictionError: the folds' files do not hold the same rows.
    """
    ensemble = config.ensemble
    if not _has(folder, config, "test"):
        return None
    weights_M = choose_map_weights(config, scores)
    background = open_backgrounds(folder, config, "test")
    rows, by_model, comparison = [], [], _Comparison(config, _weigh_by_score(config, scores))
    for models, probability_MCHW in _read_together(folder, config, "test"):
        said_HW = choose_classes(
            combine_maps(probability_MCHW, ensemble.method, weights_M, ensemble.threshold), ensemble.threshold
        )
        target_HW = models[0].target_HW
        found = comparison.add(probability_MCHW, said_HW, target_HW)
        disagreement_HW = measure_disagreement(probability_MCHW)
        row_id = models[0].row_id
        _draw_test(folder, row_id, background(row_id), said_HW, target_HW, disagreement_HW, count_classes(models[0]))
        rows.append(
            (row_id, measure_share(said_HW), float(disagreement_HW.mean()), found.get("dice"), found.get("iou"))
        )
        by_model.append([measure_share(choose_classes(one.probability_CHW, ensemble.threshold)) for one in models])
    return _write_submission(folder, config, weights_M, rows, np.array(by_model).T, comparison)


def compare_on_blend(folder: RunFolder, config: RunConfig, scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Each fold model and each method on the blend set, which no model has seen; empty without one."""
    if not _has(folder, config, "blend"):
        return []
    weights_M, comparison = choose_map_weights(config, scores), _Comparison(config, _weigh_by_score(config, scores))
    for models, probability_MCHW in _read_together(folder, config, "blend"):
        combined_CHW = combine_maps(probability_MCHW, config.ensemble.method, weights_M, config.ensemble.threshold)
        comparison.add(probability_MCHW, choose_classes(combined_CHW, config.ensemble.threshold), models[0].target_HW)
    return comparison.list_rows()


def _has(folder: RunFolder, config: RunConfig, part: str) -> bool:
    return folder.fold(0).predictions(part, config.ensemble.checkpoint).exists()


def _read_together(
    folder: RunFolder, config: RunConfig, part: str
) -> Iterator[tuple[tuple[StoredMap, ...], np.ndarray]]:
    """What every fold model predicts of each row of the test or the blend rows, and its probabilities (M, C, H, W).

    Raises:
        PredictionError: the folds' files do not hold the same rows.
    """
    folds = range(config.folds.count)
    paths = [folder.fold(fold).predictions(part, config.ensemble.checkpoint) for fold in folds]
    for models in zip(*map(read_maps, paths), strict=True):
        ids = {stored.row_id for stored in models}
        if len(ids) != 1:
            raise PredictionError(f"the folds' {part} maps are not of the same rows: {', '.join(sorted(ids))}")
        yield models, np.stack([stored.probability_CHW for stored in models])


class _Comparison:
    """Each fold model and each method on rows whose truth is known and which no model has seen.

    Args:
        config: of the run.
        weights_M: by validation score, for the weighted mean.
    """

    def __init__(self, config: RunConfig, weights_M: np.ndarray) -> None:
        self.config, self.weights_M = config, weights_M
        self.tallies: dict[tuple[str, str], Tally] = {}

    def add(self, probability_MCHW: np.ndarray, said_HW: np.ndarray, target_HW: np.ndarray | None) -> dict[str, float]:
        """Takes in a row; returns the scores of what is submitted, if the truth is known."""
        if target_HW is None:
            return {}
        threshold, num_classes = self.config.ensemble.threshold, max(2, probability_MCHW.shape[1])
        said = {
            ("model", f"fold {number}"): choose_classes(one, threshold) for number, one in enumerate(probability_MCHW)
        }
        for method in MAP_METHODS:
            weights_M = self.weights_M if method == "weighted_mean" else None
            said["combination", method] = choose_classes(
                combine_maps(probability_MCHW, method, weights_M, threshold), threshold
            )
        for key, classes_HW in said.items():
            self.tallies.setdefault(key, Tally(num_classes)).add(classes_HW, target_HW)
        submitted = self.tallies.setdefault(("submitted", self.config.ensemble.method), Tally(num_classes))
        return submitted.add(said_HW, target_HW)

    def list_rows(self) -> list[dict[str, Any]]:
        """`kind` (model, combination or submitted), `name`, `num_rows` and scores of each."""
        return [
            {"kind": kind, "name": name, "num_rows": len(tally.dice), **tally.score()}
            for (kind, name), tally in self.tallies.items()
        ]


def _draw_test(
    folder: RunFolder,
    row_id: str,
    background_HW3: np.ndarray,
    said_HW: np.ndarray,
    target_HW: np.ndarray | None,
    disagreement_HW: np.ndarray,
    num_classes: int,
) -> None:
    pictures = {
        folder.masks: to_mask_picture(said_HW, num_classes),
        folder.overlays: draw_overlay(background_HW3, said_HW, target_HW),
        folder.disagreement: to_heat(disagreement_HW),
    }
    for place, values in pictures.items():
        write_whole(place / "test" / f"{row_id}.png", to_png(values))


def _write_submission(
    folder: RunFolder,
    config: RunConfig,
    weights_M: np.ndarray | None,
    rows: list[tuple[Any, ...]],
    share_MT: np.ndarray,
    comparison: _Comparison,
) -> tuple[dict[str, Any], dict[str, Any]]:
    ensemble, path = config.ensemble, folder.submission(config.ensemble.method)
    target_name = read_json(folder.provenance)["target"]
    knows = any(row[3] is not None for row in rows)
    header = ["ID", target_name, "disagreement", *(METRICS if knows else ()), "mask"]
    lines = [[*map(_cell, row[: 5 if knows else 3]), f"masks/test/{row[0]}.png"] for row in rows]
    write_csv(path, header, lines)
    ids, share_T, disagreement_T = (np.array([row[part] for row in rows]) for part in range(3))
    columns = {"id": pa.array(ids.tolist())} | {f"model_{n}": pa.array(one) for n, one in enumerate(share_MT)}
    columns |= {"prediction": pa.array(share_T), "std": pa.array(disagreement_T)}
    write_parquet(folder.test_predictions, pa.table(columns))
    spread = {"prediction_diversity": disagreement_T.mean(), "pred_std_mean": disagreement_T.mean()}
    spread |= {"pred_std_max": disagreement_T.max(), "pred_std_min": disagreement_T.min()}
    described = [read_description(folder.fold(f).checkpoint(ensemble.checkpoint)) for f in range(config.folds.count)]
    compared = comparison.list_rows()
    info = {
        "method": ensemble.method, "threshold": ensemble.threshold, "n_models": config.folds.count,
        "checkpoints": ensemble.checkpoint, "test_samples": len(rows), "mean_std": float(disagreement_T.mean()),
        **{name: float(value) for name, value in spread.items()},
        "weights": None if weights_M is None else weights_M.tolist(),
        "model_weights": [{"fold": fold, "epoch": one["epoch"]} for fold, one in enumerate(described)],
        **{f"final_pred_{n}": float(getattr(share_T, n)()) for n in ("min", "max", "mean", "std")},
        "compared": compared,
    }  # fmt: skip
    write_json(path.with_suffix(".json"), info)
    return {"path": str(path), **info}, _list_metrics(info, str(path), weights_M)


def _cell(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, str) else repr(float(value))


def _list_metrics(info: dict[str, Any], path: str, weights_M: np.ndarray | None) -> dict[str, Any]:
    copied: tuple[str, ...] = (
        "method",
        "n_models",
        "test_samples",
        "prediction_diversity",
        "pred_std_mean",
        "pred_std_max",
        "pred_std_min",
    )
    copied += ("final_pred_min", "final_pred_max", "final_pred_mean", "final_pred_std")
    metrics = {f"ensemble/{name}": info[name] for name in copied}
    if weights_M is not None:
        metrics |= {f"ensemble/model_{i}_weight": float(weight) for i, weight in enumerate(weights_M)}
    submitted = next((row for row in info["compared"] if row["kind"] == "submitted"), None)
    if submitted:
        metrics |= {f"ensemble/test_{name}": submitted[name] for name in METRICS}
        columns = list(submitted)
        metrics["ensemble/compared"] = {
            "columns": columns,
            "data": [[row[c] for c in columns] for row in info["compared"]],
        }
    return metrics | {
        "ensemble/checkpoint_type": info["checkpoints"],
        "ensemble/space": "probability",
        "ensemble/submission_created": 1,
        "ensemble/submission_path": path,
        "ensemble/model_weights": {"columns": ["fold"], "data": [[model["fold"]] for model in info["model_weights"]]},
    }
