"""What the pictures of a K-fold run are drawn from, read from its folder when a picture first wants it.

Data that is missing is an error that says so in the words of the report. Nothing is computed or drawn here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from ensemble.figure_style import shorten_name
from ray_jobs.config.run import RunConfig
from ray_jobs.reporting.curves import Curve, find_folds, read_record
from ray_jobs.results.map_scores import spread_ranks
from ray_jobs.runs.files import read_json, read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.runs.status import FoldStatus, read_statuses

Data = TypeVar("Data", bound=Sized)


class MissingDataError(Exception):
    """A picture cannot be drawn; the message says what is missing, as the end of a sentence."""


class RunData:
    """What the pictures are drawn from; each file is read when a picture first wants it."""

    def __init__(self, folder: RunFolder, config: RunConfig, summary: Mapping[str, Any]) -> None:
        self.folder, self.config, self.summary = folder, config, summary

    @functools.cached_property
    def curves(self) -> list[Curve]:
        """The record of every fold that has finished an epoch."""
        curves = [read_record(self.folder.fold_record(number)) for number in find_folds(self.folder)]
        curves = [curve for curve in curves if not curve.epochs.empty]
        return demand(curves, "no fold has recorded an epoch")

    def curves_with(self, *names: str, prefix: str | None = None) -> list[Curve]:
        """The curves that have one of the columns, or one that begins with the prefix."""
        curves = [
            curve
            for curve in self.curves
            if any(name in names or (prefix and name.startswith(prefix)) for name in curve.epochs)
        ]
        return demand(curves, f"no fold has recorded {' or '.join(names) or prefix}")

    @functools.cached_property
    def target(self) -> str:
        """The target's name, short enough for an axis."""
        return shorten_name(str(read_json(self.folder.provenance, default={}).get("target", "prediction")))

    @property
    def scores(self) -> Mapping[str, Any]:
        """The summary's scores."""
        scores: Mapping[str, Any] | None = self.summary.get("scores")
        return demand(scores, "no fold is finished")

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

    @functools.cached_property
    def dice(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Id, Dice and true share of foreground of each validated row."""
        table = self._read(self.folder.oof, "scores")
        return np.array(table["id"].to_pylist()), table["dice"].to_numpy(), table["target"].to_numpy()

    def read_examples(self, number: int) -> tuple[list[np.ndarray], list[str]]:
        """Out-of-fold overlays, evenly spread from the worst Dice to the best, and a title for each."""
        ids, dice_N, _ = self.dice
        is_drawn = np.array([(self.folder.overlays / "out_of_fold" / f"{row_id}.png").is_file() for row_id in ids])
        demand(ids[is_drawn], "no overlay was drawn")
        ids, dice_N = ids[is_drawn], dice_N[is_drawn]
        chosen = spread_ranks(dice_N, number)
        paths = [self.folder.overlays / "out_of_fold" / f"{ids[place]}.png" for place in chosen]
        titles = [f"{shorten_name(str(ids[place]))}: Dice {dice_N[place]:.3f}" for place in chosen]
        return [np.asarray(Image.open(path)) for path in paths], titles

    def read_test_examples(self, number: int) -> tuple[list[np.ndarray], list[str]]:
        """Of the test rows on which the models differ most, the overlay and then the disagreement; a title for each."""
        self.submission  # noqa: B018 says what is missing
        table = self._read(self.folder.test_predictions, "submission")
        ids, spread_T = table["id"].to_pylist(), table["std"].to_numpy()
        pictures, titles = [], []
        for place in np.argsort(-spread_T, kind="stable")[:number].tolist():
            for folder, what in ((self.folder.overlays, "ensemble"), (self.folder.disagreement, "disagreement")):
                pictures.append(np.asarray(Image.open(folder / "test" / f"{ids[place]}.png")))
                titles.append(f"{shorten_name(ids[place])}: {what}")
        return pictures, titles

    @property
    def submission(self) -> Mapping[str, Any]:
        """What the summary says of the submission, if there is one."""
        # An earlier submission's files may still be there when this one was not made.
        submission: Mapping[str, Any] = self.summary.get("submission") or {"created": False, "reason": "none was made"}
        return demand(submission if submission["created"] else None, f"no submission: {submission.get('reason')}")

    @property
    def model_labels(self) -> list[str]:
        """A name for each model of the submission."""
        models = self.submission["model_weights"]
        return [model["member"] if "member" in model else f"fold {model['fold']}" for model in models]

    @property
    def model_weights(self) -> np.ndarray | None:
        """Each model's weight in the combination, (M,); None for a method without weights."""
        submission = self.submission
        if submission["method"] == "mean":
            return np.full(submission["n_models"], 1 / submission["n_models"])
        return None if submission["weights"] is None else np.array(submission["weights"])

    @property
    def weight_table(self) -> Mapping[str, Any]:
        """Columns and rows of the weights inside each submitted model, from the record."""
        rows = read_lines(self.folder.submission_record) if self.submission else []
        tables: list[Mapping[str, Any]] = [
            row["ensemble/model_weights"] for row in rows if "ensemble/model_weights" in row
        ]
        has_weights = bool(tables) and len(tables[-1]["columns"]) > 1 and bool(tables[-1]["data"])
        return demand(tables[-1] if has_weights else None, "the models of this run have no weights of their own")

    @property
    def statuses(self) -> list[FoldStatus]:
        """The status of every fold, if any was started."""
        statuses = read_statuses(self.folder, self.config.folds.count)
        known = [status for status in statuses if status.started is not None]
        return demand(statuses if known else None, "no fold was started")

    def _read(self, path: Path, part: str) -> pa.Table:
        if not path.exists():
            raise MissingDataError(f"{path.name}, which is written with the {part}, is not there")
        return demand(read_parquet(path), f"{path.name} has no row")


def demand(value: Data | None, missing: str) -> Data:
    """The value, if there is anything in it.

    Raises:
        MissingDataError: it is None or empty.
    """
    if value is None or len(value) == 0:
        raise MissingDataError(missing)
    return value
