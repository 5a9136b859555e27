"""New rows of a family that predicts maps: how the models' maps become one, and what is written of each row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ensemble.map_files import to_png
from ensemble.maps import choose_classes, combine_maps, count_places, measure_disagreement, score_counts
from ensemble.overlays import draw_overlay, to_heat, to_mask_picture
from ray_jobs.config import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.map_submission import choose_map_weights
from ray_jobs.run_folder import RunFolder, read_json, write_whole
from trainers.interface import NewMap

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class MapEnsemble:
    """How the maps of a run's models become one.

    Attributes:
        config: of the run.
        weights_M: of the models; None for a method without.
        names: (M,) of the models.
        output: the folder in which pictures are written.
    """

    config: RunConfig
    weights_M: np.ndarray | None
    names: tuple[str, ...]
    output: Path

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `write_rows` gives, but for the id."""
        models = tuple(f"model_{name}" for name in self.names) if shows_models else ()
        return (target, "disagreement", "dice", "iou", "mask", *models)

    def write_rows(self, predicted: Iterable[NewMap], *, shows_models: bool) -> pa.Table:
        """Writes mask, overlay and disagreement of each row; their table: id, share of foreground, mean disagreement, Dice and IoU where
        the truth is known, path of the mask, each model's share, and last what was wrong."""
        rows = [self._write_row(one) for one in predicted]
        shares = list(zip(*(row[-1] for row in rows), strict=True)) if shows_models else []
        texts, numbers = pa.string(), pa.float64()
        kinds = (texts, numbers, numbers, numbers, numbers, texts)
        columns = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]
        columns += [pa.array(model, numbers) for model in shares]
        columns.append(pa.array([row[6] for row in rows], texts))
        return pa.table(columns, names=[*map(str, range(len(columns) - 1)), "problem"])

    def _write_row(self, one: NewMap) -> tuple:
        ensemble, num_classes = self.config.ensemble, max(2, one.probability_MCHW.shape[1])
        said_HW = choose_classes(
            combine_maps(one.probability_MCHW, ensemble.method, self.weights_M), ensemble.threshold
        )
        disagreement_HW = measure_disagreement(one.probability_MCHW)
        pictures = {
            "masks": to_mask_picture(said_HW, num_classes),
            "overlays": draw_overlay(one.background_HW3, said_HW, one.target_HW),
            "disagreement": to_heat(disagreement_HW),
        }
        for folder, values in pictures.items():
            write_whole(self.output / folder / f"{one.row_id}.png", to_png(values))
        scores = {} if one.target_HW is None else score_counts(count_places(said_HW, one.target_HW, num_classes))
        shares = [float((choose_classes(model, ensemble.threshold) != 0).mean()) for model in one.probability_MCHW]
        found = (float((said_HW != 0).mean()), float(disagreement_HW.mean()), scores.get("dice"), scores.get("iou"))
        return (one.row_id, *found, f"masks/{one.row_id}.png", one.problem or None, shares)


def settle_map_run(folder: RunFolder, config: RunConfig, output: Path) -> MapEnsemble:
    """The run's combination with the weights that its submission has.

    Raises:
        RunError: the run has no scores yet.
    """
    scores = read_json(folder.summary, default={}).get("scores")
    if not scores:
        raise RunError(f"{folder.root} has no scores yet: finish the run first; the command is in provenance.json")
    names = tuple(f"fold_{fold}" for fold in range(config.folds.count))
    return MapEnsemble(config, choose_map_weights(config, scores), names, output)
