"""Are the rows exchangeable, as the guarantee of CV+ demands? Two looks at what a cross-validation leaves behind.

- **Order.** The out-of-fold errors in the order of the table: if rows are exchangeable, any order of them is as likely.
  A permutation test compares how far the mean ranks of ten parts of the table differ with the same of shuffled rows.
- **New rows.** What a fold's model predicts of the rows that it validates and of the rows to predict: if these are
  exchangeable, both have one distribution. The two-sample test of Kolmogorov and Smirnov, which is a permutation test
  of ranks, for each fold; the least p value counts times the number of folds (Bonferroni).

Neither proves that rows are exchangeable. A test that rejects shows that they are not.

Shape suffixes: N rows, K folds, T rows to predict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05  # of both tests together
_NUM_PARTS, _NUM_DRAWS = 10, 999


@dataclass(frozen=True)
class Exchangeability:
    """The p values of both tests; None: there is nothing to test."""

    order: float | None
    new_rows: float | None

    @property
    def is_rejected(self) -> bool:
        """Whether the rows are shown not to be exchangeable."""
        found = [p for p in (self.order, self.new_rows) if p is not None]
        return any(p * len(found) < LEVEL for p in found)


def judge_order(error_N: np.ndarray, seed: int = 0) -> float | None:
    """The p value of the errors' order; None of too few rows.

    Args:
        error_N: signed errors in the order of the table.
        seed: of the permutations.
    """
    from scipy.stats import rankdata

    num_rows = len(error_N)
    if num_rows < 2 * _NUM_PARTS:
        return None
    ranks = np.stack([rankdata(error_N), rankdata(np.abs(error_N))])  # by their direction and by their size
    edges = np.linspace(0, num_rows, _NUM_PARTS + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, num_rows))

    def measure(ranks_2N: np.ndarray) -> float:
        means = np.add.reduceat(ranks_2N, edges, axis=1) / sizes
        spread: np.ndarray = (sizes * (means - (num_rows + 1) / 2) ** 2).sum(axis=1)
        return float(spread.max())

    rng, found = np.random.default_rng(seed), measure(ranks)
    as_far = sum(measure(ranks[:, rng.permutation(num_rows)]) >= found for _ in range(_NUM_DRAWS))
    return (as_far + 1) / (_NUM_DRAWS + 1)


def judge_new_rows(validated: Sequence[np.ndarray], to_predict: Sequence[np.ndarray]) -> float | None:
    """The p value of the predictions of validated and of new rows; None without new rows.

    Args:
        validated: for each fold what its model predicts of the rows that it validates, (n,).
        to_predict: for each fold what it predicts of the new rows, (T,).
    """
    from scipy.stats import ks_2samp

    if not validated or not min(map(len, to_predict), default=0):
        return None
    found = [ks_2samp(*pair).pvalue for pair in zip(validated, to_predict, strict=True)]
    return float(min(1.0, len(found) * min(found)))
