"""The ensemble stage of a family that predicts maps: scores the folds' maps, combines those of the test rows, and writes what is to be
seen of both. It knows nothing of what the maps are of.

    masks/{out_of_fold,test}/<id>.png       the class of each place
    overlays/{out_of_fold,test}/<id>.png    the same over what it lies on, true edges in white; of many rows some, from worst to best
    disagreement/test/<id>.png              where the models differ: their standard deviation, white a half

Shape suffixes: M models, K classes but the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.combine import normalise_weights, weights_from_scores
from ensemble.config import MAP_METHODS
from ensemble.diversity import describe_spread
from ensemble.map_files import StoredMap, read_maps, to_png
from ensemble.maps import choose_classes, combine_maps, count_places, measure_disagreement, score_counts
from ensemble.overlays import draw_overlay, to_heat, to_mask_picture
from ensemble.predictions import PredictionError, build_table
from ray_jobs.config import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.run_folder import (
    CHECKPOINTS,
    RunFolder,
    read_description,
    read_json,
    write_csv,
    write_json,
    write_parquet,
    write_whole,
)
from trainers.interface import load_inventory_module

METRICS = ("dice", "iou")  # higher is better
MOST_OVERLAYS = 100


def check_map_ensemble(config: RunConfig) -> None:
    """What of the ensemble's config does not fit maps.

    Raises:
        RunError: the message says what is on offer.
    """
    ensemble = config.ensemble
    if ensemble.method not in MAP_METHODS:
        raise RunError(f"ensemble.method={ensemble.method}: maps are combined by one of {', '.join(MAP_METHODS)}")
    if ensemble.metric not in METRICS:
        raise RunError(f"ensemble.metric={ensemble.metric}: maps are compared by {' or '.join(METRICS)}")
    unfit = {"interval": "intervals are of numbers", "external": "predictions made elsewhere are numbers"}
    for name, reason in unfit.items():
        if getattr(ensemble, name) is not None:
            raise RunError(f"ensemble.{name}={getattr(ensemble, name)}: {reason}, and this family predicts maps")
    if config.members:
        raise RunError(
            "members: a family that predicts maps combines its fold models only; train each variant as a run"
        )


class Tally:
    """Counts of right, said and true places of some rows, and each row's scores.

    Args:
        num_classes: the background included.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes, self.num_places = num_classes, 0
        self.counts_3K = np.zeros((3, num_classes - 1), np.int64)
        self.dice: list[float] = []

    def add(self, said_HW: np.ndarray, true_HW: np.ndarray) -> dict[str, float]:
        """Takes in a row; returns its scores."""
        counts_3K = count_places(said_HW, true_HW, self.num_classes)
        self.counts_3K += counts_3K
        self.num_places += int((true_HW != 255).sum())
        scores = score_counts(counts_3K)
        self.dice.append(scores["dice"])
        return scores

    def score(self) -> dict[str, float]:
        """Dice and IoU of all places together, and the mean over the rows of their Dice."""
        return {**score_counts(self.counts_3K), "dice_of_rows": float(np.mean(self.dice)) if self.dice else 1.0}

    def score_constant(self) -> dict[str, float]:
        """The scores of saying one class everywhere, the best but the background: what a model has to beat."""
        true_K, best = self.counts_3K[2], dict.fromkeys((*METRICS, "dice_of_rows"), 0.0)
        for number in range(self.num_classes - 1):
            counts_3K = np.stack([np.zeros_like(true_K), np.zeros_like(true_K), true_K])
            counts_3K[0, number], counts_3K[1, number] = true_K[number], self.num_places
            best = max(best, {**best, **score_counts(counts_3K)}, key=lambda scores: scores["dice"])
        return best

    def merge(self, other: Tally) -> None:
        """Takes in the rows of another."""
        self.counts_3K += other.counts_3K
        self.num_places += other.num_places
        self.dice += other.dice


def count_classes(stored: StoredMap) -> int:
    """Classes of a map, the background included."""
    return max(2, len(stored.probability_CHW))


def score_map_folds(folder: RunFolder, config: RunConfig, folds: list[int]) -> tuple[dict[str, Any], pa.Table]:
    """Scores each finished fold and all of them together, and writes the masks that they predict out of fold.

    Returns:
        The scores, shaped as those of numbers are, and a row for each row that a fold validated: its true and predicted share of
        foreground, Dice and IoU.
    """
    chosen, by_fold, tables = config.ensemble.checkpoint, [], []
    overall: dict[str, Tally] = {}
    for fold in folds:
        tallies = {}
        for checkpoint in CHECKPOINTS:
            path = folder.fold(fold).predictions("validation", checkpoint)
            writes = checkpoint == chosen
            tallies[checkpoint], table = _score_file(folder, config, read_maps(path), fold, checkpoint, writes=writes)
            tables += [table] if writes else []
            overall.setdefault(checkpoint, Tally(tallies[checkpoint].num_classes)).merge(tallies[checkpoint])
        constant = tallies[chosen].score_constant()
        row = {"fold": fold, "num_rows": len(tallies[chosen].dice), "constant": constant}
        by_fold.append(row | {name: tally.score() for name, tally in tallies.items()})
    total = {"num_rows": len(overall[chosen].dice), "checkpoint": chosen, "constant": overall[chosen].score_constant()}
    scores = {"folds": by_fold, "out_of_fold": total | {name: tally.score() for name, tally in overall.items()}}
    return scores, pa.concat_tables(tables)


