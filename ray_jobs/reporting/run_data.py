"""What the pictures of a K-fold run are drawn from, read from its folder when a picture first wants it.

Data that is missing is an error that says so in the words of the report. Nothing is computed or drawn here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ensemble.figure_style import shorten_name
from ensemble.pictures import MissingDataError, require
from ray_jobs.config.run import RunConfig
from ray_jobs.reporting.curves import Curve, find_folds, of_one_unit, read_record
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import find_provenance
from ray_jobs.runs.json_files.status import FoldStatus, read_statuses
from ray_jobs.runs.json_files.summary import RowScores, Summary
from ray_jobs.runs.record import read_lines


class RunData:
    """What the pictures are drawn from; each file is read when a picture first wants it."""

    def __init__(self, folder: RunFolder, config: RunConfig, summary: Summary) -> None:
        self.folder, self.config, self.summary = folder, config, summary

    @functools.cached_property
    def curves(self) -> list[Curve]:
        """The record of every fold that has finished an epoch."""
        curves = [read_record(self.folder.fold_record(number)) for number in find_folds(self.folder)]
        curves = of_one_unit([curve for curve in curves if not curve.epochs.empty])
        return require(curves, "no fold has recorded an epoch")

    def curves_with(self, *names: str, prefix: str | None = None) -> list[Curve]:
        """The curves that have one of the columns, or one that begins with the prefix."""
        curves = [
            curve
            for curve in self.curves
            if any(name in names or (prefix and name.startswith(prefix)) for name in curve.epochs)
        ]
        return require(curves, f"no fold has recorded {' or '.join(names) or prefix}")

    @functools.cached_property
    def target(self) -> str:
        """The target's name, short enough for an axis."""
        return shorten_name(find_provenance(self.folder).target or "prediction")

    @property
    def scores(self) -> tuple[RowScores, ...]:
        """The scores of each fold and of all their rows."""
        scores = self.summary.stage.scores
        return require(scores.rows if scores else None, "no fold is finished")

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.folder.root

    @property
    def is_ordered(self) -> bool:
        """Whether the folds follow each other in time."""
        return self.config.folds.kind == "time"

    @functools.cached_property
    def oof(self) -> pa.Table:
        """`oof.parquet`."""
        return self._read(self.folder.oof, "scores")

    @functools.cached_property
    def test_table(self) -> pa.Table:
        """Each model's prediction of each test row beside the combined one."""
        return self._read(self.folder.test_predictions, "submission")

    @property
    def submission(self) -> Mapping[str, Any]:
        """What the summary says of the submission, if there is one."""
        # An earlier submission's files may still be there when this one was not made.
        submission = self.summary.stage.submission
        return require(submission.facts if submission.created else None, f"no submission: {submission.reason}")

    @property
    def model_labels(self) -> list[str]:
        """A name for each model of the submission."""
        models = self.submission["model_weights"]
        return [model["member"] if "member" in model else f"fold {model['fold']}" for model in models]

    @property
    def weight_table(self) -> Mapping[str, Any]:
        """Columns and rows of the weights inside each submitted model, from the record."""
        rows = read_lines(self.folder.submission_record) if self.submission else []
        tables: list[Mapping[str, Any]] = [
            row["ensemble/model_weights"] for row in rows if "ensemble/model_weights" in row
        ]
        has_weights = bool(tables) and len(tables[-1]["columns"]) > 1 and bool(tables[-1]["data"])
        return require(tables[-1] if has_weights else None, "the models of this run have no weights of their own")

    @property
    def statuses(self) -> list[FoldStatus]:
        """The status of every fold, if any was started."""
        statuses = read_statuses(self.folder, self.config.folds.count)
        known = [status for status in statuses if status.started is not None]
        return require(statuses if known else None, "no fold was started")

    def _read(self, path: Path, part: str) -> pa.Table:
        if not path.exists():
            raise MissingDataError(f"{path.name}, which is written with the {part}, is not there")
        return require(read_parquet(path), f"{path.name} has no row")
