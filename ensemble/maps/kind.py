"""Predictions that are a map of each row: a class of each of its places."""

from __future__ import annotations

from ensemble.config import MAP_METHODS
from ensemble.kinds import Kind, Metric

_TITLES = {"dice": "Dice", "iou": "IoU", "dice_of_rows": "mean Dice of rows"}
_OF_CLASS = "dice_class_"


class Maps:
    """The kind."""

    name = "map"
    methods = MAP_METHODS
    constant = "one class everywhere"

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read; higher ones are better."""
        if name.startswith(_OF_CLASS):
            return Metric(name, f"Dice of class {name.removeprefix(_OF_CLASS)}", higher_is_better=True)
        return Metric(name, _TITLES.get(name, name), higher_is_better=True)


KIND: Kind = Maps()
