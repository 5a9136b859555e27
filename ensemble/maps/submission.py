"""What is submitted of maps: the class of each place of each test row, and what is to be seen of it. Every way to
combine the models is compared where the truth is known. It knows nothing of what the maps are of.

    masks/out_of_fold/<id>.png       the class of each place, by the model that did not train on the row
    overlays/out_of_fold/<id>.png    the same over what it lies on, true edges in white; of many rows some, from worst
                                     to best
    masks/test/<id>.png              the class of each place, by the ensemble
    overlays/test/<id>.png           the same over what it lies on
    disagreement/test/<id>.png       where the models differ: their standard deviation, white a half

Shape suffixes: M models, T test rows, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.config import MAP_METHODS, EnsembleConfig
from ensemble.maps.columns import MapColumns, read_columns, weigh
from ensemble.maps.combine import choose_classes, combine_folds, combine_maps, measure_disagreement
from ensemble.maps.files import StoredMap, read_maps, read_together, to_png
from ensemble.maps.overlays import draw_overlay, spread_ranks, to_heat, to_mask_picture
from ensemble.maps.scores import METRICS, count_classes, count_map, measure_share, score_maps
from ensemble.run import FoldFiles, Materials, Model, NoSubmissionError, Run, Submission

MOST_OVERLAYS = 100


def draw_out_of_fold(
    ensemble: EnsembleConfig, folds: Sequence[FoldFiles], lines: pa.Table, materials: Materials
) -> None:
    """Masks of all rows, and overlays of rows from the worst Dice to the best."""
    names, values = lines["id"].to_pylist(), lines["dice"].to_numpy()
    wanted = {names[place] for place in spread_ranks(values, MOST_OVERLAYS)}
    background = materials.open_backgrounds("train")
    for fold in sorted(set(lines["fold"].to_pylist())):
        for stored in read_maps(folds[fold].predictions("validation", ensemble.checkpoint)):
            predicted_HW = choose_classes(stored.probability_CHW, ensemble.threshold)
            picture = to_mask_picture(predicted_HW, count_classes(stored.probability_CHW))
            materials.write(f"masks/out_of_fold/{stored.row_id}.png", to_png(picture))
            if stored.row_id in wanted:
                overlay = draw_overlay(background(stored.row_id), predicted_HW, stored.target_HW)
                materials.write(f"overlays/out_of_fold/{stored.row_id}.png", to_png(overlay))


def choose_weights(
    run: Run, columns: MapColumns | None, read_scores: Callable[[], Mapping[str, Any]]
) -> np.ndarray | None:
    """One weight for each of what is combined; None for methods without. Arguments as in `Kind.submit`; columns are
    read if need be."""
    ensemble = run.ensemble
    if ensemble.method != "weighted_mean":
        return None
    if ensemble.weights is not None:
        return normalise_weights(ensemble.weights, len(run.model_names))
    return _weigh_by_score(run, columns, read_scores)


def _weigh_by_score(run: Run, columns: MapColumns | None, read_scores: Callable[[], Mapping[str, Any]]) -> np.ndarray:
    """Of members by their out-of-fold errors, of fold models by those on the rows that each validates."""
    ensemble = run.ensemble
    if not run.combines_folds:
        columns = columns or read_columns(run, ensemble.checkpoint)
        how = Combination("weighted_mean", None, ensemble.metric, weight_power=ensemble.weight_power)
        return weigh(how, columns.target_N, columns.oof_MN)
    folds = read_scores()[next(iter(run.members))]["folds"]
    errors_M = np.array([1 - fold[ensemble.checkpoint][ensemble.metric] for fold in folds])
    return weights_from_scores(errors_M, ensemble.weight_power)


def submit(
    run: Run,
    columns: MapColumns | None,
    read_scores: Callable[[], Mapping[str, Any]],
    models: Sequence[Model],
    materials: Materials,
) -> Submission:
    """Combines the test maps and writes masks, overlays and disagreement; arguments and errors as in `Kind.submit`."""
    ensemble = run.ensemble
    if not _has(run, "test"):
        raise NoSubmissionError("the data has no test rows")
    weights_M, by_score_M = choose_weights(run, columns, read_scores), _weigh_by_score(run, columns, read_scores)
    background = materials.open_backgrounds("test")
    rows, by_model, comparison = [], [], _Comparison(run, by_score_M)
    for stored, probability_MCHW in _read_models(run, "test"):
        combined_CHW = combine_maps(probability_MCHW, ensemble.method, weights_M, ensemble.threshold)
        predicted_HW = choose_classes(combined_CHW, ensemble.threshold)
        found = comparison.add(probability_MCHW, predicted_HW, stored.target_HW)
        disagreement_HW, row_id = measure_disagreement(probability_MCHW), stored.row_id
        pictures = draw_row(
            background(row_id), predicted_HW, stored.target_HW, disagreement_HW, len(probability_MCHW[0])
        )
        for place, content in pictures.items():
            materials.write(f"{place}/test/{row_id}.png", content)
        rows.append(
            (row_id, measure_share(predicted_HW), float(disagreement_HW.mean()), found.get("dice"), found.get("iou"))
        )
        by_model.append([measure_share(choose_classes(one, ensemble.threshold)) for one in probability_MCHW])
    compared = comparison.list_rows()
    facts = _describe(run, weights_M, rows, models, compared)
    parts = {"blend": _compare_on_blend(run, weights_M, by_score_M), "test": compared}
    return Submission(
        *_build_lines(run.target, rows),
        _build_table(rows, np.array(by_model).T),
        facts,
        {"ensemble/space": "probability", **_list_metrics(compared)},
        {part: lines for part, lines in parts.items() if lines},
    )


def _compare_on_blend(run: Run, weights_M: np.ndarray | None, by_score_M: np.ndarray) -> list[dict[str, Any]]:
    """Each model and each method on the blend set, which no model has seen; empty without one."""
    if not _has(run, "blend"):
        return []
    ensemble, comparison = run.ensemble, _Comparison(run, by_score_M)
    for stored, probability_MCHW in _read_models(run, "blend"):
        combined_CHW = combine_maps(probability_MCHW, ensemble.method, weights_M, ensemble.threshold)
        comparison.add(probability_MCHW, choose_classes(combined_CHW, ensemble.threshold), stored.target_HW)
    return comparison.list_rows()


def _has(run: Run, part: str) -> bool:
    return next(iter(run.members.values()))[0].predictions(part, run.ensemble.checkpoint).exists()


def _read_models(run: Run, part: str) -> Iterator[tuple[StoredMap, np.ndarray]]:
    """Of each row of the test or the blend rows a fold model's map and the probabilities of what is combined, (M, C, H,
    W)."""
    ensemble = run.ensemble
    files = [(fold.predictions(part, ensemble.checkpoint),) for folds in run.members.values() for fold in folds]
    for stored, probability_FCHW in read_together(files):
        if run.combines_folds:
            yield stored, probability_FCHW
        else:
            counts = [run.num_folds] * len(run.members)
            yield stored, combine_folds(probability_FCHW, counts, ensemble.fold_method)


class _Comparison:
    """Each model and each method on rows whose truth is known and which no model has seen.

    Args:
        run: whose models.
        weights_M: by validation score, for the weighted mean.
    """

    def __init__(self, run: Run, weights_M: np.ndarray) -> None:
        self.ensemble, self.weights_M = run.ensemble, weights_M
        self.names = [name.replace("_", " ") if run.combines_folds else name for name in run.model_names]
        self.kept: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(
        self, probability_MCHW: np.ndarray, predicted_HW: np.ndarray, target_HW: np.ndarray | None
    ) -> dict[str, float | None]:
        """Takes in a row; returns the scores of what is submitted, if the truth is known."""
        if target_HW is None:
            return {}
        threshold, num_classes = self.ensemble.threshold, count_classes(probability_MCHW[0])
        said = {
            ("model", name): choose_classes(one, threshold)
            for name, one in zip(self.names, probability_MCHW, strict=True)
        }
        for method in MAP_METHODS:
            weights_M = self.weights_M if method == "weighted_mean" else None
            combined_CHW = combine_maps(probability_MCHW, method, weights_M, threshold)
            said["combination", method] = choose_classes(combined_CHW, threshold)
        said["submitted", self.ensemble.method] = predicted_HW
        for key, classes_HW in said.items():
            self.kept.setdefault(key, []).append(count_map(classes_HW, target_HW, num_classes))
        target, prediction = self.kept["submitted", self.ensemble.method][-1]
        return score_maps(target[None], prediction[None])

    def list_rows(self) -> list[dict[str, Any]]:
        """`kind` (model, combination or submitted), `name`, `num_rows` and scores of each."""
        return [
            {"kind": kind, "name": name, "num_rows": len(kept)}
            | score_maps(*(np.stack(part) for part in zip(*kept, strict=True)))
            for (kind, name), kept in self.kept.items()
        ]


def draw_row(
    background_HW3: np.ndarray,
    predicted_HW: np.ndarray,
    target_HW: np.ndarray | None,
    disagreement_HW: np.ndarray,
    num_channels: int,
) -> dict[str, bytes]:
    """Pictures of a row as PNG files, by their folders."""
    pictures = {
        "masks": to_mask_picture(predicted_HW, max(2, num_channels)),
        "overlays": draw_overlay(background_HW3, predicted_HW, target_HW),
        "disagreement": to_heat(disagreement_HW),
    }
    return {place: to_png(values) for place, values in pictures.items()}


def _build_lines(target: str, rows: Sequence[tuple[Any, ...]]) -> tuple[list[str], list[list[Any]]]:
    """Header and lines of the submission's file."""
    knows = any(row[3] is not None for row in rows)
    header = ["ID", target, "disagreement", *(METRICS if knows else ()), "mask"]
    return header, [[*map(_cell, row[: 5 if knows else 3]), f"masks/test/{row[0]}.png"] for row in rows]


