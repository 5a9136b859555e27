"""Pictures of how good predictions are, on rows whose target is known. Arrays in, matplotlib figures out.

Shape suffixes: N rows.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ensemble.figure_style import (
    COLOURS,
    describe_panel,
    draw_cloud,
    draw_histogram,
    label_as_raw,
    new_figure,
)

_NUM_GROUPS = 12


def draw_predicted_against_actual(target_N: np.ndarray, prediction_N: np.ndarray, target: str) -> Figure:
    """Each row's prediction against its true value, both on log axes, with the line of perfect predictions."""
    x_N, y_N = np.log1p(target_N), np.log1p(prediction_N)
    figure, (axes,) = new_figure(5.6)
    draw_cloud(figure, axes, x_N, y_N)
    both = np.concatenate([x_N, y_N])
    limits = (both.min(), both.max())
    axes.plot(limits, limits, color=COLOURS[1], linestyle="--", linewidth=2, label="prediction = truth")
    axes.set_aspect("equal")
    label_as_raw(axes.xaxis, both)
    label_as_raw(axes.yaxis, both)
    axes.legend(frameon=False, loc="upper left")
    describe_panel(axes, "Out-of-fold predictions", f"actual {target} (log axis)", f"predicted {target} (log axis)")
    return figure


def draw_residuals(target_N: np.ndarray, prediction_N: np.ndarray, target: str) -> Figure:
    """log1p(prediction) − log1p(truth): its distribution, and against the prediction with the median of equal
    groups."""
    x_N = np.log1p(prediction_N)
    residual_N = x_N - np.log1p(target_N)
    figure, (distribution, against) = new_figure(4.2, 1, 2, sharey=True, width_ratios=(2, 3))
    draw_histogram(distribution, residual_N)
    mean, std = residual_N.mean(), residual_N.std()
    distribution.axhline(mean, color=COLOURS[1], linestyle="--", label=f"mean {mean:+.3f}\nstd {std:.3f}")
    distribution.legend(frameon=False, fontsize="small")
    draw_cloud(figure, against, x_N, residual_N)
    against.axhline(0, color="black", linewidth=1)
    groups = np.array_split(np.argsort(x_N), min(_NUM_GROUPS, max(1, len(x_N) // 10)))
    middle = [(np.median(x_N[rows]), np.median(residual_N[rows])) for rows in groups]
    against.plot(*zip(*middle, strict=True), "-o", color=COLOURS[1], markersize=4, label="median")
    against.legend(frameon=False, fontsize="small")
    label_as_raw(against.xaxis, x_N)
    describe_panel(distribution, "Residuals", "rows", "log1p(predicted) − log1p(actual)\n(+: too high)")
    describe_panel(against, "By prediction", f"predicted {target} (log axis)", "")
    return figure
