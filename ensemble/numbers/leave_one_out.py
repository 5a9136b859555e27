"""What each model adds to an ensemble: the error without it minus the error with it.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.numbers.methods.combine import combine
from ensemble.numbers.metrics import draw_errors


@dataclass(frozen=True)
class Contributions:
    """Each model's contribution, (M,), above 0: the ensemble is better with it; and the ends of its interval."""

    contribution_M: np.ndarray
    low_M: np.ndarray
    high_M: np.ndarray


def leave_each_out(
    predictions_MN: np.ndarray,
    target_N: np.ndarray,
    metric: str = "msle",
    method: str = "mean",
    space: str = "z",
    weights_M: np.ndarray | None = None,
    unit_N: np.ndarray | None = None,
    *,
    level: float = 0.95,
    num_draws: int | None = None,
    seed: int = 0,
) -> Contributions:
    """How much the error grows when a model is left out and the others are combined as before.

    The interval is a paired percentile bootstrap over the rows, or over `unit_N`, of the given predictions: it says
    nothing of how another training run would turn out.

    Args:
        predictions_MN: at least two models, in the target's unit.
        target_N: the true values of rows that no model has seen.
        metric: a name that `measure_error` knows.
        method, space: as in `combine`.
        weights_M: for weighted_mean; those of the others are scaled to add up to 1.
        unit_N, level, num_draws, seed: as in `draw_errors`.

    Raises:
        ValueError: one model, or all weight on one; else as `combine` and `draw_errors`.
    """
    num_models = len(predictions_MN)
    if num_models < 2:
        raise ValueError(f"{num_models} model: expected at least 2, as one is left out")
    predictions_MN, others = np.asarray(predictions_MN), ~np.eye(num_models, dtype=bool)
    ensembles = [combine(predictions_MN, method, space, weights_M)]
    ensembles += [combine(predictions_MN[left], method, space, _rescale(weights_M, left)) for left in others]
    errors, drawn = draw_errors(metric, target_N, np.stack(ensembles), unit_N, num_draws, seed)
    low_M, high_M = np.quantile(drawn[:, 1:] - drawn[:, :1], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Contributions(errors[1:] - errors[0], low_M, high_M)


def _rescale(weights_M: np.ndarray | None, left: np.ndarray) -> np.ndarray | None:
    if weights_M is None:
        return None
    rest: np.ndarray = np.asarray(weights_M, np.float64)[left]
    if not rest.sum() > 0:
        raise ValueError(f"weights {np.asarray(weights_M).tolist()}: the others have none when one model is left out")
    rest = rest / rest.sum()
    return rest