def _cell(value: Any) -> Any:
    return "" if value is None else value if isinstance(value, str) else repr(float(value))


def _build_table(rows: Sequence[tuple[Any, ...]], share_MT: np.ndarray) -> pa.Table:
    """Each model's share of foreground in each test row, the ensemble's, and the mean disagreement."""
    ids, share_T, disagreement_T = (np.array([row[part] for row in rows]) for part in range(3))
    columns = {"id": pa.array(ids.tolist())} | {f"model_{n}": pa.array(one) for n, one in enumerate(share_MT)}
    return pa.table(columns | {"prediction": pa.array(share_T), "std": pa.array(disagreement_T)})


def _describe(
    run: Run,
    weights_M: np.ndarray | None,
    rows: Sequence[tuple[Any, ...]],
    models: Sequence[Model],
    compared: list[dict[str, Any]],
) -> dict[str, Any]:
    ensemble = run.ensemble
    share_T, disagreement_T = (np.array([row[part] for row in rows]) for part in (1, 2))
    spread = {"prediction_diversity": disagreement_T.mean(), "pred_std_mean": disagreement_T.mean()}
    spread |= {"pred_std_max": disagreement_T.max(), "pred_std_min": disagreement_T.min()}
    facts = {
        "method": ensemble.method, "threshold": ensemble.threshold, "n_models": len(models),
        "checkpoints": ensemble.checkpoint, "test_samples": len(rows), "mean_std": float(disagreement_T.mean()),
        **{name: float(value) for name, value in spread.items()},
        "weights": None if weights_M is None else weights_M.tolist(),
        "model_weights": [{**model.label, **model.summary} for model in models],
        **{f"final_pred_{n}": float(getattr(share_T, n)()) for n in ("min", "max", "mean", "std")},
        "compared": compared,
    }  # fmt: skip
    return facts if run.combines_folds else facts | {"fold_method": ensemble.fold_method}


def _list_metrics(compared: Sequence[dict[str, Any]]) -> dict[str, Any]:
    submitted = next((row for row in compared if row["kind"] == "submitted"), None)
    if submitted is None:
        return {}
    columns = list(submitted)
    data = [[row[name] for name in columns] for row in compared]
    scores = {f"ensemble/test_{name}": submitted[name] for name in METRICS}
    return scores | {"ensemble/compared": {"columns": columns, "data": data}}
