"""How a number becomes the input of a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NumberEncoder:
    """Piecewise-linear encoding of one number over quantile bins of the training rows.

    Bin t is 0 below it, 1 above it and rises linearly within it, so that a linear layer can learn any piecewise-linear
    function of the number (Gorishniy, Rubachev, Babenko 2022, "On Embeddings for Numerical Features in Tabular Deep
    Learning", equation 1, https://arxiv.org/abs/2203.05556). First and last bin do not extrapolate: what is outside the
    training range is treated like its end.

    Attributes:
        edges: increasing bin edges.
        median: stands for a missing value.
        marks_missing: whether a further column says that a value is missing; only if training rows have missing values,
            for otherwise nothing could be learned of it.
    """

    edges: tuple[float, ...]
    median: float
    marks_missing: bool

    @staticmethod
    def fit(values_B: np.ndarray, num_bins: int) -> NumberEncoder:
        """From the training rows' values, (B,), NaN where missing. Equal quantiles are merged."""
        known = values_B[np.isfinite(values_B)]
        if len(known) == 0:
            return NumberEncoder((-0.5, 0.5), 0.0, True)
        edges = np.unique(np.quantile(known, np.linspace(0, 1, num_bins + 1)))
        if len(edges) == 1:
            edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
        return NumberEncoder(tuple(edges.tolist()), float(np.median(known)), len(known) < len(values_B))

    @property
    def width(self) -> int:
        """Columns of `encode`."""
        return len(self.edges) - 1 + self.marks_missing

    def encode(self, values_B: np.ndarray) -> np.ndarray:
        """(B, width) float32."""
        missing_B = np.isnan(values_B)
        filled_B1 = np.where(missing_B, self.median, values_B)[:, None]
        low, high = np.array(self.edges[:-1]), np.array(self.edges[1:])
        columns = [np.clip((filled_B1 - low) / (high - low), 0, 1)]
        if self.marks_missing:
            columns.append(missing_B[:, None])
        return np.concatenate(columns, axis=1).astype(np.float32)
