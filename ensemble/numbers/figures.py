"""Pictures of an ensemble: how its models agree, what each adds, how sure they are. Arrays in, matplotlib figures out.

Everything that lives on a log scale is computed on log1p and labelled in the target's unit.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ensemble.figure_style import (
    COLOURS,
    GREY,
    add_legend_below,
    choose_num_bins,
    describe_panel,
    draw_cloud,
    draw_histogram,
    label_as_raw,
    mark_bars,
    new_figure,
    style_series,
)
from ensemble.numbers.diversity import correlate_predictions, spread
from ensemble.numbers.score_figures import draw_predicted_against_actual, draw_residuals
from ensemble.pictures import Picture, Results, require

_MOST_NUMBERS = 12


def draw_agreement(predictions_MN: np.ndarray, labels: list[str]) -> Figure:
    """Correlation of each pair of models, on log1p of their predictions.

    Args:
        predictions_MN: at least two models, in the target's unit.
        labels: a name for each model.
    """
    num_models = len(predictions_MN)
    correlation = correlate_predictions(predictions_MN)
    pairs = np.where(np.eye(num_models, dtype=bool), np.nan, correlation)  # the diagonal would use up the colours
    known = pairs[np.isfinite(pairs)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    figure, (axes,) = new_figure(min(7.5, 3.0 + 0.5 * num_models))
    axes.grid(False)
    image = axes.imshow(pairs, cmap="cividis", vmin=low - 1e-3, vmax=high + 1e-3)
    figure.colorbar(image, label="correlation of log1p predictions", shrink=0.8)
    axes.set_xticks(range(num_models), labels, rotation=0 if num_models < 7 else 60)
    axes.set_yticks(range(num_models), labels)
    if num_models <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(correlation):
            colour = "white" if row != column and value < (low + high) / 2 else "black"
            axes.text(
                column,
                row,
                "1" if row == column else _write_correlation(value),
                ha="center",
                va="center",
                color=colour,
                fontsize="medium" if num_models < 7 else "small",
            )
    describe_panel(axes, "Agreement of the models on the test rows", "", "")
    return figure


def draw_final_predictions(final_N: np.ndarray, predictions_MN: np.ndarray, labels: list[str], target: str) -> Figure:
    """Distribution of the combined predictions, and of each model's, on a log axis."""
    logs_N, logs_MN = np.log1p(final_N), np.log1p(predictions_MN)
    figure, (axes,) = new_figure(4.2)
    edges = np.histogram_bin_edges(np.concatenate([logs_N, logs_MN.ravel()]), choose_num_bins(len(final_N)))
    bins: list[float] = edges.tolist()
    axes.hist(logs_N, bins, color=GREY, alpha=0.35)
    for number, logs in enumerate(logs_MN):
        style = style_series(number)
        axes.hist(logs, bins, histtype="step", color=style["color"], linestyle=style["linestyle"])
    median = axes.axvline(np.median(logs_N), color="black", linestyle=":")
    label_as_raw(axes.xaxis, edges)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    describe_panel(axes, "Final predictions", f"predicted {target} (log axis)", "test rows")
    handles = [Patch(color=GREY, alpha=0.35), median]
    handles += [Line2D([], [], **style_series(number) | {"marker": ""}) for number in range(len(labels))]
    add_legend_below(figure, ["combined", "its median", *labels], handles)
    return figure


