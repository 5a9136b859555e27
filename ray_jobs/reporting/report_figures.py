"""Which pictures a K-fold run has, from which of its files each is drawn, and what a reader should see in it.

A picture whose data is missing, or that cannot be drawn, becomes a sentence: it never stops a run or a report.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ensemble.figure_style import shorten_name, to_png
from ensemble.members.figures import (
    draw_gallery,
    draw_importance,
    draw_intervals,
    draw_performance,
    draw_seeds,
    draw_suspects,
)
from ensemble.pictures import MissingDataError, Picture, require
from ray_jobs.config.json_fields import to_json
from ray_jobs.config.run import RunConfig
from ray_jobs.reporting import run_figures
from ray_jobs.reporting.run_data import RunData
from ray_jobs.results.headline import find_metric
from ray_jobs.results.importance_file import read_importance
from ray_jobs.results.suspicious_rows import read_suspects
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import Summary
from trainers.interface import load_inventory_module
from trainers.storage.whole_files import write_whole

logger = logging.getLogger(__name__)
_MOST_SUSPECTS, _MOST_PAIRS = 12, 8
_NEAR_PICTURE = "near_picture"  # of leaks


@dataclass(frozen=True)
class DrawnPicture:
    """A picture as PNG, or the sentence that says why there is none."""

    picture: Picture
    png: bytes | None
    missing: str = ""


def _draw_performance(run: RunData) -> Figure:
    metric = find_metric(run.folder, run.config)
    *folds, overall = (
        {column: _as_float(scores.get(metric.name)) for column, scores in row.by_column.items()} for row in run.scores
    )
    labels = [row.name for row in run.scores[:-1]]
    return draw_performance(
        folds, labels, overall, shorten_name(metric.label), higher_is_better=metric.higher_is_better
    )


def _as_float(value: float | None) -> float:
    return float("nan") if value is None else value


def _draw_combinations(run: RunData) -> Figure:
    combinations = run.summary.stage.combinations
    assert combinations is not None, "`choose_pictures` leaves the picture out"
    return draw_intervals(to_json(combinations.rows), combinations.error_label, combinations.best_member)


def _draw_seeds(run: RunData) -> Figure:
    combinations = run.summary.stage.combinations
    assert combinations is not None, "`choose_pictures` leaves the picture out"
    rows = [row for row in combinations.rows if row.seed_errors and (row.submitted or row.kind == "member")]
    values = [(row.name, row.error, row.seed_errors) for row in rows]
    return draw_seeds(values, combinations.error_label)


def _draw_suspects(run: RunData) -> Figure:
    rows = require(read_suspects(run.folder)[:_MOST_SUSPECTS], "nobody judges the truth of these rows")
    ids, given, predicted = ([row[name] for row in rows] for name in ("id", "given", "predicted"))
    return draw_suspects(ids, [float(row["suspicion"]) for row in rows], given, predicted, _show_rows(run, rows))


def _show_rows(run: RunData, rows: Sequence[Mapping[str, str]]) -> list[np.ndarray | None]:
    """A picture of each row: its kind's, or else its family's; None where there is none."""
    drawn = [run.root / row["picture"] if row["picture"] else None for row in rows]
    open_of_family = getattr(load_inventory_module(run.config.family), "open_backgrounds", None)
    background = None
    if open_of_family is not None and any(path is None or not path.is_file() for path in drawn):
        with suppress(OSError):  # the rows are gone: the report is drawn anew, long after
            background = open_of_family(run.config.trainer, run.folder.inputs, "train")
    return [
        np.asarray(Image.open(path).convert("RGB"))
        if path is not None and path.is_file()
        else background(row["id"])
        if background is not None
        else None
        for row, path in zip(rows, drawn, strict=True)
    ]


def _draw_importance(run: RunData) -> Figure:
    rows = read_importance(run.folder)
    values = [[float(row[name]) for name in ("importance", "low", "high")] for row in rows]
    return draw_importance([row["input"] for row in rows], np.array(values), rows[0]["metric"])


def _draw_occlusion(run: RunData) -> Figure:
    paths = sorted(run.folder.occlusion.glob("*.png"), key=lambda path: int(path.name.partition("_")[0]))
    titles = [
        f"{'worst' if number < len(paths) / 2 else 'best'}: {shorten_name(path.stem.partition('_')[2])}"
        for number, path in enumerate(paths)
    ]
    return draw_gallery([np.asarray(Image.open(path)) for path in paths], titles, columns=3)


def _draw_near_pictures(run: RunData) -> Figure:
    """Pairs of pictures, side by side."""
    with run.folder.leaks.open(encoding="utf-8", newline="") as file:
        leaks = [row for row in csv.DictReader(file) if row["kind"] == _NEAR_PICTURE]
    pairs = {frozenset((row["id"], row["other_id"])): row for row in leaks}
    open_of_family = load_inventory_module(run.config.family).open_backgrounds
    show = {
        table: open_of_family(run.config.trainer, run.folder.inputs, table)
        for table in {"train", *("test" for row in leaks if row["where"] == "test")}
    }
    pictures, titles = [], []
    for row in list(pairs.values())[:_MOST_PAIRS]:
        table = "test" if row["where"] == "test" else "train"
        pair = [show[table](row["id"]), show["train"](row["other_id"])]
        if all(picture is not None for picture in pair):
            pictures += pair
            titles += [f"{shorten_name(row['id'])}{' (test)' * (table == 'test')}", shorten_name(row["other_id"])]
    return draw_gallery(require(pictures, "the pictures cannot be read"), titles)


# Those that runs of all kinds may have; a kind names them among its own.
PICTURES = (
    Picture(
        "members_and_combinations",
        "Members and their combinations",
        "Error on rows that no model saw, with 95 % intervals. Right: a bar wholly left of the dashed line is better "
        "than the best member on the same rows.",
        _draw_combinations,
    ),
    Picture(
        "seeds",
        "The same with other seeds",
        "Error of each member and of what is submitted: by one seed each (dots), by all together (bar). Dots that are "
        "further apart than two members: one training of each would not tell which is better.",
        _draw_seeds,
    ),
    Picture(
        "performance_by_fold",
        "Score of each fold",
        "Of the rows each fold did not train on. Blue far from the grey cross, on the better side: the model has "
        "learned something. Folds far apart: the score depends on which rows are held out.",
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
        "suspicious_rows",
        "Rows whose truth may be wrong",
        "The most suspicious first: what is given, and what the model says that did not see the row. A row may also be "
        "unusual. suspicious_rows.csv lists more.",
        _draw_suspects,
    ),
    Picture(
        "importance",
        "What the models look at",
        "By how much the error of out-of-fold rows grows when an input is shuffled among them, with 95 % intervals "
        "over rows and repeats. At 0: the models do not need it, or others say the same.",
        _draw_importance,
    ),
    Picture(
        "occlusion",
        "Which part of the picture counts",
        "Rows that are predicted worst, then best. Orange: without this part the row's error grows. Blue: it falls.",
        _draw_occlusion,
    ),
    Picture(
        "near_pictures",
        "Rows with nearly the same picture",
        "Pairs on both sides of a fold, or in training and test data, side by side. leaks.csv lists all.",
        _draw_near_pictures,
    ),
    Picture(
        "timings",
        "Timings",
        "Bars that overlap: the folds trained side by side. Below, where the wall time of the whole job went.",
        lambda run: run_figures.draw_timings(run.statuses, run.summary.seconds),
    ),
)


def choose_pictures(folder: RunFolder, config: RunConfig, summary: Summary) -> tuple[Picture, ...]:
    """Those that such a run has."""
    shared = {picture.name: picture for picture in PICTURES}
    if summary.stage.combinations is None:
        del shared["members_and_combinations"]
    if summary.stage.combinations is None or summary.stage.combinations.num_seeds == 1:
        del shared["seeds"]
    if not folder.importance.is_file():
        del shared["importance"]
    if not any(folder.occlusion.glob("*.png")):
        del shared["occlusion"]
    if not any(summary.leaks.get(_NEAR_PICTURE, {}).values()):
        del shared["near_pictures"]
    chosen = (shared.get(one) if isinstance(one, str) else one for one in config.kind.load_pictures())
    return tuple(picture for picture in chosen if picture is not None)


def write_pictures(folder: RunFolder, config: RunConfig, summary: Summary) -> list[DrawnPicture]:
    """Draws every picture into `figures/<name>.png` of the run; one that has no data any more is removed."""
    run, drawn = RunData(folder, config, summary), []
    for picture in choose_pictures(folder, config, summary):
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
