"""Combining the predictions of M models for N rows into one, by methods that fit nothing.

In z space the combination is done on log1p of the predictions: where the metric is a squared error of logs, the mean
there is the combination whose error is never above the models' mean error, while a mean of raw predictions is pulled
up by the largest (by Jensen's inequality it is never below the log mean).

The rows are worked on in blocks that stay in the processor's cache, so that beside the result no more memory is used
than a block.

Shape suffixes: M models, N rows, B rows of a block.
"""

from __future__ import annotations

import functools

import numpy as np

from ensemble.config import METHODS, SPACES

_BLOCK_VALUES = 2**18  # 2 MiB of float64
_SCALES = {"raw": (None, None), "z": (np.log1p, np.expm1), "log": (np.log, np.exp)}


def combine(
    predictions_MN: np.ndarray, method: str, space: str, weights_M: np.ndarray | None = None, trim: float = 0.2
) -> np.ndarray:
    """One prediction for each row.

    The geometric mean is that of the predictions in raw space (0 where a model says 0, its limit) and that of
    1 + prediction, less 1, in z space, which is the mean there bit for bit.

    Args:
        predictions_MN: non-negative predictions in the target's unit.
        method: mean, median, trimmed_mean, geometric_mean or weighted_mean.
        space: z (log1p) or raw.
        weights_M: for weighted_mean; adds up to 1.
        trim: for trimmed_mean, the share of the models left out at each end, from 0 and below 0.5; as in
            `scipy.stats.trim_mean` int(trim · M) models are, so 0.2 leaves out none of fewer than 5.

    Returns:
        (N,) float64, in the target's unit.

    Raises:
        ValueError: unknown method or space, weights that do not fit the models, or predictions that are NaN, infinite
            or not on the space's scale.
    """
    if method not in METHODS or space not in SPACES:
        raise ValueError(f"method {method!r}, space {space!r}: expected one of {METHODS} and one of {SPACES}")
    predictions_MN = np.asarray(predictions_MN)
    if predictions_MN.ndim != 2 or not len(predictions_MN):
        raise ValueError(f"predictions {predictions_MN.shape}: expected (models, rows) of at least one model")
    num_models, num_rows = predictions_MN.shape
    weights_M = _check_weights(weights_M, num_models) if method == "weighted_mean" else None
    num_cut = _count_cut(method, num_models, trim)
    scale = "log" if (method, space) == ("geometric_mean", "raw") else space
    width = min(num_rows, max(1, _BLOCK_VALUES // num_models))
    values_MB, combined_N = np.empty((num_models - 2 * num_cut, width)), np.empty(num_rows)
    for start in range(0, num_rows, width or 1):
        block_MB, combined_B = predictions_MN[:, start : start + width], combined_N[start : start + width]
        kept_MB = _keep_middle(block_MB, num_cut) if num_cut else block_MB
        _average(kept_MB, scale, weights_M, values_MB[:, : len(combined_B)], combined_B)
        if not np.isfinite(combined_B).all():
            _refuse(block_MB, method, space)
    return combined_N


def _check_weights(weights_M: np.ndarray | None, num_models: int) -> np.ndarray:
    if weights_M is None or len(weights_M) != num_models:
        found = "none" if weights_M is None else f"{len(weights_M)}"
        raise ValueError(f"weighted_mean of {num_models} models needs {num_models} weights, found {found}")
    return np.asarray(weights_M, np.float64)


def _count_cut(method: str, num_models: int, trim: float) -> int:
    """How many models are left out at each end; the median leaves one or two."""
    if method == "trimmed_mean" and not 0 <= trim < 0.5:
        raise ValueError(f"trim={trim}: expected a share from 0 and below 0.5 to leave out at each end")
    return {"median": (num_models - 1) // 2, "trimmed_mean": int(trim * num_models)}.get(method, 0)


def _average(
    kept_MB: np.ndarray | list[np.ndarray],
    scale: str,
    weights_M: np.ndarray | None,
    values_MB: np.ndarray,
    out_B: np.ndarray,
) -> None:
    """Writes the (weighted) mean on a scale into `out_B`; `values_MB` is room for the scaled values."""
    forward, backward = _SCALES[scale]
    for values_B, kept_B in zip(values_MB, kept_MB, strict=True):
        np.copyto(values_B, kept_B)
    with np.errstate(divide="ignore", invalid="ignore"):
        if forward:
            forward(values_MB, out=values_MB)
        if weights_M is None:
            np.mean(values_MB, axis=0, out=out_B)
        else:
            np.matmul(weights_M, values_MB, out=out_B)
        if backward:
            backward(out_B, out=out_B)


def _keep_middle(block_MB: np.ndarray, num_cut: int) -> list[np.ndarray]:
    """Each row's predictions without the lowest and highest, M - 2 · num_cut arrays (B,); NaN where one is NaN or
    infinite."""
    rows = _sort_models(block_MB)
    kept = rows[num_cut : len(rows) - num_cut]
    kept[0] = np.where(np.isfinite(rows[0]) & np.isfinite(rows[-1]), kept[0], np.nan)
    return kept


def _sort_models(block_MB: np.ndarray) -> list[np.ndarray]:
    """Each row's predictions in ascending order: M arrays (B,); a NaN spreads to all of them.

    Whole arrays are compared at a time, in the order of a sorting network (Batcher 1968,
    https://doi.org/10.1145/1468075.1468121): a tenth of the time of sorting row by row.
    """
    rows = [row.copy() for row in block_MB]
    spare = np.empty_like(rows[0])
    for low, high in _list_comparisons(len(rows)):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    return rows


@functools.cache
def _list_comparisons(num: int) -> list[tuple[int, int]]:
    """Batcher's merge exchange for any number of inputs (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm
    M)."""
    top = 1 << max(0, (num - 1).bit_length() - 1)
    pairs, size = [], top
    while size:
        distance, rest, width = size, 0, top
        while True:
            pairs += [(i, i + distance) for i in range(num - distance) if i & size == rest]
            if width == size:
                break
            distance, rest, width = width - size, size, width // 2
        size //= 2
    return pairs


def _refuse(block_MB: np.ndarray, method: str, space: str) -> None:
    bad = int((~np.isfinite(block_MB)).sum())
    if bad:
        raise ValueError(f"{bad} predictions are NaN or infinite: a model has failed on these rows")
    wanted = "above -1" if space == "z" else "from 0"
    raise ValueError(f"{method} in {space} space needs predictions {wanted}; the lowest is {block_MB.min()}")
