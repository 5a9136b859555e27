"""A run that is finished, as a script reads it."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ray_jobs.api.notebook import show_run
from ray_jobs.api.tables import open_table
from ray_jobs.config.json_fields import from_json
from ray_jobs.errors import RunError
from ray_jobs.runs.files import read_json, read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import Scores, Summary


class Run:
    """A run's folder.

    Args:
        folder: of the run.

    Attributes:
        folder: of the run; its README.md says what each file is.
        summary: what `summary.json` says.
        report: the HTML report.
    """

    def __init__(self, folder: str | Path) -> None:
        self._run = RunFolder(Path(folder))
        self.folder, self.report = self._run.root, self._run.report
        self.summary: dict[str, Any] = read_json(self._run.summary)
        self._known = from_json(Summary, self.summary)

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items() if value is not None)
        return f"Run({str(self.folder)!r}: out of fold {scores})"

    def _repr_html_(self) -> str:
        """By which a notebook shows it."""
        return show_run(self._run, self._known, self._scores, self.fold_scores)

    @property
    def _scores(self) -> Scores:
        scores = self._known.stage.scores
        assert scores is not None, "a fold is finished"
        return scores

    @property
    def scores(self) -> dict[str, float | None]:
        """Out-of-fold scores of the run's own recipe, by metric; None where one is not defined."""
        return dict(self._scores.chosen)

    @property
    def fold_scores(self) -> pd.DataFrame:
        """A row for each fold: its number, its rows, and its scores."""
        column = self._scores.out_of_fold.checkpoint or "best"
        rows = self._scores.folds
        return pd.DataFrame([{"fold": row.fold, "num_rows": row.num_rows, **row.by_column[column]} for row in rows])

    @cached_property
    def oof(self) -> pd.DataFrame:
        """One prediction of each row that some fold validated, by the model that did not train on it: id, fold, target,
        prediction, and of classes the probability of each, (C,)."""
        lines = read_parquet(self._run.oof)
        lines = lines.filter(pa.compute.equal(lines["member"], "main"))
        kept = ("id", "fold", "target", "prediction", "probability")
        return lines.select([name for name in kept if name in lines.column_names]).to_pandas()

    @cached_property
    def submission(self) -> pd.DataFrame | None:
        """The combined predictions of the test rows; None: there are no test rows."""
        known = self._known.stage.submission
        return pd.read_csv(self.folder / known.file, dtype={"ID": str}) if known.created else None

    def predict(self, new: Any) -> pd.DataFrame:
        """Predicts new rows with the run's ensemble, in this process. The folds' checkpoints hold code, which runs.

        Args:
            new: a DataFrame, or the path of a table.

        Returns:
            A row for each new row: ID, and the columns of the submission.

        Raises:
            RunError, DataError: the folds have kept no model, or the rows cannot be predicted.
        """
        from ray_jobs.prediction.families import find_rows, load_predictor
        from ray_jobs.prediction.models import read_models, refuse_unusable, settle_run
        from ray_jobs.results.run_files import describe_run

        config = self._run.read_config()
        refuse_unusable(self._run, config)
        with tempfile.TemporaryDirectory() as scratch:
            family, rows = find_rows(self._run, config, self._place_rows(new, config, Path(scratch)))
            rows.check()
            run = describe_run(self._run, config)
            models, combiner = read_models(self._run, config, run.folds), settle_run(self._run, config)
            predictor = load_predictor(family)(models, rows, "cpu", 1)
            blocks = [combiner.predict(predictor, block, shows_models=False) for block in rows.read(rows.batch_rows)]
        table = pa.concat_tables(blocks)
        names = ["ID", *combiner.list_columns(run.target, shows_models=False)]
        predicted = table.select([name for name in table.column_names if name.isdecimal()]).rename_columns(names)
        return predicted.to_pandas()

    def _place_rows(self, new: Any, config: Any, scratch: Path) -> Path:
        """The file of the new rows; rows without the run's id column are numbered."""
        table = open_table(new, "new")
        if table.place is not None:
            return Path(table.place)
        frame, id_column = table.frame, config.trainer.data.id_column
        assert frame is not None
        if frame.empty:
            raise RunError("new has no rows")
        if id_column and id_column not in frame:
            frame = frame.assign(**{id_column: np.arange(len(frame)).astype(str)})
        path = scratch / "new.parquet"
        frame.to_parquet(path, index=False)
        return path
