"""Scores of generative models by name, from the losses of each row's draws.

| name           | definition |
|---|---|
| v_loss         | mean loss of all draws of all rows |
| v_loss_bin_<b> | mean loss of the draws at times in a bin, with EDGES[b] <= t < EDGES[b + 1] |

Times are stratified over their distribution, so that v_loss is an estimate of the mean under it. Draws of one row are
no independent rows: standard errors and intervals are of rows.

Shape suffixes: N rows, S draws of a row, K candidates, B bins, D draws of the bootstrap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemble.members.comparison import draw_sums
from ensemble.samples.files import NUM_FACTS, PROCESS

EDGES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
NUM_BINS = len(EDGES) - 1
OF_BIN = "v_loss_bin_"
SCORES = ("v_loss", *(f"{OF_BIN}{number}" for number in range(NUM_BINS)))


def check_metric(metric: str) -> None:
    """Raises ValueError for other metrics than these."""
    if metric not in SCORES:
        raise ValueError(f"expected one of {', '.join(SCORES)}, by which generative models are compared")


def check_process(target_N: np.ndarray) -> None:
    """Raises ValueError where rows were turned into noise in different ways."""
    processes = np.unique(target_N[:, : len(PROCESS)], axis=0)
    if len(processes) > 1:
        raise ValueError(explain_processes(*processes[:2]))


def explain_processes(first: np.ndarray, second: np.ndarray) -> str:
    """Why losses under two processes are not compared."""
    differing = [
        f"{name} {one:g} and {other:g}"
        for name, one, other in zip(PROCESS, first, second, strict=False)
        if one != other
    ]
    return (
        f"losses under different processes ({', '.join(differing)}) are of different tasks: less noise or other times "
        "make a lower loss, not a better model. Compare runs with the same process"
    )


def score_samples(target_N: np.ndarray, loss_NS: np.ndarray) -> dict[str, float | None]:
    """Every score; None of a bin without draws."""
    scores: dict[str, float | None] = {}
    for name in SCORES:
        sums_S = list_sums(name, target_N, loss_NS).sum(axis=0)
        scores[name] = float(sums_S[0] / sums_S[1]) if sums_S[1] else None
    return scores


def measure_error(metric: str, target_N: np.ndarray, loss_NS: np.ndarray) -> float:
    """The error by a metric's name.

    Raises:
        ValueError: an unknown metric, rows for which it is not defined, or that were not turned into noise alike.
    """
    check_metric(metric)
    check_process(target_N)
    total, number = list_sums(metric, target_N, loss_NS).sum(axis=0)
    if not number:
        raise ValueError(f"{metric} is not defined for these {len(target_N)} rows, none of which has such a time")
    return float(total / number)


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_KNS: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of all rows, (K,), and of drawn ones, (D, K); arguments as in `Kind.draw_errors`."""
    check_metric(metric)
    check_process(target_N)
    sums_KN2 = np.stack([list_sums(metric, target_N, one_NS) for one_NS in np.asarray(predictions_KNS)])
    if not sums_KN2[..., 1].any():
        raise ValueError(f"{metric} is not defined for these {len(target_N)} rows, none of which has such a time")
    whole_K, drawn_DK = draw_sums(sums_KN2, _divide, unit_N, num_draws, seed)
    return whole_K, drawn_DK[np.isfinite(drawn_DK).all(axis=1)]


def list_sums(metric: str, target_N: np.ndarray, loss_NS: np.ndarray) -> np.ndarray:
    """Of each row the sum of the losses that count and their number, (N, 2)."""
    counts_NS = np.ones(loss_NS.shape, bool)
    if metric.startswith(OF_BIN):
        counts_NS = find_bins(target_N[:, NUM_FACTS:]) == int(metric.removeprefix(OF_BIN))
    return np.stack([(loss_NS * counts_NS).sum(axis=1), counts_NS.sum(axis=1)], axis=1).astype(np.float64)


def find_bins(time_NS: np.ndarray) -> np.ndarray:
    """The bin of each time."""
    bins: np.ndarray = np.clip(np.digitize(time_NS, EDGES[1:-1]), 0, NUM_BINS - 1)
    return bins


def score_zero(target_N: np.ndarray) -> np.ndarray:
    """The losses of a model that always predicts zero, the mean grey: (N, S)."""
    clamp_N1, square_N1 = target_N[:, [len(PROCESS) - 1]], target_N[:, [NUM_FACTS - 1]]
    losses_NS: np.ndarray = square_N1 / np.maximum(1 - target_N[:, NUM_FACTS:], clamp_N1) ** 2
    return losses_NS


def describe_bins(time_NS: np.ndarray, loss_NS: np.ndarray) -> list[dict[str, Any]]:
    """Of each bin of times `low`, `high`, `num_draws`, the mean loss and its standard error over rows, None where there
    is none: the error of a ratio of sums, by the spread of the rows' own."""
    lines: list[dict[str, Any]] = []
    bins_NS = find_bins(time_NS)
    for number in range(-1, NUM_BINS):
        counts_NS = np.ones(bins_NS.shape, bool) if number < 0 else bins_NS == number
        low, high = (0.0, 1.0) if number < 0 else (EDGES[number], EDGES[number + 1])
        line = {"low": low, "high": high, "num_draws": int(counts_NS.sum()), "v_loss": None, "standard_error": None}
        if counts_NS.any():
            mean = float(loss_NS[counts_NS].mean())
            rest_N = ((loss_NS - mean) * counts_NS).sum(axis=1)
            line |= {"v_loss": mean, "standard_error": float(np.sqrt((rest_N**2).sum()) / counts_NS.sum())}
        lines.append(line)
    return lines


def _divide(sums_S: np.ndarray) -> np.ndarray:
    number = sums_S[..., 1]
    quotient: np.ndarray = np.where(number > 0, sums_S[..., 0] / np.where(number > 0, number, 1), np.nan)
    return quotient
