"""Pictures of how good class probabilities are, on rows whose class is known. Arrays in, matplotlib figures out.

Shape suffixes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from ensemble.classes.files import read_classes, split_kept
from ensemble.classes.metrics import NUM_BINS, find_bins, measure_error
from ensemble.classes.temperature import scale_cross_fitted, to_columns
from ensemble.figure_style import (
    COLOURS,
    GREY,
    LINES,
    as_text,
    describe_panel,
    new_figure,
    shorten_name,
    style_series,
)
from ensemble.pictures import Picture, Results, require

_MOST_NUMBERS, _MOST_CLASSES, _MOST_CURVES, _MOST_ERRORS = 12, 40, 10, 15


def draw_confusion(target_N: np.ndarray, said_N: np.ndarray, classes: Sequence[str]) -> Figure:
    """Rows by their true class (down) and the likeliest one (across), coloured by the share of the true class. Of many
    classes those with the most mistakes."""
    counts_CC = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts_CC, (target_N, said_N), 1)
    mistakes_C = counts_CC.sum(1) + counts_CC.sum(0) - 2 * counts_CC.diagonal()
    shown = np.sort(np.argsort(-mistakes_C, kind="stable")[:_MOST_CLASSES])
    counts = counts_CC[np.ix_(shown, shown)]
    share = counts / np.maximum(counts_CC.sum(1)[shown, None], 1)
    names, num = [as_text(shorten_name(classes[place], 16)) for place in shown], len(shown)
    figure, (axes,) = new_figure(float(np.clip(2.2 + 0.4 * num, 3.6, 8.5)))
    axes.grid(False)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    size = "medium" if num < 7 else "small" if num <= _MOST_NUMBERS else "xx-small"
    longest = max(map(len, names))
    axes.set_xticks(range(num), names, rotation=0 if num * longest < 50 else 60, fontsize=size)
    axes.set_yticks(range(num), names, fontsize=size)
    if num <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=size)
    rest = f", the {num} of {len(classes)} classes with the most mistakes" if num < len(classes) else ""
    describe_panel(axes, f"True and predicted classes, rows{rest}", "predicted", "true")
    return figure


def draw_reliability(target_N: np.ndarray, before_NC: np.ndarray, after_NC: np.ndarray) -> Figure:
    """How often the likeliest class is right against how sure the model is of it, before and after temperature scaling,
    and how many rows are how sure."""
    figure, (curve, counts) = new_figure(6.4, 2, 1, sharex=True, height_ratios=(3, 1))
    curve.plot((0, 1), (0, 1), color="black", linewidth=1, label="as sure as right")
    for number, (what, probability_NC) in enumerate((("as predicted", before_NC), ("at the temperature", after_NC))):
        said_N, sure_N, bin_N = find_bins(probability_NC)
        size_B = np.bincount(bin_N, minlength=NUM_BINS)
        sure_B = np.bincount(bin_N, sure_N, NUM_BINS) / np.maximum(size_B, 1)
        right_B = np.bincount(bin_N, said_N == target_N, NUM_BINS) / np.maximum(size_B, 1)
        known = size_B > 0
        error = measure_error("calibration_error", target_N, probability_NC)
        loss = measure_error("log_loss", target_N, probability_NC)
        style, label = style_series(number), f"{what}: calibration error {error:.3f}, log loss {loss:.3f}"
        curve.plot(sure_B[known], right_B[known], **style, label=label)
        edges = np.linspace(0, 1, NUM_BINS + 1)
        counts.stairs(size_B, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1.5)
    curve.set_xlim(0, 1)
    curve.set_ylim(-0.02, 1.02)
    figure.legend(*curve.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    describe_panel(curve, "Reliability", "", "share that is right")
    describe_panel(counts, "", "probability of the likeliest class", "rows")
    return figure


def draw_roc(target_N: np.ndarray, probability_NC: np.ndarray, classes: Sequence[str]) -> Figure:
    """The ROC curve of each class against the rest; of many classes of those with the most rows."""
    from sklearn.metrics import auc, roc_curve

    counts_C = np.bincount(target_N, minlength=len(classes))
    known = np.flatnonzero((counts_C > 0) & (counts_C < len(target_N)))
    shown = np.sort(known[np.argsort(-counts_C[known], kind="stable")][:_MOST_CURVES])
    figure, (axes,) = new_figure(6.2)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1)
    for number, place in enumerate(shown):
        false, true, _ = roc_curve(target_N == place, probability_NC[:, place])
        label = as_text(f"{shorten_name(classes[place], 16)}: {auc(false, true):.3f}")
        line = LINES[number % len(LINES)]
        axes.plot(false, true, color=style_series(number)["color"], linestyle=line, linewidth=1.5, label=label)
    axes.set_aspect("equal")
    which = f"{len(shown)} of {len(known)} classes" if len(shown) < len(known) else "class"
    axes.legend(frameon=False, loc="lower right", title=f"{which}: area", fontsize="small")
    describe_panel(
        axes,
        "Each class against the rest",
        "false positives (share of the rest)",
        "true positives (share of the class)",
    )
    return figure


def draw_confident_errors(
    ids: Sequence[str], target_N: np.ndarray, probability_NC: np.ndarray, classes: Sequence[str]
) -> Figure:
    """The wrong rows of whose class the model is surest: probabilities of that class and of the true one."""
    said_N, sure_N, _ = find_bins(probability_NC)
    wrong = np.flatnonzero(said_N != target_N)
    require(wrong, "no row is wrong")
    shown = wrong[np.argsort(-sure_N[wrong], kind="stable")][:_MOST_ERRORS]
    figure, (axes,) = new_figure(1.4 + 0.36 * len(shown))
    places = np.arange(len(shown))
    true_n = probability_NC[shown, target_N[shown]]
    axes.barh(places - 0.19, sure_N[shown], 0.36, color=COLOURS[1], label="predicted (wrong) class")
    axes.barh(places + 0.19, true_n, 0.36, color=COLOURS[0], label="true class")
    names = [shorten_name(name, 18) for name in classes]
    labels = [
        as_text(f"{shorten_name(ids[row])}\n{names[target_N[row]]}, predicted {names[said_N[row]]}") for row in shown
    ]
    axes.set_yticks(places, labels, fontsize="x-small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    describe_panel(axes, f"The surest of {len(wrong):,} wrong rows of {len(target_N):,}", "probability", "")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _read(results: Results) -> tuple[pa.Table, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Lines, true class and probabilities of each validated row of the run's own recipe, and the classes."""
    table = results.oof.filter(pc.equal(results.oof["member"], "main"))
    require(table, "no fold of the run's own recipe is finished")
    return table, *split_kept(table), read_classes(results.oof)