def measure_contributions(final_N: np.ndarray, predictions_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each model's mean signed and mean absolute deviation from the combined prediction on log1p, (M,) and (M,)."""
    deviation_MN = np.log1p(predictions_MN) - np.log1p(final_N)
    return deviation_MN.mean(axis=1), np.abs(deviation_MN).mean(axis=1)


def draw_contributions(
    final_N: np.ndarray, predictions_MN: np.ndarray, labels: list[str], weights_M: np.ndarray | None
) -> Figure:
    """How far each model lies from the combination, and its weight in it.

    Args:
        final_N: the combined prediction, in the target's unit.
        predictions_MN: the models'.
        labels: a name for each model.
        weights_M: adding up to 1; None for a method that has no weights.
    """
    signed_M, absolute_M = measure_contributions(final_N, predictions_MN)
    places = np.arange(len(labels))
    figure, panels = new_figure(2.2 + 0.36 * len(labels), 1, 2, sharey=True, width_ratios=(2, 1))
    deviations, weights = panels
    deviations.barh(places, absolute_M, 0.6, color=COLOURS[5], label="mean size of the deviation")
    deviations.plot(signed_M, places, "D", color=COLOURS[1], label="mean deviation (+: above)")
    deviations.axvline(0, color="black", linewidth=1)
    deviations.set_yticks(places, labels)
    deviations.invert_yaxis()
    describe_panel(deviations, "Deviation from the combined prediction", "log1p units (0.1 ≈ 10 %)", "")
    figure.legend(*deviations.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    if weights_M is None:
        weights.text(0.5, 0.5, "this method\nhas no weights", ha="center", va="center", transform=weights.transAxes)
    else:
        mark_bars(weights, weights.barh(places, weights_M, 0.6, color=COLOURS[0]), "%.3f")
        weights.set_xlim(0, 1.35 * max(weights_M))
    describe_panel(weights, "Weight", "share of the combination", "")
    return figure


def draw_uncertainty(final_N: np.ndarray, predictions_MN: np.ndarray, target: str) -> Figure:
    """The standard deviation across models: its distribution, and against the prediction."""
    std_N = spread(predictions_MN)
    logs_N, final_logs_N = np.log1p(std_N), np.log1p(final_N)
    figure, (distribution, against) = new_figure(4.2, 1, 2, width_ratios=(2, 3), sharey=True)
    draw_histogram(distribution, logs_N)
    median = np.median(std_N)
    distribution.axhline(np.log1p(median), color=COLOURS[1], linestyle="--", label=f"median {median:.4g}")
    distribution.legend(frameon=False, fontsize="small")
    draw_cloud(figure, against, final_logs_N, logs_N)
    label_as_raw(against.xaxis, final_logs_N)
    label_as_raw(distribution.yaxis, logs_N)
    describe_panel(distribution, "Uncertainty", "test rows", f"standard deviation across models\n({target}, log axis)")
    describe_panel(against, "By prediction", f"predicted {target} (log axis)", "")
    return figure


def _write_correlation(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _several_models(results: Results) -> tuple[np.ndarray, np.ndarray]:
    final_N, predictions_MN = _read_test_predictions(results)
    return require((final_N, predictions_MN) if len(predictions_MN) > 1 else None, "it needs at least two models")


def _read_test_predictions(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """The combined prediction (N,) and each model's (M, N)."""
    submission, table = results.submission, results.test_table
    models = [table[f"model_{number}"].to_numpy() for number in range(submission["n_models"])]
    return table["prediction"].to_numpy(), np.stack(models)


def _read_out_of_fold(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """Target and prediction of each validated row."""
    return results.oof["target"].to_numpy(), results.oof["prediction"].to_numpy()


def _read_model_weights(submission: Mapping[str, Any]) -> np.ndarray | None:
    """Each model's weight in the combination, (M,); None for a method without weights."""
    if submission["method"] == "mean":
        return np.full(submission["n_models"], 1 / submission["n_models"])
    return None if submission["weights"] is None else np.array(submission["weights"])


PICTURES: tuple[str | Picture, ...] = (
    "members_and_combinations",
    "seeds",
    "performance_by_fold",
    "loss_of_all_folds",
    "score_of_all_folds",
    "modality_weights",
    "final_weights",
    Picture(
        "out_of_fold_predictions",
        "Predicted against actual",
        "Each point is a row, predicted by the model that did not see it. On the dashed line: exact.",
        lambda run: draw_predicted_against_actual(*_read_out_of_fold(run), run.target),
    ),
    Picture(
        "residuals",
        "Residuals",
        "0.1 is about 10 % too high. A median that bends away from 0 at an end: the model errs there in one direction.",
        lambda run: draw_residuals(*_read_out_of_fold(run), run.target),
    ),
    "importance",
    "occlusion",
    "suspicious_rows",
    "near_pictures",
    Picture(
        "final_predictions",
        "Final predictions",
        "What was submitted (grey) and what each model alone would have said (lines).",
        lambda run: draw_final_predictions(*_read_test_predictions(run), run.model_labels, run.target),
    ),
    Picture(
        "model_agreement",
        "Agreement of the models",
        "Correlation of each pair on the test rows. The closer to 1, the less there is to gain from combining.",
        lambda run: draw_agreement(_several_models(run)[1], run.model_labels),
    ),
    Picture(
        "model_contribution",
        "Contribution of each model",
        "A long bar: the model often differs from the combination. A diamond off 0: it differs in one direction.",
        lambda run: draw_contributions(*_several_models(run), run.model_labels, _read_model_weights(run.submission)),
    ),
    Picture(
        "uncertainty",
        "Uncertainty",
        "How far the models disagree on each test row. High: treat the prediction with care.",
        lambda run: draw_uncertainty(*_several_models(run), run.target),
    ),
    "timings",
)
