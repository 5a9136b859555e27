"""What is kept of a map, and scores from that. Of the truth: the places of each class, and all that count; of what is
said: the places of each class that are rightly said to be of it, and that are said to be. All are sums over places, so
those of many rows are added.

Shape suffixes: N rows, C candidates, K classes but the background, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from ensemble.maps.combine import IGNORED, choose_classes, count_places, score_counts
from ensemble.maps.files import read_maps
from ensemble.members.comparison import draw_sums
from ensemble.predictions import PredictionError, build_table

METRICS = ("dice", "iou")  # higher is better; the error is what is missing to 1
_KEPT = ("true", "places", "right", "said")


def count_map(predicted_HW: np.ndarray, true_HW: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """What is kept of a row: of the truth (K + 1,), places of each class and all that count; of what is said (2 K,),
    rightly said places of each class and said ones."""
    right_K, predicted_K, true_K = count_places(predicted_HW, true_HW, num_classes)
    return np.append(true_K, int((true_HW != IGNORED).sum())), np.concatenate([right_K, predicted_K])


def count_classes(probability_CHW: np.ndarray) -> int:
    """Classes of a map, the background included."""
    return max(2, len(probability_CHW))


def measure_share(classes_HW: np.ndarray) -> float:
    """The share of the places that count which are not background."""
    counted = classes_HW[classes_HW != IGNORED]
    return float((counted != 0).mean()) if counted.size else 0.0


def measure_confidence(probability_CHW: np.ndarray, true_HW: np.ndarray) -> float:
    """How sure a map is of its classes, from 0 (no class is likelier than another) to 1, mean over the places that
    count."""
    counted = probability_CHW[:, true_HW != IGNORED]
    if not counted.size:
        return 0.0
    if len(counted) == 1:
        return float(np.abs(2 * counted[0] - 1).mean())
    return float((counted.max(axis=0).mean() - 1 / len(counted)) / (1 - 1 / len(counted)))


def measure_maps(path: Path, threshold: float) -> pa.Table:
    """A line for each map of a file whose truth is known: true and predicted share of foreground, Dice, IoU, how sure
    it is, and what is kept.

    Raises:
        PredictionError: it is no such file, or there is no map in it.
    """
    ids, shares, targets, predictions, sure, stored = [], [], [], [], [], None
    for stored in read_maps(path):
        if stored.target_HW is None:
            raise PredictionError(f"{path}: id {stored.row_id!r} has no true map: expected one of each row")
        predicted_HW = choose_classes(stored.probability_CHW, threshold)
        target, prediction = count_map(predicted_HW, stored.target_HW, count_classes(stored.probability_CHW))
        ids.append(stored.row_id)
        shares.append((measure_share(stored.target_HW), measure_share(predicted_HW)))
        sure.append(measure_confidence(stored.probability_CHW, stored.target_HW))
        targets.append(target)
        predictions.append(prediction)
    if stored is None:
        raise PredictionError(f"{path} holds no map: expected at least one")
    target_N, prediction_N = np.stack(targets), np.stack(predictions)
    true_N, predicted_N = np.array(shares).T
    table = build_table(
        np.array(ids),
        predicted_N,
        predicted_N,
        true_N,
        fold=stored.fold,
        checkpoint=stored.checkpoint,
        member=stored.member,
    )
    of_rows = [score_counts(counts_3K) for counts_3K in _join_counts(target_N, prediction_N)]
    for name in METRICS:
        table = table.append_column(name, pa.array([scores[name] for scores in of_rows]))
    table = table.append_column("confidence", pa.array(sure))
    for name, column in join_kept(target_N, prediction_N).items():
        table = table.append_column(name, column)
    return table


def join_kept(target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
    """What is kept, (N, K + 1) and (N, 2 K), as columns: lists of a number for each class, and `places`."""
    right_N, predicted_N = np.split(prediction_N, 2, axis=1)
    parts = {"true": target_N[:, :-1], "right": right_N, "said": predicted_N}
    columns = {name: pa.array(values.tolist(), pa.list_(pa.int64())) for name, values in parts.items()}
    return {name: columns.get(name, pa.array(target_N[:, -1], pa.int64())) for name in _KEPT}


def split_kept(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What `join_kept` has made columns of.

    Raises:
        PredictionError: they are not there.
    """
    if missing := [name for name in _KEPT if name not in table.column_names]:
        raise PredictionError(
            f"the out-of-fold predictions are of an earlier version of this project: expected the columns "
            f"{', '.join(missing)}; `python ray_jobs/submit.py` on the run adds them"
        )
    true_N, right_N, predicted_N = (np.array(table[name].to_pylist(), np.int64) for name in ("true", "right", "said"))
    return np.column_stack([true_N, table["places"].to_numpy()]), np.concatenate([right_N, predicted_N], axis=1)


