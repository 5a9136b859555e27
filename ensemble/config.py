"""The `ensemble` section of a config."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["mean", "median", "trimmed_mean", "geometric_mean", "weighted_mean"]
FittedMethod = Literal["simplex", "ridge", "greedy"]
Space = Literal["z", "raw"]
METHODS, FITTED_METHODS, SPACES = get_args(Method), get_args(FittedMethod), get_args(Space)


@dataclass(frozen=True)
class EnsembleConfig:
    """How the fold models' predictions become one. Changing it re-runs the ensemble alone, never a fold."""

    method: Method | str = "mean"
    """trimmed_mean: without the `trim` lowest and highest; geometric_mean: in z space the mean, in raw space 0 where a
    model says 0; weighted_mean: by `weights` where given, else by each fold's validation score."""
    space: Space = "z"
    """z: combine log1p of the predictions, the scale in which MSLE lives; raw: the predictions themselves."""
    weights: tuple[float, ...] | None = None
    """One weight for each fold, in the order of the folds; they are scaled to add up to 1."""
    trim: float = 0.2
    """Share of the models that trimmed_mean leaves out at each end, rounded down: 0.2 of fewer than 5 models is none."""
    checkpoint: Literal["best", "final"] = "best"
    """Which checkpoint of each fold predicts. best was chosen on the fold's own validation rows, final was not."""

    def __post_init__(self) -> None:
        if self.method in FITTED_METHODS:
            raise ValueError(
                f"ensemble.method={self.method}: its weights are fitted on rows that every model predicts without having seen "
                "them, and each fold model has its out-of-fold predictions on other rows than the next, so there is no such row "
                f"without a blend set. Combine fold models by one of {', '.join(METHODS)}"
            )
        if self.method not in METHODS:
            raise ValueError(f"ensemble.method={self.method!r}: expected one of {', '.join(METHODS)}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(
                f"ensemble.trim={self.trim}: expected a share from 0 and below 0.5 to leave out at each end"
            )
        if self.weights is None:
            return
        if self.method != "weighted_mean":
            raise ValueError(f"ensemble.weights is only used by ensemble.method=weighted_mean, not by {self.method}")
        if not all(math.isfinite(w) and w >= 0 for w in self.weights) or not sum(self.weights) > 0:
            raise ValueError(f"ensemble.weights={list(self.weights)}: expected numbers from 0, at least one above 0")
