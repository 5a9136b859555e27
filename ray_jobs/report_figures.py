"""Which pictures a K-fold run has, from which of its files each is drawn, and what a reader should see in it.

A picture whose data is missing, or that cannot be drawn, becomes a sentence: it never stops a run or a report.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from ensemble import figures, score_figures
from ensemble.figure_style import shorten_name, to_png
from ray_jobs import run_figures
from ray_jobs.config import RunConfig
from ray_jobs.coordinator import FoldStatus
from ray_jobs.curves import Curve, find_folds, read_record
from ray_jobs.run_folder import RunFolder, read_json, read_parquet, write_whole
from ray_jobs.terminal import read_statuses
from ray_jobs.tracking.record import read_lines

logger = logging.getLogger(__name__)
METRIC = "msle"


class MissingDataError(Exception):
    """A picture cannot be drawn; the message says what is missing, as the end of a sentence."""


class RunData:
    """What the pictures are drawn from; each file is read when a picture first wants it."""

    def __init__(self, folder: RunFolder, config: RunConfig, summary: Mapping[str, Any]) -> None:
        self.folder, self.config, self.summary = folder, config, summary

    @functools.cached_property
    def curves(self) -> list[Curve]:
        curves = [read_record(self.folder.fold_record(number)) for number in find_folds(self.folder)]
        curves = [curve for curve in curves if not curve.epochs.empty]
        return _demand(curves, "no fold has recorded an epoch")

    def curves_with(self, *names: str, prefix: str | None = None) -> list[Curve]:
        """The curves that have one of the columns, or one that begins with the prefix."""
        curves = [
            curve
            for curve in self.curves
            if any(name in names or (prefix and name.startswith(prefix)) for name in curve.epochs)
        ]
        return _demand(curves, f"no fold has recorded {' or '.join(names) or prefix}")

    @functools.cached_property
    def target(self) -> str:
        return shorten_name(str(read_json(self.folder.provenance, default={}).get("target", "prediction")))

    @property
    def scores(self) -> Mapping[str, Any]:
        return _demand(self.summary.get("scores"), "no fold is finished")

    @functools.cached_property
    def out_of_fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Target and prediction of each validated row."""
        table = self._read(self.folder.oof, "scores")
        return table["target"].to_numpy(), table["prediction"].to_numpy()

    @functools.cached_property
    def test_predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """The combined prediction (N,) and each model's (M, N)."""
        submission = self.submission
        table = self._read(self.folder.test_predictions, "submission")
        models = [table[f"model_{number}"].to_numpy() for number in range(submission["n_models"])]
        return table["prediction"].to_numpy(), np.stack(models)

    @property
    def submission(self) -> Mapping[str, Any]:
        # An earlier submission's files may still be there when this one was not made.
        submission = self.summary.get("submission") or {"created": False, "reason": "none was made"}
        return _demand(submission if submission["created"] else None, f"no submission: {submission.get('reason')}")

    @property
    def model_labels(self) -> list[str]:
        folds = [str(model["fold"]) for model in self.submission["model_weights"]]
        return [f"fold {fold}" for fold in folds]

    @property
    def model_weights(self) -> np.ndarray | None:
        submission = self.submission
        if submission["method"] == "mean":
            return np.full(submission["n_models"], 1 / submission["n_models"])
        return None if submission["weights"] is None else np.array(submission["weights"])

    @property
    def weight_table(self) -> Mapping[str, Any]:
        rows = read_lines(self.folder.metrics / "submission.jsonl") if self.submission else []
        tables = [row["ensemble/model_weights"] for row in rows if "ensemble/model_weights" in row]
        has_weights = bool(tables) and len(tables[-1]["columns"]) > 1 and bool(tables[-1]["data"])
        return _demand(tables[-1] if has_weights else None, "the models of this run have no weights of their own")

    @property
    def statuses(self) -> list[FoldStatus]:
        statuses = read_statuses(self.folder, self.config.folds.count)
        known = [status for status in statuses if status.started is not None]
        return _demand(statuses if known else None, "no fold was started")

    def _read(self, path: Any, part: str) -> pa.Table:
        if not path.exists():
            raise MissingDataError(f"{path.name} is not there (it is written with the {part})")
        return _demand(read_parquet(path), f"{path.name} has no row")


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

    @property
    def file(self) -> str:
        """Its path in the run's folder."""
        return f"figures/{self.name}.png"


@dataclass(frozen=True)
class DrawnPicture:
    """A picture as PNG, or the sentence that says why there is none."""

    picture: Picture
    png: bytes | None
    missing: str = ""


def _draw_performance(run: RunData) -> Figure:
    scores = run.scores
    pick = [{kind: row[kind][METRIC] for kind in ("best", "final", "constant")}
            for row in (*scores["folds"], scores["out_of_fold"])]  # fmt: skip
    labels = [f"fold {fold['fold']}" for fold in scores["folds"]]
    return score_figures.draw_performance(pick[:-1], labels, pick[-1], METRIC.upper())


def _several_models(run: RunData) -> tuple[np.ndarray, np.ndarray]:
    final_N, predictions_MN = run.test_predictions
    return _demand((final_N, predictions_MN) if len(predictions_MN) > 1 else None, "it needs at least two models")


PICTURES = (
    Picture(
        "performance_by_fold",
        "Error of each fold",
        "Each fold's error on the rows it did not train on. Blue far left of the grey cross: the model has learned "
        "something. Folds far apart: the score depends on which rows are held out.",
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


def write_pictures(folder: RunFolder, config: RunConfig, summary: Mapping[str, Any]) -> list[DrawnPicture]:
    """Draws every picture into `figures/<name>.png` of the run; one that has no data any more is removed."""
    run, drawn = RunData(folder, config, summary), []
    for picture in PICTURES:
        path = folder.root / picture.file
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


def _demand(value: Any, missing: str) -> Any:
    """The value, if there is anything in it."""
    if value is None or len(value) == 0:
        raise MissingDataError(missing)
    return value