def _score_file(
    folder: RunFolder, config: RunConfig, maps: Iterator[StoredMap], fold: int, checkpoint: str, *, writes: bool
) -> tuple[Tally, pa.Table]:
    tally, rows = None, []
    for stored in maps:
        tally = tally or Tally(count_classes(stored))
        said_HW = choose_classes(stored.probability_CHW, config.ensemble.threshold)
        scores = tally.add(said_HW, stored.target_HW)
        rows.append(
            (
                stored.row_id,
                *(_share(classes) for classes in (stored.target_HW, said_HW)),
                scores["dice"],
                scores["iou"],
            )
        )
        if writes:
            picture = to_png(to_mask_picture(said_HW, tally.num_classes))
            write_whole(folder.masks / "out_of_fold" / f"{stored.row_id}.png", picture)
    if tally is None:
        raise PredictionError(f"fold {fold} ({checkpoint}) of {folder.root} has no map")
    ids, true, said, dice, iou = zip(*rows, strict=True)
    table = build_table(
        np.array(ids),
        np.array(said),
        np.array(said),
        np.array(true),
        fold=fold,
        checkpoint=checkpoint,
        member=folder.member,
    )
    return tally, table.append_column("dice", pa.array(dice)).append_column("iou", pa.array(iou))


def _share(classes_HW: np.ndarray) -> float:
    """The share of the places that count which are not background."""
    counted = classes_HW[classes_HW != 255]
    return float((counted != 0).mean()) if counted.size else 0.0


def draw_out_of_fold(folder: RunFolder, config: RunConfig, oof: pa.Table) -> None:
    """Overlays of rows from the worst Dice to the best."""
    names, values = oof["id"].to_pylist(), oof["dice"].to_numpy()
    wanted = {names[place] for place in spread_ranks(values, MOST_OVERLAYS)}
    background = _open_backgrounds(folder, config, "train")
    for fold in sorted(set(oof["fold"].to_pylist())):
        for stored in read_maps(folder.fold(fold).predictions("validation", config.ensemble.checkpoint)):
            if stored.row_id in wanted:
                said_HW = choose_classes(stored.probability_CHW, config.ensemble.threshold)
                overlay = draw_overlay(background(stored.row_id), said_HW, stored.target_HW)
                write_whole(folder.overlays / "out_of_fold" / f"{stored.row_id}.png", to_png(overlay))


def spread_ranks(values: np.ndarray, number: int) -> list[int]:
    """The places of at most `number` of the values, evenly spread over their ranks, the lowest first and the highest last."""
    order = np.argsort(values, kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(number, len(order))).round().astype(int))
    return order[ranks].tolist()


def _open_backgrounds(folder: RunFolder, config: RunConfig, table: str) -> Callable[[str], np.ndarray]:
    return load_inventory_module(config.family).open_backgrounds(config.trainer, folder.inputs, table)


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
    ensemble, folds = config.ensemble, range(config.folds.count)
    paths = [folder.fold(fold).predictions("test", ensemble.checkpoint) for fold in folds]
    if not paths[0].exists():
        return None
    weights_M = choose_map_weights(config, scores)
    background = _open_backgrounds(folder, config, "test")
    rows, by_model, comparison = [], [], _Comparison(config, _weigh_by_score(config, scores))
    for models in zip(*map(read_maps, paths), strict=True):
        ids = {stored.row_id for stored in models}
        if len(ids) != 1:
            raise PredictionError(f"the folds' test maps are not of the same rows: {', '.join(sorted(ids))}")
        probability_MCHW = np.stack([stored.probability_CHW for stored in models])
        said_HW = choose_classes(combine_maps(probability_MCHW, ensemble.method, weights_M), ensemble.threshold)
        target_HW = models[0].target_HW
        found = comparison.add(probability_MCHW, said_HW, target_HW)
        disagreement_HW = measure_disagreement(probability_MCHW)
        row_id = models[0].row_id
        _draw_test(folder, row_id, background(row_id), said_HW, target_HW, disagreement_HW, count_classes(models[0]))
        rows.append((row_id, _share(said_HW), float(disagreement_HW.mean()), found.get("dice"), found.get("iou")))
        by_model.append([_share(choose_classes(one.probability_CHW, ensemble.threshold)) for one in models])
    return _write_submission(folder, config, weights_M, rows, np.array(by_model).T, comparison)


class _Comparison:
    """Each fold model and each method on the test rows whose truth is known, which no model has seen.

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
            said["combination", method] = choose_classes(combine_maps(probability_MCHW, method, weights_M), threshold)
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
    rows: list[tuple],
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
        "share_spread": describe_spread(share_MT)["pred_std_mean"],
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
    copied = (
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