def score_maps(target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, float | None]:
    """Dice and IoU of all places together, the mean over the rows of their Dice and, of several classes, the Dice of
    each."""
    counts_N3K = _join_counts(target_N, prediction_N)
    counts_3K = counts_N3K.sum(axis=0)
    of_rows = [score_counts(row_3K)["dice"] for row_3K in counts_N3K]
    scores: dict[str, float | None] = {
        **score_counts(counts_3K),
        "dice_of_rows": float(np.mean(of_rows)) if of_rows else 1.0,
    }
    if counts_3K.shape[1] > 1:
        by_class = enumerate(counts_3K.T, start=1)
        scores |= {f"dice_class_{number}": score_counts(counts_3[:, None])["dice"] for number, counts_3 in by_class}
    return scores


def score_constant(target_N: np.ndarray, metric: str = METRICS[0]) -> dict[str, float | None]:
    """The scores of saying one class everywhere, the best by a metric but the background: what a model has to beat."""
    *true_K, num_places = target_N.sum(axis=0)
    best = dict.fromkeys(METRICS, 0.0)
    for number in range(len(true_K)):
        counts_3K = np.stack([np.zeros(len(true_K), np.int64), np.zeros(len(true_K), np.int64), np.array(true_K)])
        counts_3K[0, number], counts_3K[1, number] = true_K[number], num_places
        best = max(best, score_counts(counts_3K), key=lambda scores: scores[metric])
    return dict(best)


def measure_error(metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
    """What is missing to 1."""
    return 1 - score_counts(_join_counts(target_N, prediction_N).sum(axis=0))[metric]


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of all rows, (C,), and of drawn ones, (D, C); arguments as in `Kind.draw_errors`."""
    predictions_CN = np.asarray(predictions_CN)
    true_CN = np.broadcast_to(target_N[:, :-1], (*predictions_CN.shape[:2], target_N.shape[1] - 1))
    statistics_CNS = np.concatenate([predictions_CN, true_CN], axis=2)
    return draw_sums(statistics_CNS, lambda sums: _finish(metric, sums), unit_N, num_draws, seed)


def _join_counts(target_N: np.ndarray, prediction_N: np.ndarray) -> np.ndarray:
    """(N, 3, K): right, said and true places."""
    right_N, predicted_N = np.split(prediction_N, 2, axis=1)
    return np.stack([right_N, predicted_N, target_N[:, :-1]], axis=1)


def _finish(metric: str, sums: np.ndarray) -> np.ndarray:
    """`score_counts` of many sums (..., 3 K), as an error."""
    right, said, true = np.split(sums, 3, axis=-1)
    known = said + true > 0
    whole = np.where(known, (said + true) if metric == "dice" else (said + true - right), 1)
    scores = np.where(known, (2 if metric == "dice" else 1) * right / whole, 0).sum(axis=-1)
    num_known = known.sum(axis=-1)
    errors: np.ndarray = 1 - np.where(num_known > 0, scores / np.maximum(num_known, 1), 1)
    return errors
