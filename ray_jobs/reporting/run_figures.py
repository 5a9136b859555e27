"""The pictures that are drawn from a run's record: curves of all folds, weights, timings. Arrays and tables in, figures
out.

Names of weights, metrics and folds come from the record; nothing here knows a model family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ensemble.figure_style import (
    COLOURS,
    GREY,
    add_legend_below,
    count_epochs,
    describe_panel,
    mark_bars,
    new_figure,
    style_series,
    use_log_if_wide,
)
from ray_jobs.reporting.analysis import name_score
from ray_jobs.reporting.analysis_figures import draw_line
from ray_jobs.reporting.curves import Curve
from ray_jobs.runs.json_files.status import FoldState, FoldStatus

WEIGHTS = "weights/"


def draw_losses(curves: Sequence[Curve]) -> Figure:
    """Training and validation loss of all folds, on one scale where both are recorded."""
    has_validation = any(curve.validation_loss for curve in curves)
    figure, panels = new_figure(4.4, 1, 2 if has_validation else 1, sharey=True)
    names: list[tuple[str, Callable[[Curve], str | None]]] = [
        ("Training loss", lambda curve: "Avg_Loss"),
        ("Validation loss", lambda curve: curve.validation_loss),
    ]
    values = []
    for axes, (title, choose) in zip(panels, names, strict=False):
        for number, curve in enumerate(curves):
            if column := choose(curve):
                draw_line(axes, curve.epochs, column, style_series(number))
                values.append(curve.epochs[column].to_numpy())
        describe_panel(axes, title, "epoch", "loss" if axes is panels[0] else "")
        count_epochs(axes, curves[0].unit)
    use_log_if_wide(panels[0], np.concatenate(values))
    add_legend_below(figure, [curve.label for curve in curves])
    return figure


def list_weights(curves: Sequence[Curve]) -> list[str]:
    """Names of the recorded weights, `weights/...`, in the order of the record."""
    return list(dict.fromkeys(name for curve in curves for name in curve.epochs if name.startswith(WEIGHTS)))


def draw_weights(curves: Sequence[Curve]) -> Figure:
    """Every recorded weight over the epochs, a panel each on one scale, all folds."""
    names = list_weights(curves)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(0.9 + 2.9 * rows, rows, columns, sharey=True, sharex=True)
    for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
        for number, curve in enumerate(curves):
            if name in curve.epochs:
                draw_line(axes, curve.epochs, name, style_series(number))
        describe_panel(axes, name.removeprefix(WEIGHTS), "epoch", "weight" if place % columns == 0 else "")
        count_epochs(axes, curves[0].unit)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    add_legend_below(figure, [curve.label for curve in curves])
    return figure


def draw_scores(curves: Sequence[Curve]) -> Figure:
    """The score by which best is chosen, over the epochs; a ring marks each fold's best epoch."""
    figure, (axes,) = new_figure(4.4)
    for number, curve in enumerate(curves):
        epochs, style = curve.epochs, style_series(number)
        draw_line(axes, epochs, "score", style)
        known = epochs.dropna(subset="score")
        if not known.empty:
            best = known.loc[known["score"].idxmin()]
            axes.plot(best["Epoch"], best["score"], "o", color=style["color"], markersize=12, fillstyle="none")
    use_log_if_wide(axes, np.concatenate([curve.epochs["score"].to_numpy() for curve in curves]))
    describe_panel(axes, f"Score by {curves[0].unit} (lower is better)", "epoch", name_score(curves[0]))
    count_epochs(axes, curves[0].unit)
    ring = Line2D([], [], color=GREY, marker="o", markersize=10, fillstyle="none", linestyle="")
    handles = [Line2D([], [], **style_series(number)) for number in range(len(curves))]
    add_legend_below(figure, [*(curve.label for curve in curves), f"best {curves[0].unit}"], [*handles, ring])
    return figure


