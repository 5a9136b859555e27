"""Scores of documents from the sums of their losses.

| name           | definition |
|---|---|
| perplexity     | exp(nats / tokens), over all documents together |
| nats_per_token | nats / tokens |
| bits_per_byte  | nats / (bytes · ln 2): the only one that compares across tokenizers |
| excess_nats    | (nats - entropy) / tokens, of the documents whose entropy is known |

Lower is better. Each follows from sums over the documents, which bootstrap samples draw.

Shape suffixes: N documents, C candidates, D draws.
"""

from __future__ import annotations

import math

import numpy as np

from ensemble.members.comparison import draw_sums
from ensemble.token_losses.files import UNKNOWN

SCORES = ("perplexity", "nats_per_token", "bits_per_byte", "excess_nats")
_MOST_NATS = 700.0  # whose exponential is a number


def check_metric(metric: str) -> None:
    """Raises ValueError for other metrics than these."""
    if metric not in SCORES:
        raise ValueError(f"expected one of {', '.join(SCORES)}, by which losses of tokens are compared")


def score_losses(target_N: np.ndarray, nats_N: np.ndarray) -> dict[str, float | None]:
    """Every score; None where one is not defined for these documents."""
    scores: dict[str, float | None] = {}
    for name in SCORES:
        try:
            scores[name] = measure_error(name, target_N, nats_N)
        except ValueError:
            scores[name] = None
    return scores


def measure_error(metric: str, target_N: np.ndarray, nats_N: np.ndarray) -> float:
    """A score by its name.

    Raises:
        ValueError: an unknown metric, or documents for which it is not defined.
    """
    check_metric(metric)
    if not len(target_N):
        raise ValueError(f"{metric} is not defined without a document")
    if metric == "excess_nats" and (target_N[:, 2] == UNKNOWN).all():
        raise ValueError("excess_nats is not defined for documents whose entropy is not known")
    return float(_finish(metric, _list_statistics(metric, target_N, nats_N).sum(axis=0)))


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of all documents, (C,), and of drawn ones, (D, C); arguments as in `Kind.draw_errors`."""
    for nats_N in predictions_CN:
        measure_error(metric, target_N, nats_N)
    statistics_CNS = np.stack([_list_statistics(metric, target_N, nats_N) for nats_N in predictions_CN])
    return draw_sums(statistics_CNS, lambda sums: _finish(metric, sums), unit_N, num_draws, seed)


def _list_statistics(metric: str, target_N: np.ndarray, nats_N: np.ndarray) -> np.ndarray:
    """What is summed over the documents, (N, 2): losses, and what they are divided by."""
    tokens_N, bytes_N, floor_N, _ = target_N.T
    if metric == "bits_per_byte":
        return np.stack([nats_N / math.log(2), bytes_N], axis=1)
    if metric == "excess_nats":
        is_known_N = floor_N != UNKNOWN
        return np.stack([np.where(is_known_N, nats_N - floor_N, 0), np.where(is_known_N, tokens_N, 0)], axis=1)
    return np.stack([nats_N, tokens_N], axis=1)


def _finish(metric: str, sums: np.ndarray) -> np.ndarray:
    """The errors of sums, (..., 2); NaN where there is nothing to divide by."""
    whole = sums[..., 1]
    shares: np.ndarray = np.where(whole > 0, sums[..., 0] / np.where(whole > 0, whole, 1), np.nan)
    return np.exp(np.minimum(shares, _MOST_NATS)) if metric == "perplexity" else shares
