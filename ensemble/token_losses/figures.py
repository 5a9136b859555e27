"""Pictures of the losses of documents out of fold. Arrays in, matplotlib figures out.

Shape suffix: N documents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ensemble.figure_style import (
    COLOURS,
    add_legend_below,
    as_text,
    choose_num_bins,
    count_epochs,
    describe_panel,
    new_figure,
    shorten_name,
    style_series,
)
from ensemble.pictures import Picture, Results, require
from ensemble.token_losses.files import UNKNOWN, read_how, split_kept
from ensemble.token_losses.hardest import order_documents

_MOST_SHOWN = 25


def draw_losses(bits_N: np.ndarray, floor: float | None, how: tuple[int, int]) -> Figure:
    """How many documents have how many bits for each byte, and their entropy where it is known."""
    figure, (axes,) = new_figure(4.2)
    axes.hist(bits_N, choose_num_bins(len(bits_N)), color=COLOURS[0])
    handles = [Line2D([], [], color=COLOURS[0], linewidth=6)]
    labels = [f"documents (mean {bits_N.mean():.3f})"]
    if floor is not None:
        axes.axvline(floor, color="black", linestyle="--")
        handles.append(Line2D([], [], color="black", linestyle="--"))
        labels.append(f"entropy of all {floor:.3f}")
    axes.set_yscale("log")
    title = f"Loss of each document, window {how[0]}, stride {how[1]}"
    describe_panel(axes, title, "bits per byte, out of fold", "documents")
    add_legend_below(figure, labels, handles)
    return figure


def draw_hardest(names: list[str], bits: list[float], typical: float) -> Figure:
    """The documents with the most bits for each byte, the hardest on top."""
    figure, (axes,) = new_figure(1.4 + 0.24 * len(names))
    axes.barh(range(len(names)), bits, color=COLOURS[1])
    axes.axvline(typical, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), [as_text(shorten_name(name, 30)) for name in names], fontsize="small")
    axes.invert_yaxis()
    describe_panel(axes, f"The {len(names)} hardest documents", "bits per byte, out of fold (dashed: the median)", "")
    return figure


def draw_curves(curves: list[Any], floor: float | None) -> Figure:
    """Nats a token of training and validation documents by epoch, and the floor where it is known."""
    figure, panels = new_figure(4.4, 1, 2, sharey=True)
    for axes, title, column in zip(
        panels, ("Training", "Validation"), ("train/loss_epoch", "val/loss_epoch"), strict=True
    ):
        for number, curve in enumerate(curves):
            name = "Avg_Loss" if column == "train/loss_epoch" else column
            if name in curve.epochs:
                axes.plot(curve.epochs["Epoch"], curve.epochs[name], **style_series(number))
        if floor is not None:
            axes.axhline(floor, color="black", linestyle="--")
        describe_panel(axes, title, "", "nats a token" if axes is panels[0] else "")
        count_epochs(axes, curves[0].unit)
    handles = [Line2D([], [], **style_series(number)) for number in range(len(curves))]
    labels = [curve.label for curve in curves]
    if floor is not None:
        handles.append(Line2D([], [], color="black", linestyle="--"))
        labels.append(f"entropy {floor:.3f}")
    add_legend_below(figure, labels, handles)
    return figure


def _read(results: Results) -> pa.Table:
    """Lines of the documents of the run's own recipe."""
    table = results.oof.filter(pc.equal(results.oof["member"], "main"))
    require(table, "no fold of the run's own recipe is finished")
    return table


def _find_floor(lines: pa.Table, divisor: int) -> float | None:
    """Entropy of the documents whose entropy is known, a token (0) or in bits a byte (1)."""
    target_N, _ = split_kept(lines)
    known_N = target_N[target_N[:, 2] != UNKNOWN]
    if not len(known_N):
        return None
    floor = float(known_N[:, 2].sum() / known_N[:, divisor].sum())
    return floor if divisor == 0 else floor / float(np.log(2))


def _losses(results: Results) -> Figure:
    lines = _read(results)
    return draw_losses(order_documents(lines)[1], _find_floor(lines, 1), read_how(lines))


def _hardest(results: Results) -> Figure:
    lines = _read(results)
    order, bits_N = order_documents(lines)
    shown = order[:_MOST_SHOWN].tolist()
    names = [lines["id"][row].as_py() for row in shown]
    return draw_hardest(names, bits_N[shown].tolist(), float(np.median(bits_N)))


def _curves(results: Any) -> Figure:
    try:
        floor = _find_floor(_read(results), 0)
    except Exception:  # no fold is finished, but some have recorded epochs
        floor = None
    return draw_curves(results.curves, floor)


PICTURES: tuple[str | Picture, ...] = (
    "members_and_combinations",
    "seeds",
    "performance_by_fold",
    Picture(
        "learning_curves",
        "Loss by epoch",
        "Nats a token; dashed the entropy of the documents, where it is known: no model can be below it. A plateau and "
        "then a fall: the model has learned to copy what a text has said before.",
        _curves,
    ),
    Picture(
        "losses_of_documents",
        "Losses of documents",
        "Each document by the model that did not see it. Far on the right: documents unlike all others, often broken. "
        "Far on the left: look for a twin among the training documents.",
        _losses,
    ),
    Picture(
        "hardest_documents",
        "The hardest documents",
        "Look at them first: texts that begin in the middle, wrong encodings, shuffled sentences. `summary.json` "
        "lists more of them.",
        _hardest,
    ),
    "score_of_all_folds",
    "timings",
)
