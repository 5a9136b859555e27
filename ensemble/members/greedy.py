"""Greedy selection with replacement: an ensemble grows by the model that helps it most, and is cut where it was best.

Caruana, Niculescu-Mizil, Crew and Ksikes 2004, "Ensemble Selection from Libraries of Models", section 2,
https://doi.org/10.1145/1015330.1015432; with 25 steps and the ties of AutoGluon's `EnsembleSelection`
(https://github.com/autogluon/autogluon, core/models/greedy_ensemble): errors count to 6 decimals once the first model
is chosen, if its error is above 1e-4; among equals a model that is in the ensemble already goes first, and of those the
first. AutoGluon draws that last choice at random.

Shape suffix: M models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NUM_STEPS = 25
_DECIMALS, _ROUND_ABOVE, _EQUAL = 6, 1e-4, 1e-12


def choose_greedily(ask: Callable[[np.ndarray], np.ndarray], num_models: int, num_steps: int = NUM_STEPS) -> np.ndarray:
    """How often each model was chosen, up to the first lowest error, as a share, (M,), adding up to 1.

    Args:
        ask: the errors (M,) of the ensembles that a count of models (M,) and one model more make.
        num_models: there are.
        num_steps: models chosen, counted with repetition.

    Raises:
        ValueError: no step.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps}: expected at least 1")
    if num_models == 1:
        return np.ones(1)
    counts_M, is_rounded = np.zeros(num_models, int), False
    order: list[int] = []
    trajectory: list[float] = []
    for _ in range(num_steps):
        errors_M = ask(counts_M)
        if is_rounded:
            errors_M = errors_M.round(_DECIMALS)
        best = _break_tie(errors_M, counts_M)
        is_rounded = is_rounded or (not order and abs(errors_M[best]) > _ROUND_ABOVE)
        trajectory.append(errors_M[best].round(_DECIMALS) if is_rounded else errors_M[best])
        order.append(best)
        counts_M[best] += 1
    order = order[: int(np.argmin(trajectory)) + 1]
    return np.bincount(order, minlength=num_models) / len(order)


def _break_tie(errors_M: np.ndarray, counts_M: np.ndarray) -> int:
    lowest = errors_M.min()
    equal = np.flatnonzero(np.abs(errors_M - lowest) <= _EQUAL * abs(lowest))
    used = equal[counts_M[equal] > 0]
    return int(used[0] if len(used) else equal[0])
