"""The error that the models of a cross-validation have on new rows, with one interval.

The out-of-fold error estimates the mean error of the fold models on new rows. A bootstrap over the rows holds how rows
differ and nothing else: the models and the rows that score them come from the same data, and the estimates of the folds
are correlated, so intervals of it cover less than they say (Bates, Hastie and Tibshirani 2021, "Cross-validation: what
does it estimate and how well does it do it?", https://arxiv.org/abs/2104.00673; that they cover asymptotically for
stable recipes: Bayle et al. 2020, https://arxiv.org/abs/2007.12671). Nested cross-validation would train each model
again K times. Here the bootstrap's interval is widened instead, by a factor that `benchmarks/new_error.py` has
measured.

Shape suffixes: N rows, D draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ensemble.kinds import Kind
from ensemble.members.comparison import number_units

LEVEL = 0.95
# What the bootstrap's interval lacks at 300 rows, by the number of folds, where models overfit; with more rows it lacks
# less. As measured: benchmarks/README.md says how often the widened interval holds.
_LACKING = {2: 0.3, 3: 0.3, 5: 0.35, 10: 0.45}
_MEASURED_ROWS, _FEWEST_ROWS = 300, 100
_NO_SPREAD = 1e-9  # relative to the error: rounding alone


@dataclass(frozen=True)
class NewError:
    """The error on new rows and the ends of its interval; lower is better.

    Attributes:
        widening: by how much the bootstrap's interval was widened.
        num_units: rows, or groups of rows, that were drawn.
    """

    error: float
    low: float
    high: float
    widening: float
    num_units: int


def estimate_new_error(
    kind: Kind,
    metric: str,
    target_N: np.ndarray,
    prediction_N: np.ndarray,
    num_folds: int | None,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
) -> NewError:
    """The mean error of the fold models on new rows, with an interval of LEVEL.

    Args:
        kind, metric: of the predictions.
        target_N, prediction_N: of the out-of-fold rows, as the kind keeps them.
        num_folds: whose models predict them; None: no model has seen any of them, as of a blend set.
        unit_N: of each row its group, where groups were kept together; new rows are then of new groups.
        num_draws: of the bootstrap; None: as many as the kind takes.

    Raises:
        ValueError: the metric is not defined for these rows, there are fewer than two units, or the error is the same
            in every sample, as where all answers are right: a bootstrap would claim to know it exactly.
    """
    from scipy.stats import norm, t

    errors_1, drawn_D1 = kind.draw_errors(metric, target_N, np.asarray(prediction_N)[None], unit_N, num_draws)
    error, num_units = float(errors_1[0]), number_units(unit_N, len(target_N))[1]
    low, high = np.quantile(drawn_D1[:, 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if high - low <= _NO_SPREAD * abs(error):
        raise ValueError(
            f"{num_units} rows on which the error is the same however they are drawn say nothing of others"
        )
    quantile = (1 + LEVEL) / 2
    widening = 1.0 if num_folds is None else find_widening(num_folds, num_units)
    widening *= float(t.ppf(quantile, num_units - 1) / norm.ppf(quantile))
    ends = (error - widening * (error - float(low)), error + widening * (float(high) - error))
    return NewError(error, *_clip(kind, metric, *ends), widening, num_units)


def _clip(kind: Kind, metric: str, low: float, high: float) -> tuple[float, float]:
    """The ends of an interval, not beyond what an error can be: from 0, and up to 1 where values are shares."""
    if kind.can_weigh_by(metric):
        low = max(0.0, low)
    return low, min(high, kind.describe_metric(metric).most or math.inf)


def find_widening(num_folds: int, num_units: int) -> float:
    """The factor for a number of folds (of those that were measured the next smaller one) and of rows: what is lacking
    falls with the root of their number."""
    lacking = _LACKING[max(known for known in _LACKING if known <= max(2, num_folds))]
    return 1 + lacking * math.sqrt(_MEASURED_ROWS / max(_FEWEST_ROWS, num_units))
