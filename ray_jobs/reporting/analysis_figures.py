"""The pictures of recorded trainings: curves in, matplotlib figures out. Reads and writes no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ensemble.figure_style import (
    COLOURS,
    GREY,
    add_legend_below,
    count_epochs,
    describe_panel,
    new_figure,
    space_markers,
    start_at_zero,
    style_series,
    use_log_if_wide,
)
from ray_jobs.reporting.curves import Curve

WINDOW = 100
_MOST_POINTS = 4000


def draw_training(curves: Sequence[Curve]) -> Figure:
    """Four panels: losses, range of the batch losses, learning rate, time per epoch."""
    figure, (losses, ranges, rates, times) = new_figure(6.4, 2, 2)
    for number, curve in enumerate(curves):
        epochs, style = curve.epochs, style_series(number)
        draw_line(losses, epochs, "Avg_Loss", style)
        losses.plot(epochs["Epoch"], epochs["Best_Loss_So_Far"], ":", color=style["color"], linewidth=1)
        if curve.validation_loss:
            dashed = {"color": style["color"], "linestyle": "--", "marker": "x", "markersize": 4}
            draw_line(losses, epochs, curve.validation_loss, dashed)
        low, high = epochs["Min_Batch_Loss"], epochs["Max_Batch_Loss"]
        ranges.fill_between(epochs["Epoch"], low, high, color=style["color"], alpha=max(0.08, 0.3 / len(curves)))
        draw_line(ranges, epochs, "Avg_Loss", style)
        draw_line(rates, epochs, "Learning_Rate", style)
        draw_line(times, epochs, "Epoch_Time_Seconds", style)
    describe_panel(losses, "Loss", "epoch", "loss")
    _explain_lines(losses, has_validation=any(curve.validation_loss for curve in curves))
    describe_panel(ranges, "Batch losses: range and mean", "epoch", "loss")
    describe_panel(rates, "Learning rate", "epoch", "learning rate")
    describe_panel(times, "Time per epoch", "epoch", "seconds")
    start_at_zero(times)
    for axes in (losses, ranges, rates, times):
        count_epochs(axes, curves[0].unit)
    for axes in (losses, ranges):
        use_log_if_wide(
            axes, pd.concat([curve.epochs[["Min_Batch_Loss", "Max_Batch_Loss", "Avg_Loss"]] for curve in curves])
        )
    add_legend_below(figure, [curve.label for curve in curves])
    return figure


def draw_stats(curves: Sequence[Curve]) -> Figure:
    """Two panels: by how much each epoch lowered the mean loss, and how wide the batch losses of an epoch spread."""
    figure, (gains, spreads) = new_figure(3.8, 1, 2)
    for number, curve in enumerate(curves):
        style, epochs = style_series(number), curve.epochs
        draw_line(gains, epochs.assign(gain=-epochs["Avg_Loss"].diff()), "gain", style)
        spread = (epochs["Max_Batch_Loss"] - epochs["Min_Batch_Loss"]) / epochs["Avg_Loss"].abs()
        draw_line(spreads, epochs.assign(spread=spread), "spread", style)
    gains.axhline(0, color=GREY, linewidth=1)
    describe_panel(gains, "Improvement per epoch (above 0: better)", "epoch", "fall of the mean loss")
    describe_panel(spreads, "Batch-loss stability (lower: steadier)", "epoch", "(highest − lowest) / mean loss")
    start_at_zero(spreads)
    if max(len(curve.epochs) for curve in curves) < 2:
        gains.text(0.5, 0.55, "there is one epoch only", ha="center", transform=gains.transAxes)
    for axes in (gains, spreads):
        count_epochs(axes, curves[0].unit)
    add_legend_below(figure, [curve.label for curve in curves])
    return figure


def draw_batches(curves: Sequence[Curve]) -> Figure | None:
    """Batch losses with a 100-batch moving average, and their spread in each epoch; None without batches."""
    curves = [curve for curve in curves if not curve.batches.empty]
    if not curves:
        return None
    figure, (along, by_epoch) = new_figure(6.4, 2, 1)
    for number, curve in enumerate(curves):
        loss, style = curve.batches["Loss"].reset_index(drop=True), style_series(number)
        average = loss.rolling(WINDOW, min_periods=1).mean()
        every = max(1, len(loss) // _MOST_POINTS)
        along.plot(loss[::every], color=style["color"], alpha=0.25, linewidth=0.6)
        along.plot(average[::every], color=style["color"], linestyle=style["linestyle"], linewidth=1.8)
        _draw_spread(by_epoch, curve.batches, style)
    describe_panel(along, f"Batch loss, and the mean of the last {WINDOW} batches (thick)", "batch", "loss")
    describe_panel(by_epoch, "Batch losses of each epoch: median, 5 % to 95 % (band)", "epoch", "loss")
    count_epochs(by_epoch, curves[0].unit)
    along.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (along, by_epoch):
        use_log_if_wide(axes, pd.concat([curve.batches["Loss"] for curve in curves]))
    add_legend_below(figure, [curve.label for curve in curves])
    return figure


def draw_comparison(runs: Mapping[str, Sequence[Curve]]) -> Figure:
    """Several runs: a colour each, folds thin, the mean over the folds thick."""
    panels = {"Training loss": "Avg_Loss", "Validation loss": "validation", "Score": "score"}
    panels |= {"Time per epoch (s)": "Epoch_Time_Seconds"}
    tables = {name: [_with_validation(curve) for curve in curves] for name, curves in runs.items()}
    known = {
        title: column
        for title, column in panels.items()
        if any(column in table and table[column].notna().any() for group in tables.values() for table in group)
    }
    figure, axes = new_figure(3.3 * ((len(known) + 1) // 2), (len(known) + 1) // 2, 2)
    for panel in axes[len(known) :]:
        panel.set_visible(False)
    for panel, (title, column) in zip(axes, known.items(), strict=False):
        for number, group in enumerate(tables.values()):
            _draw_group(panel, [table for table in group if column in table], column, number)
        describe_panel(panel, title, "epoch", "seconds" if "Time" in title else title.lower())
        count_epochs(panel)
        use_log_if_wide(
            panel, pd.concat([table[column] for group in tables.values() for table in group if column in table])
        )
    add_legend_below(figure, list(runs))
    return figure


def draw_line(axes: Axes, epochs: pd.DataFrame, column: str, style: dict[str, Any]) -> None:
    """A column over the epochs, with a marker now and then."""
    axes.plot(epochs["Epoch"], epochs[column], **style, markevery=space_markers(len(epochs)), linewidth=1.6)


def _draw_group(axes: Axes, tables: Sequence[pd.DataFrame], column: str, number: int) -> None:
    style = style_series(number)
    for table in tables:
        axes.plot(table["Epoch"], table[column], color=style["color"], alpha=0.45, linewidth=0.8)
    if tables:
        by_epoch = pd.concat(tables).groupby("Epoch")[column]
        # Where a fold has stopped the mean would jump: it is drawn as far as all folds have come.
        mean = by_epoch.mean()[by_epoch.count() == len(tables)]
        axes.plot(mean, **style, markevery=space_markers(len(mean)), linewidth=2.4)


def _draw_spread(axes: Axes, batches: pd.DataFrame, style: dict[str, Any]) -> None:
    by_epoch = batches.groupby("Epoch")["Loss"]
    low, middle, high = (by_epoch.quantile(q) for q in (0.05, 0.5, 0.95))
    axes.fill_between(low.index, low, high, color=style["color"], alpha=0.15)
    axes.plot(middle, **style, markevery=space_markers(len(middle)), linewidth=1.6)


def _with_validation(curve: Curve) -> pd.DataFrame:
    name = curve.validation_loss
    return curve.epochs if name is None else curve.epochs.assign(validation=curve.epochs[name])


def _explain_lines(axes: Axes, *, has_validation: bool) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "training mean": {"marker": "o", "markersize": 4},
        "best so far": {"linestyle": ":"},
    }
    if has_validation:
        kinds["validation"] = {"linestyle": "--", "marker": "x", "markersize": 4}
    handles = [Line2D([], [], color=COLOURS[-1], label=name, **style) for name, style in kinds.items()]
    axes.legend(handles=handles, frameon=False, fontsize="small")
