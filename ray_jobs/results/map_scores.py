"""Scores of the maps that a run's folds predict out of fold, and what is to be seen of them. It knows nothing of what the maps are of.

    masks/out_of_fold/<id>.png       the class of each place
    overlays/out_of_fold/<id>.png    the same over what it lies on, true edges in white; of many rows some, from worst to best

Shape suffixes: K classes but the background, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.maps.combine import IGNORED, choose_classes, count_places, score_counts
from ensemble.maps.files import StoredMap, read_maps, to_png
from ensemble.maps.overlays import draw_overlay, to_mask_picture
from ensemble.predictions import PredictionError, build_table
from ray_jobs.config.run import RunConfig
from ray_jobs.runs.checkpoints import CHECKPOINTS
from ray_jobs.runs.folder import RunFolder
from trainers.interface import load_inventory_module
from trainers.storage.whole_files import write_whole

METRICS = ("dice", "iou")  # higher is better
MOST_OVERLAYS = 100


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
        self.num_places += int((true_HW != IGNORED).sum())
        scores = score_counts(counts_3K)
        self.dice.append(scores["dice"])
        return scores

    def score(self) -> dict[str, float]:
        """Dice and IoU of all places together, the mean over the rows of their Dice and, of several classes, the Dice of each."""
        scores = {**score_counts(self.counts_3K), "dice_of_rows": float(np.mean(self.dice)) if self.dice else 1.0}
        if self.num_classes > 2:
            by_class = enumerate(self.counts_3K.T, start=1)
            scores |= {f"dice_class_{number}": score_counts(counts_3[:, None])["dice"] for number, counts_3 in by_class}
        return scores

    def score_constant(self, metric: str = METRICS[0]) -> dict[str, float]:
        """The scores of saying one class everywhere, the best by a metric but the background: what a model has to beat."""
        true_K, best = self.counts_3K[2], dict.fromkeys(METRICS, 0.0)
        for number in range(self.num_classes - 1):
            counts_3K = np.stack([np.zeros_like(true_K), np.zeros_like(true_K), true_K])
            counts_3K[0, number], counts_3K[1, number] = true_K[number], self.num_places
            best = max(best, score_counts(counts_3K), key=lambda scores: scores[metric])
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
    chosen, metric, by_fold, tables = config.ensemble.checkpoint, config.ensemble.metric, [], []
    overall: dict[str, Tally] = {}
    for fold in folds:
        tallies = {}
        for checkpoint in CHECKPOINTS:
            path = folder.fold(fold).predictions("validation", checkpoint)
            writes = checkpoint == chosen
            tallies[checkpoint], table = _score_file(folder, config, read_maps(path), fold, checkpoint, writes=writes)
            tables += [table] if writes else []
            overall.setdefault(checkpoint, Tally(tallies[checkpoint].num_classes)).merge(tallies[checkpoint])
        constant = tallies[chosen].score_constant(metric)
        row = {"fold": fold, "num_rows": len(tallies[chosen].dice), "constant": constant}
        by_fold.append(row | {name: tally.score() for name, tally in tallies.items()})
    total: dict[str, Any] = {"num_rows": len(overall[chosen].dice), "checkpoint": chosen}
    total["constant"] = overall[chosen].score_constant(metric)
    scores = {"folds": by_fold, "out_of_fold": total | {name: tally.score() for name, tally in overall.items()}}
    return scores, pa.concat_tables(tables)


def _score_file(
    folder: RunFolder, config: RunConfig, maps: Iterator[StoredMap], fold: int, checkpoint: str, *, writes: bool
) -> tuple[Tally, pa.Table]:
    tally, rows = None, []
    for stored in maps:
        tally = tally or Tally(count_classes(stored))
        assert stored.target_HW is not None, "of a row that was validated the truth is known"
        said_HW = choose_classes(stored.probability_CHW, config.ensemble.threshold)
        scores = tally.add(said_HW, stored.target_HW)
        rows.append(
            (
                stored.row_id,
                *(measure_share(classes) for classes in (stored.target_HW, said_HW)),
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


def measure_share(classes_HW: np.ndarray) -> float:
    """The share of the places that count which are not background."""
    counted = classes_HW[classes_HW != IGNORED]
    return float((counted != 0).mean()) if counted.size else 0.0


def draw_out_of_fold(folder: RunFolder, config: RunConfig, oof: pa.Table) -> None:
    """Overlays of rows from the worst Dice to the best."""
    names, values = oof["id"].to_pylist(), oof["dice"].to_numpy()
    wanted = {names[place] for place in spread_ranks(values, MOST_OVERLAYS)}
    background = open_backgrounds(folder, config, "train")
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
    places: list[int] = order[ranks].tolist()
    return places


def open_backgrounds(folder: RunFolder, config: RunConfig, table: str) -> Callable[[str], np.ndarray]:
    """What the maps of a table (train or test) lie over, by id."""
    open_backgrounds_of_family = load_inventory_module(config.family).open_backgrounds
    background_of: Callable[[str], np.ndarray] = open_backgrounds_of_family(config.trainer, folder.inputs, table)
    return background_of
