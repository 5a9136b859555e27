"""The losses of M models as those of one: of each token the mean of the probabilities that they give it.

For that a loss of each token is enough, whatever the weights; the mean of the logarithms of probabilities would need
the probability of every token of the vocabulary.

| method        | weights |
|---|---|
| mean          | equal |
| weighted_mean | in inverse proportion to a power of each model's error, or given |
| simplex       | with the least loss, by expectation maximisation from equal weights; the loss is convex |

Shape suffixes: M models, N documents, S tokens of all of them.
"""

from __future__ import annotations

import numpy as np

from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.token_losses.scores import measure_error

METHODS = ("mean", "weighted_mean", "simplex")
_STEPS, _ENOUGH, _BLOCK = 500, 1e-9, 1 << 20


def mix_losses(nats_MS: np.ndarray, weights_M: np.ndarray | None = None) -> np.ndarray:
    """Minus the logarithm of the weighted mean of the probabilities of each token, (S,) float64.

    Args:
        nats_MS: losses of the models.
        weights_M: from 0, adding up to 1; None: equal ones.
    """
    num_models = len(nats_MS)
    weights_M = np.full(num_models, 1 / num_models) if weights_M is None else np.asarray(weights_M, np.float64)
    mixed_S = np.empty(nats_MS.shape[1])
    for start in range(0, len(mixed_S), _BLOCK):
        block_MS = nats_MS[:, start : start + _BLOCK].astype(np.float64)
        least_S = block_MS.min(axis=0)  # the likeliest: no power underflows
        mixed_S[start : start + _BLOCK] = least_S - np.log(weights_M @ np.exp(least_S - block_MS) + 1e-300)
    return np.maximum(mixed_S, 0.0)


def name_weighing(metric: str) -> str:
    """The metric that weighs models: not the excess, which may be below 0."""
    return "nats_per_token" if metric == "excess_nats" else metric


def choose_weights(
    how: Combination, target_N: np.ndarray, sums_MN: np.ndarray, nats_MS: np.ndarray
) -> np.ndarray | None:
    """Weights of the models, fitted to these documents if any are, (M,); None: equal ones."""
    if how.weights is not None:
        return normalise_weights(how.weights, len(sums_MN))
    if how.method == "weighted_mean":
        errors_M = np.array([measure_error(name_weighing(how.metric), target_N, nats_N) for nats_N in sums_MN])
        return weights_from_scores(errors_M, how.weight_power)
    if how.method == "simplex":
        return fit_mixture(nats_MS)
    return None


def fit_mixture(nats_MS: np.ndarray) -> np.ndarray:
    """The weights with the least loss of the mixture, (M,), by expectation maximisation (Dempster, Laird and Rubin
    1977, section 4.3): each weight becomes the mean share that the model has in the probability of a token."""
    num_models = len(nats_MS)
    weights_M = np.full(num_models, 1 / num_models)
    if num_models == 1:
        return weights_M
    chance_MS = np.exp(nats_MS.min(axis=0).astype(np.float64) - nats_MS)
    for _ in range(_STEPS):
        share_MS = weights_M[:, None] * chance_MS
        new_M = (share_MS / share_MS.sum(axis=0)).mean(axis=1)
        moved = np.abs(new_M - weights_M).max()
        weights_M = new_M / new_M.sum()
        if moved < _ENOUGH:
            break
    return weights_M
