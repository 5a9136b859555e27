"""Pictures of scores, whatever is predicted: of folds, and of models and their combinations. Numbers in, matplotlib
figures out.

Shape suffixes: F folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ensemble.figure_style import COLOURS, GREY, as_text, describe_panel, new_figure, shorten_name

_COLUMNS = 4  # of a gallery
_MOST_LISTED = 12
_KINDS = {
    "best": ("o", COLOURS[0], -0.27, "best checkpoint"),
    "final": ("D", COLOURS[4], 0.0, "final checkpoint"),
    "constant": ("X", GREY, 0.27, "constant predictor"),
}


def draw_performance(
    scores_F: Sequence[Mapping[str, float]],
    labels: Sequence[str],
    overall: Mapping[str, float],
    metric: str,
    *,
    higher_is_better: bool = False,
) -> Figure:
    """Score of each fold, and of all out-of-fold predictions: best and final checkpoint beside the constant predictor.

    Args:
        scores_F: {"best": score, "final": score, "constant": score} of each fold; NaN where the metric is not defined.
        labels: a name for each fold.
        overall: the same on all out-of-fold rows.
        metric: its name.
        higher_is_better: of the metric.
    """
    rows = [*zip(labels, scores_F, strict=True), ("out of fold", overall)]
    figure, (axes,) = new_figure(1.7 + 0.48 * len(rows))
    for kind, (marker, colour, shift, label) in _KINDS.items():
        values = [scores[kind] for _, scores in rows]
        places = np.arange(len(rows)) + shift  # equal errors must not hide each other
        axes.plot(values, places, marker, color=colour, markersize=7, label=label)
        for value, place in (pair for pair in zip(values, places, strict=True) if np.isfinite(pair[0])):
            axes.annotate(
                f"{value:.4g}", (value, place), (8, 0), textcoords="offset points", va="center", fontsize="small"
            )
    axes.axhline(len(rows) - 1.5, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    every = np.array([value for _, scores in rows for value in scores.values()], np.float64)
    axes.set_xlim(
        *(1.12 * end(np.append(every, 0.0)) for end in (np.nanmin, np.nanmax))
    )  # scorers have negative values, too
    better = "right" if higher_is_better else "left"
    describe_panel(axes, f"{metric} by fold ({better} is better)", metric, "")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_intervals(rows: Sequence[Mapping[str, Any]], metric: str, reference: str) -> Figure:
    """Error of members and combinations, and what each differs from the best member by, with their intervals; best
    first.

    Args:
        rows: `name`, `kind` (member or combination), `submitted`, `error`, `low`, `high`, `difference`,
            `difference_low`, `difference_high` of each.
        metric: its name; lower is better.
        reference: name of the best member.
    """
    rows = sorted(rows, key=lambda row: row["error"])
    figure, (left, right) = new_figure(1.9 + 0.34 * len(rows), columns=2)
    for axes, value, low, high in (
        (left, "error", "low", "high"),
        (right, "difference", "difference_low", "difference_high"),
    ):
        for place, row in enumerate(rows):
            colour = COLOURS[1] if row["submitted"] else COLOURS[4] if row["kind"] == "member" else COLOURS[0]
            axes.plot([row[low], row[high]], [place, place], color=colour, linewidth=2)
            axes.plot(row[value], place, "o", color=colour, markersize=6)
        axes.set_yticks(
            range(len(rows)), [shorten_name(row["name"]) for row in rows] if axes is left else [""] * len(rows)
        )
        axes.set_ylim(len(rows) - 0.5, -0.5)
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    describe_panel(left, f"{metric} out of fold (left is better)", metric, "")
    describe_panel(right, f"minus {shorten_name(reference)}", f"difference of {metric}", "")
    for label, colour in (("member", COLOURS[4]), ("combination", COLOURS[0]), ("submitted", COLOURS[1])):
        left.plot([], [], "o-", color=colour, label=label)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_seeds(rows: Sequence[tuple[str, float, Sequence[float]]], metric: str) -> Figure:
    """Errors of the trainings with one seed each, and of all together.

    Args:
        rows: name, error of all seeds together, errors of each of them alone.
        metric: its name; lower is better.
    """
    figure, (axes,) = new_figure(1.4 + 0.4 * len(rows))
    for place, (_, error, by_seed) in enumerate(rows):
        axes.plot(by_seed, [place] * len(by_seed), "o", color=COLOURS[0], markersize=6, alpha=0.7)
        axes.plot(error, place, "|", color=COLOURS[1], markersize=18, markeredgewidth=3)
    axes.set_yticks(range(len(rows)), [shorten_name(name) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    describe_panel(axes, f"{metric} with other seeds (left is better)", metric, "")
    axes.plot([], [], "o", color=COLOURS[0], label="one seed")
    axes.plot([], [], "|", color=COLOURS[1], markersize=12, markeredgewidth=3, label="all seeds together")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_gallery(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = _COLUMNS) -> Figure:
    """Pictures, (H, W) or (H, W, 3) uint8, beside one another, each with a title."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, panels = new_figure(0.3 + rows * 7.5 / columns, rows, columns)
    for axes in panels:
        axes.axis("off")
    for axes, picture, title in zip(panels, pictures, titles, strict=False):
        axes.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255)
        axes.set_title(as_text(title), fontsize="small")
    return figure


def draw_suspects(
    ids: Sequence[str],
    suspicion_n: Sequence[float],
    given: Sequence[str],
    predicted: Sequence[str],
    pictures: Sequence[np.ndarray | None],
) -> Figure:
    """The most suspicious rows, with what is given and what is predicted: their pictures, or bars where a row has none.

    Args:
        ids, suspicion_n, given, predicted: of the rows, the most suspicious first.
        pictures: (H, W, 3) uint8; None: the row has none.
    """
    shown = range(min(len(ids), _MOST_LISTED))
    texts = [f"{shorten_name(ids[n])}\n{shorten_name(given[n])}, predicted {predicted[n]}" for n in shown]
    known = [picture for picture in pictures[: len(shown)] if picture is not None]
    if known:
        blank = np.full((*known[0].shape[:2], 3), 230, np.uint8)
        return draw_gallery([blank if pictures[n] is None else np.asarray(pictures[n]) for n in shown], texts)
    figure, (axes,) = new_figure(1.1 + 0.4 * len(shown))
    places = np.arange(len(shown))
    axes.barh(places, suspicion_n[: len(shown)], 0.6, color=COLOURS[1])
    axes.set_yticks(places, [as_text(text) for text in texts], fontsize="x-small")
    axes.invert_yaxis()
    describe_panel(axes, "The most suspicious rows", "suspicion", "")
    return figure


def draw_importance(names: Sequence[str], values_I3: np.ndarray, error: str) -> Figure:
    """By how much an error grows without each input, with intervals.

    Args:
        names: of the inputs, the most important first.
        values_I3: growth of the error, and the ends of its interval.
        error: its name.
    """
    figure, (axes,) = new_figure(1.2 + 0.34 * len(names))
    places, growth_I = np.arange(len(names)), values_I3[:, 0]
    spread = np.abs(values_I3[:, 1:].T - growth_I)
    axes.errorbar(growth_I, places, xerr=spread, fmt="o", color=COLOURS[0], capsize=3)
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(places, [shorten_name(name) for name in names])
    axes.invert_yaxis()
    describe_panel(axes, "Importance of the inputs", f"growth of {error} when the input is shuffled", "")
    return figure
