"""Pictures of a tuning: numbers and texts in, matplotlib figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from ensemble.figure_style import COLOURS, GREY, describe_panel, new_figure, shorten_name, use_log_if_wide

_COLUMNS, _MOST_FIELDS = 2, 12


def draw_history(numbers: Sequence[int], scores: Sequence[float], is_whole: Sequence[bool], metric: str) -> Figure:
    """The score of each trial in their order, and the best so far of those that have all folds.

    Args:
        numbers: of the trials; 0 is the recipe as it is.
        scores: lower is better.
        is_whole: whether a trial has trained all folds.
        metric: the score's name.
    """
    figure, (axes,) = new_figure(3.4)
    _scatter(axes, numbers, scores, is_whole)
    whole = [(number, score) for number, score, is_one in zip(numbers, scores, is_whole, strict=True) if is_one]
    if whole:
        best = np.minimum.accumulate([score for _, score in whole])
        axes.step([number for number, _ in whole], best, where="post", color=COLOURS[1], label="best so far")
    if numbers and numbers[0] == 0:
        axes.axhline(scores[0], color=GREY, linewidth=0.8, linestyle="--", label="the recipe as it is")
    use_log_if_wide(axes, scores)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    describe_panel(axes, f"{metric} by trial (lower is better)", "trial", metric)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_fields(
    values: Mapping[str, Sequence[str]],
    log_fields: Sequence[str],
    scores: Sequence[float],
    is_whole: Sequence[bool],
    metric: str,
) -> Figure:
    """The score against each tuned field; of many fields the first.

    Args:
        values: each field's value in each trial, as text; numbers are drawn on an axis, anything else side by side.
        log_fields: whose axis is logarithmic.
        scores, is_whole, metric: as in `draw_history`.
    """
    names = list(values)[:_MOST_FIELDS]
    rows = math.ceil(len(names) / _COLUMNS)
    figure, panels = new_figure(0.4 + 2.6 * rows, rows, min(_COLUMNS, len(names)), sharey=True)
    for axes, name in zip(panels, names, strict=False):
        read = [_as_number(value) for value in values[name]]
        numbers = [number for number in read if number is not None]
        if len(numbers) == len(read):
            _scatter(axes, numbers, scores, is_whole)
            if name in log_fields:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
                axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
                axes.xaxis.set_minor_formatter(NullFormatter())
            else:
                axes.xaxis.set_major_locator(MaxNLocator(5))
        else:
            choices = sorted(set(values[name]))
            _scatter(axes, [choices.index(value) for value in values[name]], scores, is_whole)
            axes.set_xticks(range(len(choices)), [shorten_name(choice, 14) for choice in choices])
            axes.set_xlim(-0.5, len(choices) - 0.5)
        use_log_if_wide(axes, scores)
        describe_panel(axes, name, "", metric if axes in panels[::_COLUMNS] else "")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    return figure


def _scatter(axes: Axes, places: Sequence[float], scores: Sequence[float], is_whole: Sequence[bool]) -> None:
    x_T, y_T, whole_T = np.array(places, float), np.array(scores, float), np.array(is_whole, bool)
    axes.plot(x_T[whole_T], y_T[whole_T], "o", color=COLOURS[0], markersize=5, label="all folds")
    if not whole_T.all():
        axes.plot(x_T[~whole_T], y_T[~whole_T], "x", color=GREY, markersize=5, label="stopped or failed after some")


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
