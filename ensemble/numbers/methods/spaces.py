"""The two scales on which predictions are combined and compared: raw, the target's unit, and z, its log1p."""

from __future__ import annotations

import numpy as np

from ensemble.config import SPACES


def to_space(values: np.ndarray, space: str) -> np.ndarray:
    """Values in the target's unit on the scale of a space; float64, a new array in z space.

    Raises:
        ValueError: an unknown space; NaN or infinity; in z space a value of -1 or less.
    """
    if space not in SPACES:
        raise ValueError(f"space {space!r}: expected one of {SPACES}")
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log1p(values, dtype=np.float64) if space == "z" else np.asarray(values, np.float64)
    if not np.isfinite(scaled).all():
        raise ValueError(f"{(~np.isfinite(scaled)).sum()} of {scaled.size} values are not finite{_or_too_low(space)}")
    return scaled


def from_space(scaled: np.ndarray, space: str) -> np.ndarray:
    """Back to the target's unit."""
    return np.expm1(scaled) if space == "z" else scaled


def _or_too_low(space: str) -> str:
    return ", or are -1 or less, which z space (log1p) cannot hold" if space == "z" else ""
