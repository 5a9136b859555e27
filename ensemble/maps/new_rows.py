"""New rows whose predictions are maps: how the models' become one, and what is written of each row.

Shape suffixes: M models, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.config import EnsembleConfig
from ensemble.maps.combine import (
    choose_classes,
    combine_folds,
    combine_maps,
    count_places,
    measure_disagreement,
    score_counts,
)
from ensemble.maps.scores import count_classes
from ensemble.maps.submission import choose_weights, draw_row
from ensemble.run import Run

FILES = ("masks", "overlays", "disagreement")


@dataclass(frozen=True)
class MapCombiner:
    """How the maps of a run's models become one.

    Attributes:
        ensemble: of the run.
        weights_M: of what is combined; None for a method without.
        names: (M,) of what is combined: `fold_0`, or the members.
        fold_counts: fold models of each member; empty: they are combined themselves.
    """

    ensemble: EnsembleConfig
    weights_M: np.ndarray | None
    names: tuple[str, ...]
    fold_counts: tuple[int, ...] = ()

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `predict` gives, but for the id."""
        models = tuple(f"model_{name}" for name in self.names) if shows_models else ()
        return (target, "disagreement", "dice", "iou", "mask", *models)

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """Of each row id, share of foreground, mean disagreement, Dice and IoU where the truth is known, path of the
        mask, each model's share; then what was wrong, and mask, overlay and disagreement as PNG files."""
        rows = [self._combine_row(one) for one in predictor.predict(block)]
        shares = list(zip(*(row[-1] for row in rows), strict=True)) if shows_models else []
        texts, numbers = pa.string(), pa.float64()
        kinds = (texts, numbers, numbers, numbers, numbers, texts)
        columns = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]
        columns += [pa.array(model, numbers) for model in shares]
        names = [*map(str, range(len(columns))), "problem", *FILES]
        columns.append(pa.array([row[6] for row in rows], texts))
        columns += [pa.array([row[7][name] for row in rows], pa.binary()) for name in FILES]
        return pa.table(columns, names=names)

    def _combine_row(self, one: Any) -> tuple[Any, ...]:
        """Of a `NewMap`."""
        ensemble, probability_MCHW = self.ensemble, one.probability_MCHW
        if self.fold_counts:
            probability_MCHW = combine_folds(probability_MCHW, self.fold_counts, ensemble.fold_method)
        combined_CHW = combine_maps(probability_MCHW, ensemble.method, self.weights_M, ensemble.threshold)
        predicted_HW = choose_classes(combined_CHW, ensemble.threshold)
        disagreement_HW, num_classes = measure_disagreement(probability_MCHW), count_classes(combined_CHW)
        encoded = draw_row(one.background_HW3, predicted_HW, one.target_HW, disagreement_HW, num_classes)
        scores = {} if one.target_HW is None else score_counts(count_places(predicted_HW, one.target_HW, num_classes))
        shares = [float((choose_classes(model, ensemble.threshold) != 0).mean()) for model in probability_MCHW]
        found = (
            float((predicted_HW != 0).mean()),
            float(disagreement_HW.mean()),
            scores.get("dice"),
            scores.get("iou"),
        )
        return (one.row_id, *found, f"masks/{one.row_id}.png", one.problem or None, encoded, shares)


def build_combiner(run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> MapCombiner:
    """The run's combination with the weights that its submission has; arguments as in `Kind.build_combiner`."""
    counts = () if run.combines_folds else (run.num_folds,) * len(run.members)
    return MapCombiner(run.ensemble, choose_weights(run, None, read_scores), run.model_names, counts)
