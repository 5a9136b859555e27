"""Which pictures a K-fold run has, from which of its files each is drawn, and what a reader should see in it.

A picture whose data is missing, or that cannot be drawn, becomes a sentence: it never stops a run or a report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ensemble.figure_style import shorten_name, to_png
from ensemble.maps import figures as map_figures
from ensemble.numbers import figures, score_figures
from ray_jobs.config.run import RunConfig
from ray_jobs.reporting import run_figures
from ray_jobs.reporting.run_data import MissingDataError, RunData, demand
from ray_jobs.results.headline import find_metric, label_error
from ray_jobs.runs.folder import RunFolder
from trainers.storage.whole_files import write_whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One picture of the report.

    Attributes:
        name: file name in `figures/`, without its ending. Stable: others refer to it.
        title: heading in the report.
        caption: how to read it, one line.
        draw: draws it from the run's data.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[RunData], Figure]


@dataclass(frozen=True)
class DrawnPicture:
    """A picture as PNG, or the sentence that says why there is none."""

    picture: Picture
    png: bytes | None
    missing: str = ""


def _draw_performance(run: RunData) -> Figure:
    rows = [*run.scores["folds"], run.scores["out_of_fold"]]
    metric = find_metric(run.folder, run.config)
    kinds = ("best", "final", "constant")
    *folds, overall = ({kind: _as_float(row[kind].get(metric.name)) for kind in kinds} for row in rows)
    labels = [f"fold {row['fold']}" for row in rows[:-1]]
    return score_figures.draw_performance(
        folds, labels, overall, shorten_name(metric.label), higher_is_better=metric.higher_is_better
    )


def _as_float(value: float | None) -> float:
    return float("nan") if value is None else value


def _draw_combinations(run: RunData) -> Figure:
    combinations = run.summary["combinations"]
    return score_figures.draw_intervals(combinations["rows"], label_error(combinations), combinations["best_member"])


def _several_models(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    final_N, predictions_MN = run.test_predictions
    return demand((final_N, predictions_MN) if len(predictions_MN) > 1 else None, "it needs at least two models")


PICTURES = (
    Picture(
        "performance_by_fold",
        "Score of each fold",
        "Of the rows each fold did not train on. Blue far from the grey cross, on the better side: the model has learned something. "
        "Folds far apart: the score depends on which rows are held out.",
        _draw_performance,
    ),
    Picture(
        "loss_of_all_folds",
        "Training and validation loss",
        "Both should fall and level off. Validation rising while training falls: overfitting.",
        lambda run: run_figures.draw_losses(run.curves),
    ),
    Picture(
        "score_of_all_folds",
        "Score by epoch",
        "The score by which the best checkpoint is chosen; rings mark the chosen epochs. Rings at the last epoch: "
        "longer training may help.",
        lambda run: run_figures.draw_scores(run.curves_with("score")),
    ),
    Picture(
        "modality_weights",
        "Learned weights by epoch",
        "How much each part of the model counts, as training goes on. Folds that agree: the weights say something "
        "about the data.",
        lambda run: run_figures.draw_weights(run.curves_with(prefix=run_figures.WEIGHTS)),
    ),
    Picture(
        "final_weights",
        "Weights of the submitted models",
        "The weights in the checkpoints that made the submission, one group a fold.",
        lambda run: run_figures.draw_final_weights(run.weight_table["columns"], run.weight_table["data"]),
    ),
    Picture(
        "out_of_fold_predictions",
        "Predicted against actual",
        "Each point is a row, predicted by the model that did not see it. On the dashed line: exact.",
        lambda run: score_figures.draw_predicted_against_actual(*run.out_of_fold, run.target),
    ),
    Picture(
        "residuals",
        "Residuals",
        "0.1 is about 10 % too high. A median that bends away from 0 at an end: the model errs there in one direction.",
        lambda run: score_figures.draw_residuals(*run.out_of_fold, run.target),
    ),
    Picture(
        "final_predictions",
        "Final predictions",
        "What was submitted (grey) and what each model alone would have said (lines).",
        lambda run: figures.draw_final_predictions(*run.test_predictions, run.model_labels, run.target),
    ),
    Picture(
        "model_agreement",
        "Agreement of the models",
        "Correlation of each pair on the test rows. The closer to 1, the less there is to gain from combining.",
        lambda run: figures.draw_agreement(_several_models(run)[1], run.model_labels),
    ),
    Picture(
        "model_contribution",
        "Contribution of each model",
        "A long bar: the model often differs from the combination. A diamond off 0: it differs in one direction.",
        lambda run: figures.draw_contributions(*_several_models(run), run.model_labels, run.model_weights),
    ),
    Picture(
        "uncertainty",
        "Uncertainty",
        "How far the models disagree on each test row. High: treat the prediction with care.",
        lambda run: figures.draw_uncertainty(*_several_models(run), run.target),
    ),
    Picture(
        "timings",
        "Timings",
        "Bars that overlap: the folds trained side by side. Below, where the wall time of the whole job went.",
        lambda run: run_figures.draw_timings(run.statuses, run.summary.get("seconds") or {}),
    ),
)

# Of runs with several members.
MEMBER_PICTURES = (
    Picture(
        "members_and_combinations",
        "Members and their combinations",
        "Error on rows that no model saw, with 95 % intervals. Right: a bar wholly left of the dashed line is better than the best "
        "member on the same rows.",
        _draw_combinations,
    ),
)


# Of a family that predicts maps, instead of those of numbers.
_OF_BOTH = ("loss_of_all_folds", "score_of_all_folds", "timings")
MAP_PICTURES = (
    *(picture for picture in PICTURES if picture.name == "performance_by_fold"),
    Picture(
        "example_overlays",
        "Examples, from the worst to the best",
        "What the model that did not see the row says (coloured) and the truth (white lines).",
        lambda run: map_figures.draw_gallery(*run.read_examples(8)),
    ),
    Picture(
        "dice_of_rows",
        "Dice of each row",
        "Low points at the left: small areas are missed. Rows without any foreground have 1 where nothing is said and else 0.",
        lambda run: map_figures.draw_dice(*run.dice[1:]),
    ),
    Picture(
        "disagreement",
        "Where the models differ most",
        "Test rows: what the ensemble says, and the standard deviation of the models' probabilities; bright at edges is usual, bright "
        "areas are uncertain.",
        lambda run: map_figures.draw_gallery(*run.read_test_examples(4)),
    ),
    *(picture for picture in PICTURES if picture.name in _OF_BOTH),
)


def choose_pictures(config: RunConfig, summary: Mapping[str, Any]) -> tuple[Picture, ...]:
    """Those that such a run has."""
    if config.predicts_maps:
        return MAP_PICTURES
    return (*MEMBER_PICTURES, *PICTURES) if "combinations" in summary else PICTURES


def write_pictures(folder: RunFolder, config: RunConfig, summary: Mapping[str, Any]) -> list[DrawnPicture]:
    """Draws every picture into `figures/<name>.png` of the run; one that has no data any more is removed."""
    run, drawn = RunData(folder, config, summary), []
    for picture in choose_pictures(config, summary):
        path = folder.figures / f"{picture.name}.png"
        try:
            content = to_png(picture.draw(run))
        except MissingDataError as error:
            drawn.append(DrawnPicture(picture, None, str(error)))
            path.unlink(missing_ok=True)
        except Exception as error:  # a picture must not hurt a finished run
            logger.warning("figure %s could not be drawn: %s", picture.name, error, exc_info=True)
            drawn.append(DrawnPicture(picture, None, f"it could not be drawn: {error}"))
            path.unlink(missing_ok=True)
        else:
            write_whole(path, content)
            drawn.append(DrawnPicture(picture, content))
    return drawn
