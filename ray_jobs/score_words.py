"""How scores are told: the metric that counts, its name, and how far from the constant predictor it is. Knows which metrics grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TITLES = {"dice": "Dice", "iou": "IoU", "dice_of_rows": "mean Dice of rows"}  # all of these are higher for the better


def name_metric(scores: Mapping[str, Any]) -> str:
    """The metric that counts, the first of the scores."""
    return next(iter(scores["out_of_fold"]["best"]))


def show_metric(metric: str) -> str:
    """Its name as people write it."""
    if metric.startswith("dice_class_"):
        return f"Dice of class {metric.removeprefix('dice_class_')}"
    return _TITLES.get(metric, metric.upper())


def grows(metric: str) -> bool:
    """Whether higher is better."""
    return metric in _TITLES


def compare_with_constant(scores: Mapping[str, Any]) -> str:
    """The out-of-fold score of a run beside the constant predictor's, in a sentence."""
    overall, metric = scores["out_of_fold"], name_metric(scores)
    value, constant = overall[overall["checkpoint"]][metric], overall["constant"][metric]
    if grows(metric):
        return f"out-of-fold {show_metric(metric)} is {value:.4f}; the same class everywhere would have {constant:.4f}"
    return f"out-of-fold {show_metric(metric)} is {value / constant:.0%} of the constant predictor's"