def draw_final_weights(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> Figure:
    """The weights with which each fold model predicts.

    Args:
        columns: `fold`, then a name for each weight.
        rows: fold number and weights of each fold.
    """
    names, values = columns[1:], np.array([row[1:] for row in rows], np.float64)
    figure, (axes,) = new_figure(3.8)
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        places = np.arange(len(rows)) + (number - (len(names) - 1) / 2) * width
        bars = axes.bar(places, values[:, number], 0.92 * width, color=COLOURS[number % len(COLOURS)], label=name)
        if values.size <= 15:
            mark_bars(axes, bars, "%.3f")
    axes.set_xticks(range(len(rows)), [f"{columns[0]} {row[0]}" for row in rows], rotation=0 if len(rows) < 9 else 45)
    axes.axhline(0, color="black", linewidth=1)
    axes.margins(y=0.12)
    describe_panel(axes, "Weights of each fold's model", "", "weight")
    add_legend_below(figure, names, axes.containers)
    return figure


def draw_timings(statuses: Sequence[FoldStatus], phases: Mapping[str, float]) -> Figure:
    """When each fold trained, and how long each phase of the driver took.

    Args:
        statuses: of every fold; one that was never started has no bar.
        phases: wall time in seconds by name; `total` is left out.
    """
    phases = {name: seconds for name, seconds in phases.items() if name != "total"}
    heights = (0.7 + 0.32 * len(statuses), 0.7 + 0.32 * max(1, len(phases)))
    figure, (folds, parts) = new_figure(1.2 + sum(heights), 2, 1, height_ratios=heights)
    _draw_folds(folds, statuses)
    _draw_phases(parts, phases)
    return figure


def _draw_folds(axes: Axes, statuses: Sequence[FoldStatus]) -> None:
    times = [(status.started, status.finished) for status in statuses if status.started and status.finished]
    first = min((started for started, _ in times), default=0.0)
    longest = max((finished - started for started, finished in times), default=0.0)
    span = max((finished - first for _, finished in times), default=0.0)
    # Folds that were added much later would be dots at the far end: then all bars begin at 0.
    together = span <= 20 * longest
    size, unit, whole_name = _choose_unit(span if together else longest)
    for place, status in enumerate(statuses):
        _draw_fold(axes, place, status, first if together else status.started, size, unit)
    _list_rows(axes, [f"fold {status.fold}" for status in statuses])
    since = "the first fold started" if together else "its own start"
    describe_panel(axes, "Training of the folds", f"{whole_name} since {since}", "")


def _draw_phases(axes: Axes, phases: Mapping[str, float]) -> None:
    size, unit, whole_name = _choose_unit(max(phases.values(), default=0.0))
    lengths = [seconds / size for seconds in phases.values()]
    mark_bars(axes, axes.barh(range(len(phases)), lengths, 0.6, color=COLOURS[2]), f"%.2f {unit}")
    _list_rows(axes, [name.replace("_", " ") for name in phases])
    describe_panel(axes, "Phases of the driver", whole_name, "")


def _draw_fold(axes: Axes, place: int, status: FoldStatus, origin: float | None, size: float, unit: str) -> None:
    if status.started is None or status.finished is None or origin is None or status.state == FoldState.TRAINING:
        axes.text(0, place, f" {status.state.value}", va="center", fontsize="small", color=GREY)
        return
    is_failed = status.state == FoldState.FAILED
    length, left = (status.finished - status.started) / size, (status.started - origin) / size
    style: dict[str, Any] = {"color": COLOURS[1], "hatch": "//"} if is_failed else {"color": COLOURS[0]}
    mark_bars(axes, axes.barh(place, length, 0.6, left=left, **style), f"%.2f {unit}" + " (failed)" * is_failed)


def _list_rows(axes: Axes, labels: Sequence[str]) -> None:
    """One row a label, the first on top, with room for a number at the end of each bar."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axes.margins(x=0.15)


def _choose_unit(seconds: float) -> tuple[float, str, str]:
    """The unit in which so many seconds read well: its length in seconds, its sign and its name."""
    units = ((3600.0, "h", "hours"), (60.0, "min", "minutes"))
    return next((unit for unit in units if seconds > 3 * unit[0]), (1.0, "s", "seconds"))
