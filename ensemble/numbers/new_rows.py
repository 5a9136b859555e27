"""New rows whose predictions are numbers: how the models' become one.

Shape suffixes: F fold models of all members, M models that are combined (members, or the fold models of the only one),
N rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.config import EnsembleConfig
from ensemble.numbers.columns import combine_folds, read_columns
from ensemble.numbers.diversity import spread
from ensemble.numbers.interval_basis import IntervalBasis, find_basis
from ensemble.numbers.methods.combinations import FittedEnsemble
from ensemble.numbers.submission import fit_run
from ensemble.predictions import PredictionError
from ensemble.run import Run


@dataclass(frozen=True)
class NumberCombiner:
    """How the predictions of a run's models become one.

    Attributes:
        ensemble: of the run.
        fitted: the combination that its submission has.
        names: (M,) of what is combined: `fold_0`, or the members.
        members, folds: whose fold models predict, those of a member one after the other.
        basis: of intervals, if the run has them.
    """

    ensemble: EnsembleConfig
    fitted: FittedEnsemble
    names: tuple[str, ...]
    members: tuple[str, ...]
    folds: tuple[int, ...]
    basis: IntervalBasis | None = None

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `combine` gives."""
        ends = (f"{target}_low", f"{target}_high") if self.basis else ()
        models = (*(f"model_{name}" for name in self.names), "std") if shows_models else ()
        return (target, *ends, *models)

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """What is written of the rows of a block, see `ensemble.run.Combiner`."""
        found = predictor.predict(block)
        values = self.combine(found.ids, found.prediction, shows_models=shows_models)
        problems: dict[str, list[str]] = {}
        for row_id, problem in found.problems:
            problems.setdefault(row_id, []).append(problem)
        told = ["; ".join(problems[i]) if i in problems else None for i in found.ids.tolist()]
        strings = [pa.array(cells, pa.string()) for cells in (found.ids.tolist(), told)]
        numbers = map(str, range(1 + len(values)))  # whatever the target is called
        return pa.table([strings[0], *values, strings[1]], names=[*numbers, "problem"])

    def combine(self, ids_N: np.ndarray, predictions_FN: np.ndarray, *, shows_models: bool) -> list[np.ndarray]:
        """The combined prediction, (N,), in the target's unit, the ends of its interval, what is combined and its
        standard deviation: as `list_columns` says.

        Raises:
            PredictionError: a model predicts no finite number.
        """
        num_folds = len(self.folds)
        bad = np.argwhere(~np.isfinite(predictions_FN))
        if len(bad):
            (member, fold), row = divmod(int(bad[0][0]), num_folds), bad[0][1]
            raise PredictionError(
                f"member {self.members[member]}, fold {self.folds[fold]}: the prediction of id {str(ids_N[row])!r} is "
                "not finite; leave the member out (ensemble.members), or use the other checkpoint (ensemble.checkpoint)"
            )
        num_members, models_MN = len(self.members), predictions_FN
        if num_members > 1:
            models_MN = combine_folds(self.ensemble, predictions_FN, [num_folds] * num_members)
        columns = [self.fitted.predict(models_MN)]
        if self.basis:
            columns += self.basis.predict(predictions_FN.reshape(num_members, num_folds, -1).swapaxes(0, 1))
        return [*columns, *models_MN, spread(models_MN)] if shows_models else columns


def build_combiner(run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> NumberCombiner:
    """The run's combination with the weights that its submission has; arguments as in `Kind.build_combiner`."""
    fitted = fit_run(run, run.read_unseen(read_columns), read_scores)
    basis = None if run.ensemble.interval is None else find_basis(run, fitted)
    return NumberCombiner(run.ensemble, fitted, run.model_names, tuple(run.members), run.folds, basis)
