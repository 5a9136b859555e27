"""How models become one, whatever they predict: the method, and weights by score or as they are given."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ensemble.config import FITTED_METHODS, EnsembleConfig, Space


@dataclass(frozen=True)
class Combination:
    """How models become one; the fields are those of `EnsembleConfig`. Without a space: of a kind that has none."""

    method: str
    space: Space | None = "z"
    metric: str = "msle"
    trim: float = 0.2
    weights: tuple[float, ...] | None = None
    weight_power: float = 1.0

    @classmethod
    def from_config(cls, config: EnsembleConfig) -> Combination:
        """What the `ensemble` section says."""
        how = cls(config.method, config.space, config.metric)
        if config.method == "trimmed_mean":
            return replace(how, trim=config.trim)
        if config.method == "weighted_mean":
            return replace(how, weights=config.weights, weight_power=1.0 if config.weights else config.weight_power)
        return how

    @property
    def title(self) -> str:
        """The method and what belongs to it, without the space."""
        given = "" if self.weights is None else f" {'/'.join(f'{weight:g}' for weight in self.weights)}"
        trim = f" {self.trim:g}" if self.method == "trimmed_mean" else ""
        power = f" power {self.weight_power:g}" if self.weight_power != 1 else ""
        return f"{self.method}{trim}{power}{given}"

    def __str__(self) -> str:
        return self.title if self.space is None else f"{self.title}, {self.space} space"

    @property
    def is_fitted(self) -> bool:
        """Whether something of it is learned from the models' predictions of the rows that score it."""
        return self.method in FITTED_METHODS or (self.method == "weighted_mean" and self.weights is None)

    def differs(self, num_models: int) -> bool:
        """Whether no simpler method gives the same of so many models."""
        if self.method == "trimmed_mean":
            return int(self.trim * num_models) > 0
        if self.method == "geometric_mean":
            return self.space == "raw"
        return self.method not in ("median", "majority_vote") or num_models > 2


def weights_from_scores(scores_M: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Weights in inverse proportion to a power of each model's validation error, (M,), adding up to 1.

    For independent unbiased models with these mean squared errors the first power gives the weights of least variance
    (inverse-variance weighting). A model without error takes all the weight.
    """
    errors_M = np.asarray(scores_M, np.float64)
    if not (np.isfinite(errors_M).all() and (errors_M >= 0).all()):
        raise ValueError(f"validation scores {errors_M.tolist()}: expected finite numbers from 0")
    if (errors_M == 0).any():
        shares_M: np.ndarray = (errors_M == 0).astype(np.float64)
    else:
        shares_M = (errors_M.min() / errors_M) ** power
    weights_M: np.ndarray = shares_M / shares_M.sum()
    return weights_M


def normalise_weights(weights: tuple[float, ...], num_models: int) -> np.ndarray:
    """Given weights scaled to add up to 1.

    Raises:
        ValueError: another number of weights than models.
    """
    if len(weights) != num_models:
        raise ValueError(f"ensemble.weights has {len(weights)} numbers for {num_models} fold models; give one for each")
    return np.asarray(weights, np.float64) / sum(weights)
