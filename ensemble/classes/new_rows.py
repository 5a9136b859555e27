"""New rows whose predictions are class probabilities: how the models' become one.

Shape suffixes: F fold models of all members, M models that are combined, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.classes.columns import read_columns
from ensemble.classes.combine import combine_folds, measure_disagreement
from ensemble.classes.files import normalise, read_class_table, read_classes
from ensemble.classes.fitting import FittedClasses
from ensemble.classes.prediction_sets import SetBasis, find_basis, write_sets
from ensemble.classes.submission import fit_run, list_probability_names, name_classes, name_sets
from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.predictions import PredictionError
from ensemble.run import Run


@dataclass(frozen=True)
class ClassCombiner:
    """How the probabilities of a run's models become one.

    Attributes:
        ensemble: of the run.
        fitted: the combination that its submission has.
        names: (M,) of what is combined: `fold_0`, or the members.
        members, num_folds: whose fold models predict, those of a member one after the other.
        classes: (C,) names.
        basis: of sets of classes, if the run has them.
    """

    ensemble: EnsembleConfig
    fitted: FittedClasses
    names: tuple[str, ...]
    members: tuple[str, ...]
    num_folds: int
    classes: tuple[str, ...]
    basis: SetBasis | None = None

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of what `predict` gives, but for the id."""
        models = (*(f"model_{name}" for name in self.names), "std") if shows_models else ()
        sets = (name_sets(target),) if self.basis else ()
        return (target, *list_probability_names(self.classes), *sets, *models)

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """Of each row the likeliest class and the probability of each; its set, where the run has sets; if wanted each
        model's likeliest class and the models' standard deviation. See `ensemble.run.Combiner`."""
        found = predictor.predict(block)
        ids = found.ids.tolist()
        folds_FNC = models_MNC = self._check(ids, np.asarray(found.prediction, np.float64))
        if len(self.members) > 1:
            counts = [self.num_folds] * len(self.members)
            models_MNC = combine_folds(folds_FNC, counts, self.ensemble.fold_method)
        combined_NC = self.fitted.predict(models_MNC)
        values = [pa.array(name_classes(combined_NC, self.classes), pa.string()), *map(pa.array, combined_NC.T)]
        if self.basis:
            values.append(pa.array(write_sets(self.basis.predict(folds_FNC), self.classes), pa.string()))
        if shows_models:
            values += [pa.array(name_classes(one_NC, self.classes), pa.string()) for one_NC in models_MNC]
            values.append(pa.array(measure_disagreement(models_MNC, combined_NC)))
        problems: dict[str, list[str]] = {}
        for row_id, problem in found.problems:
            problems.setdefault(row_id, []).append(problem)
        told = pa.array(["; ".join(problems[one]) if one in problems else None for one in ids], pa.string())
        names = [*map(str, range(1 + len(values))), "problem"]
        return pa.table([pa.array(ids, pa.string()), *values, told], names=names)

    def _check(self, ids: list[str], probability_FNC: np.ndarray) -> np.ndarray:
        """The probabilities as the prediction files of the run's own rows have them.

        Raises:
            PredictionError: a model gives no probabilities of these classes.
        """
        if probability_FNC.shape[1:] != (len(ids), len(self.classes)):
            raise PredictionError(
                f"new rows have predictions {probability_FNC.shape}: expected (models, {len(ids)} rows, "
                f"{len(self.classes)} classes)"
            )
        bad = np.argwhere(~np.isfinite(probability_FNC).all(axis=2))
        if len(bad):
            member, fold = divmod(int(bad[0][0]), self.num_folds)
            raise PredictionError(
                f"member {self.members[member]}, fold {fold}: the probabilities of id {ids[bad[0][1]]!r} are not "
                "finite; leave the member out (ensemble.members), or use the other checkpoint (ensemble.checkpoint)"
            )
        return np.stack([normalise(one_NC, ids, f"model {number}") for number, one_NC in enumerate(probability_FNC)])


def build_combiner(run: Run, how: Combination, read_scores: Callable[[], Mapping[str, Any]]) -> ClassCombiner:
    """The run's combination with the weights that its submission has; arguments as in `Kind.build_combiner`."""
    fitted = fit_run(run, how, run.read_unseen(read_columns), read_scores)
    first = next(iter(run.members.values()))[0].predictions("validation", run.ensemble.checkpoint)
    classes = read_classes(read_class_table(first), str(first))
    models, members = run.model_names, tuple(run.members)
    return ClassCombiner(run.ensemble, fitted, models, members, run.num_folds, classes, find_basis(run, fitted))