def _confusion(results: Results) -> Figure:
    _, target_N, probability_NC, classes = _read(results)
    return draw_confusion(target_N, probability_NC.argmax(axis=1), classes)


def _reliability(results: Results) -> Figure:
    table, target_N, probability_NC, _ = _read(results)
    columns = to_columns(table, is_ordered=results.is_ordered)
    return draw_reliability(target_N, probability_NC, scale_cross_fitted(columns, probability_NC))


def _roc(results: Results) -> Figure:
    _, target_N, probability_NC, classes = _read(results)
    require(np.unique(target_N)[1:], "all rows are of one class")
    return draw_roc(target_N, probability_NC, classes)


def _errors(results: Results) -> Figure:
    table, target_N, probability_NC, classes = _read(results)
    return draw_confident_errors(table["id"].to_pylist(), target_N, probability_NC, classes)


PICTURES: tuple[str | Picture, ...] = (
    "members_and_combinations",
    "seeds",
    "performance_by_fold",
    Picture(
        "confusion",
        "Which classes are taken for which",
        "Out of fold: each row was predicted by the model that did not see it. Dark off the diagonal: two classes that "
        "the models confuse.",
        _confusion,
    ),
    Picture(
        "reliability",
        "How far the probabilities can be trusted",
        "Below the line: too sure. The second curve is at a temperature that was fitted on the other folds' rows.",
        _reliability,
    ),
    Picture(
        "roc",
        "Each class against the rest",
        "Towards the upper left corner: rows of the class have higher probabilities of it than others. 0.5 is chance.",
        _roc,
    ),
    Picture(
        "confident_errors",
        "The most confident errors",
        "Wrong rows of which the model was surest. Look at them first: often the label is wrong, or the row unusual.",
        _errors,
    ),
    "importance",
    "occlusion",
    "suspicious_rows",
    "near_pictures",
    "loss_of_all_folds",
    "score_of_all_folds",
    "modality_weights",
    "final_weights",
    "timings",
)
