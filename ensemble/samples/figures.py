"""Pictures of how good generative models are. Arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.figure import Figure

from ensemble.figure_style import COLOURS, GREY, add_legend_below, describe_panel, new_figure
from ensemble.pictures import Picture, Results
from ensemble.samples.outcome import describe_losses

_SERIES = {
    "model": ("models, on rows that they did not see", COLOURS[0], "-", "o"),
    "floor": ("best possible model", COLOURS[2], "--", "v"),
    "memoriser": ("training rows by heart", COLOURS[1], "--", "^"),
    "zero": ("always the mean grey", GREY, ":", "s"),
}


def draw_loss_by_time(losses: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """The loss in each bin of times with its standard error, beside those of others on the same rows."""
    figure, (axes,) = new_figure(4.6)
    handles, labels = [], []
    for name, (label, colour, line, marker) in _SERIES.items():
        if name not in losses:
            continue
        bins = [one for one in losses[name][1:] if one["v_loss"] is not None]
        middle = [(one["low"] + one["high"]) / 2 for one in bins]
        values = np.maximum([one["v_loss"] for one in bins], 1e-4)
        handles.append(
            axes.errorbar(
                middle,
                values,
                [one["standard_error"] for one in bins] if name == "model" else None,
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                capsize=3,
            )
        )
        whole = losses[name][0]
        labels.append(
            f"{label}: {whole['v_loss']:.4g}" + (f" ± {whole['standard_error']:.2g}" if name == "model" else "")
        )
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    describe_panel(
        axes, "v-loss by time", "time t, from noise (0) to the clean row (1)", "v-loss (below 0.0001 as 0.0001)"
    )
    add_legend_below(figure, labels, handles)
    return figure


def _read_losses(results: Results) -> dict[str, list[dict[str, Any]]]:
    return describe_losses(results.oof.filter(pc.equal(results.oof["member"], "main")))


PICTURES: tuple[str | Picture, ...] = (
    Picture(
        "loss_by_time",
        "Loss by time",
        "Between the best possible model, where it is known, and one that has the training rows by heart: what is "
        "below the latter has learned more than its rows. Bars are standard errors over rows.",
        lambda run: draw_loss_by_time(_read_losses(run)),
    ),
    "members_and_combinations",
    "performance_by_fold",
    "loss_of_all_folds",
    "score_of_all_folds",
    "timings",
)
