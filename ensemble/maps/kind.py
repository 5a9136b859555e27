"""Predictions that are a map of each row: a class of each of its places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.config import MAP_METHODS
from ensemble.kinds import Kind, Metric, Offer

if TYPE_CHECKING:
    import pyarrow as pa

_TITLES = {"dice": "Dice", "iou": "IoU", "dice_of_rows": "mean Dice of rows"}
_METRICS = ("dice", "iou")  # by which maps are compared; higher is better
_OF_CLASS = "dice_class_"


class Maps:
    """The kind."""

    name = "map"
    title = "maps"
    methods: Sequence[str] = MAP_METHODS
    scores: Sequence[str] = tuple(_TITLES)
    offers: frozenset[Offer] = frozenset(("threshold",))
    constant = "one class everywhere"
    files: Mapping[str, str] = {
        "folds/<i>/predictions/<rows>_<checkpoint>.parquet": "of each validation, blend or test row its probabilities and its true "
        "classes, as PNG pictures in the table, by the best and the final checkpoint",
        "oof.parquet": "of each row that some fold validated: its true and its predicted share of foreground, Dice and IoU, by the "
        "model that did not train on it",
        "masks/": "out_of_fold/: the class of each pixel, by the model that did not train on the row; test/: by the ensemble",
        "overlays/": "the same over the pictures, true edges in white; out of fold at most 100, from the worst Dice to the best",
        "disagreement/": "test/: the standard deviation of the models' probabilities; white is 0.5, the largest possible value",
        "ensemble/test_predictions.parquet": "each model's share of foreground in each test row, the ensemble's, the mean disagreement",
        "submission_<method>.csv": "of each test row: share of foreground, disagreement, mask, and Dice and IoU where the truth is known",
    }

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read; higher ones are better."""
        if name.startswith(_OF_CLASS):
            return Metric(name, f"Dice of class {name.removeprefix(_OF_CLASS)}", higher_is_better=True)
        return Metric(name, _TITLES.get(name, name), higher_is_better=True)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray]) -> None:
        """Raises ValueError for other metrics than these."""
        if name not in _METRICS:
            raise ValueError(f"maps are compared by {' or '.join(_METRICS)}")

    def can_weigh_by(self, name: str) -> bool:
        """By all: the error is what is missing to 1."""
        return True

    def predict_constant(self, train_target_N: np.ndarray) -> None:
        """The class to say everywhere is chosen when maps are scored."""

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The row of one map."""
        from ensemble.maps.files import build_map_table, encode_map

        encoded = encode_map(prediction.row_id, prediction.probability_CHW, prediction.target_HW)
        return build_map_table([encoded], fold=fold, checkpoint=checkpoint, member=member)


KIND: Kind = Maps()
