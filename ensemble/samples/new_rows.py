"""New rows: the loss of each model, and of the mean of what they predict, which run together.

Shape suffixes: M models, N rows, S draws of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.predictions import PredictionError
from ensemble.run import Run
from ensemble.samples.submission import LOSS


@dataclass(frozen=True)
class SampleCombiner:
    """How the models of a run become one.

    Attributes:
        names: (M,) of its fold models.
    """

    names: tuple[str, ...]

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `predict` gives, but for the id."""
        return (target or LOSS, *((*(f"model_{name}" for name in self.names), "std") if shows_models else ()))

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """Of each row the mean loss, if wanted also by each model and the models' standard deviation; see
        `ensemble.run.Combiner`."""
        found = predictor.predict(block)
        models_MN, combined_N = found.prediction.mean(axis=2), found.combined.mean(axis=1)
        bad = np.argwhere(~np.isfinite(models_MN))
        if len(bad):
            raise PredictionError(
                f"model {self.names[bad[0][0]]}: the loss of id {str(found.ids[bad[0][1]])!r} is not finite; use the "
                "other checkpoint (ensemble.checkpoint)"
            )
        values = [pa.array(combined_N)]
        if shows_models:
            values += [*map(pa.array, models_MN), pa.array(models_MN.std(axis=0))]
        ids = found.ids.tolist()
        problems = dict(found.problems)
        told = pa.array([problems.get(row_id) for row_id in ids], pa.string())
        return pa.table(
            [pa.array(ids, pa.string()), *values, told], names=[*map(str, range(1 + len(values))), "problem"]
        )


def build_combiner(run: Run) -> SampleCombiner:
    """The mean of all fold models."""
    if run.combines_folds:
        return SampleCombiner(run.model_names)
    return SampleCombiner(tuple(f"{name}_{fold}" for name in run.members for fold in run.folds))
