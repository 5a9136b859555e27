"""The `ensemble` section of a config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Method = Literal["mean", "median", "weighted_mean"]
Space = Literal["z", "raw"]


@dataclass(frozen=True)
class EnsembleConfig:
    """How the fold models' predictions become one. Changing it re-runs the ensemble alone, never a fold."""

    method: Method = "mean"
    """weighted_mean: by `weights` where given, else by each fold's validation score."""
    space: Space = "z"
    """z: combine log1p of the predictions, the scale in which MSLE lives; raw: the predictions themselves."""
    weights: tuple[float, ...] | None = None
    """One weight for each fold, in the order of the folds; they are scaled to add up to 1."""
    checkpoint: Literal["best", "final"] = "best"
    """Which checkpoint of each fold predicts. best was chosen on the fold's own validation rows, final was not."""

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        if self.method != "weighted_mean":
            raise ValueError(f"ensemble.weights is only used by ensemble.method=weighted_mean, not by {self.method}")
        if not all(math.isfinite(w) and w >= 0 for w in self.weights) or not sum(self.weights) > 0:
            raise ValueError(f"ensemble.weights={list(self.weights)}: expected numbers from 0, at least one above 0")
