"""Reads what is combined in a run, row by row: what its members predict out of fold, or what the fold models of its
only member predict of the blend set; and for the test rows.

Shape suffixes: M models, N rows, T test rows, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ensemble.classes.combine import combine_folds
from ensemble.classes.files import read_class_table, read_classes, stack_models
from ensemble.classes.fitting import fit_classes
from ensemble.classes.metrics import measure_error
from ensemble.combination import Combination
from ensemble.members.cross_fitting import evaluate, predict_cross_fitted
from ensemble.run import Combinable, Evaluation, Run


@dataclass(frozen=True)
class ClassColumns(Combinable):
    """Class probabilities of M models, (M, N, C), and the number of each row's true class, (N,).

    Attributes:
        classes: (C,) names.
    """

    classes: tuple[str, ...] = ()

    def take(self, names: Sequence[str]) -> ClassColumns:
        """Those of some models."""
        places = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), oof_MN=self.oof_MN[places])

    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination the honest probabilities of each row, (N, C)."""
        return [predict_cross_fitted(how, self, fit_classes) for how in hows]

    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to."""
        return [evaluate(how, self.take(names), fit_classes, measure_error) for names, how in candidates]

    def sum_up(self) -> str:
        """A checksum of all values, and of their order."""
        digest = hashlib.sha256(b"ordered" * self.is_ordered)
        for values in (self.oof_MN, self.target_N, self.fold_N.astype(np.int64)):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def read_columns(run: Run, checkpoint: str) -> ClassColumns:
    """Out of fold, of the members that are combined; with one member, of the blend set by each of its fold models.

    Args:
        run: all folds of these members finished.
        checkpoint: best or final.

    Raises:
        PredictionError: there is no blend set, or files do not belong together.
    """
    if run.combines_folds:
        return _read_blend(run, checkpoint)
    tables = _read_validation(run, checkpoint)
    ids_N, target_N, oof_MNC = stack_models(tables)
    has_folds = run.num_folds > 1
    fold_N = tables[0]["fold"].to_numpy() if has_folds else run.divide(ids_N)
    units_N, is_ordered = run.find_units(ids_N), has_folds and run.is_ordered
    return ClassColumns(
        tuple(run.members), ids_N, fold_N, target_N, oof_MNC, units_N, is_ordered, read_classes(tables[0])
    )


def read_out_of_fold(run: Run, checkpoint: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row that some fold validated the number of its true class, (N,), its fold, (N,), and each member's
    probabilities, (M, N, C).

    Raises:
        PredictionError: files do not belong together.
    """
    tables = _read_validation(run, checkpoint)
    _, target_N, oof_MNC = stack_models(tables)
    return target_N, tables[0]["fold"].to_numpy(), oof_MNC


def _read_validation(run: Run, checkpoint: str) -> list[pa.Table]:
    return [
        pa.concat_tables(read_class_table(fold.predictions("validation", checkpoint)) for fold in folds)
        for folds in run.members.values()
    ]


def _read_blend(run: Run, checkpoint: str) -> ClassColumns:
    folds = run.find_blend_models()
    tables = [read_class_table(fold.predictions("blend", checkpoint)) for fold in folds]
    ids_N, target_N, probability_MNC = stack_models(tables)
    units_N = run.find_units(ids_N)
    return ClassColumns(
        run.model_names, ids_N, run.divide(ids_N), target_N, probability_MNC, units_N, False, read_classes(tables[0])
    )


def read_test(run: Run) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None:
    """The test rows' probabilities by all fold models of all members, those of a member one after the other.

    Returns:
        ids (T,), probabilities (F, T, C) and the classes; None without test rows.

    Raises:
        PredictionError: files do not belong together.
    """
    paths = [fold.predictions("test", run.ensemble.checkpoint) for folds in run.members.values() for fold in folds]
    if not paths[0].exists():
        return None
    tables = [read_class_table(path) for path in paths]
    ids_T, _, probability_FTC = stack_models(tables)
    return ids_T, probability_FTC, read_classes(tables[0])


def combine_members(run: Run, probability_FTC: np.ndarray) -> np.ndarray:
    """What is combined, (M, T, C), in the order of `read_columns`: the members' probabilities, each the combination of
    its fold models by `ensemble.fold_method`; with one member, those of its fold models."""
    if run.combines_folds:
        return probability_FTC
    return combine_folds(probability_FTC, [run.num_folds] * len(run.members), run.ensemble.fold_method)
