"""Reads what is combined in a run, row by row: what its members predict out of fold, or what the fold models of its
only member predict of the blend set; and for the test rows. Members that were made elsewhere come from a file, and are
checked against the run's rows and folds.

Shape suffixes: M members, K folds, N rows with an out-of-fold prediction, T test rows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.numbers.diversity import describe_diversity
from ensemble.numbers.methods.combinations import evaluate, predict_cross_fitted
from ensemble.numbers.methods.combine import combine
from ensemble.predictions import SCHEMA, PredictionError, read_table, stack_models
from ensemble.run import Combinable, Evaluation, Run

_NEEDED = ("id", "member", "fold", "in_sample", "target", "prediction")


@dataclass(frozen=True)
class NumberColumns(Combinable):
    """Predictions of M models in the target's unit, (M, N)."""

    def take(self, names: Sequence[str]) -> NumberColumns:
        """Those of some models."""
        rows = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), oof_MN=self.oof_MN[rows])

    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination the cross-fitted prediction of each row, (N,)."""
        return [predict_cross_fitted(how, self) for how in hows]

    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to."""
        return [evaluate(how, self.take(names)) for names, how in candidates]

    def sum_up(self) -> str:
        """A checksum of all values, and of their order."""
        digest = hashlib.sha256(b"ordered" * self.is_ordered)
        for values in (self.oof_MN, self.target_N, self.fold_N.astype(np.int64)):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def describe_diversity(self, ensemble: EnsembleConfig) -> dict[str, Any]:
        """How much the models differ, and what each adds to their mean."""
        return describe_diversity(self, ensemble.metric, ensemble.space)


def read_columns(run: Run, checkpoint: str) -> NumberColumns:
    """The predictions that weights are fitted to and combinations are scored by: out of fold, of the members that are
    combined and of external ones; with one member, of the blend set by each of its fold models.

    Args:
        run: all folds of these members finished.
        checkpoint: best or final.

    Raises:
        PredictionError: the members do not predict the same rows on the same folds, or a file is missing or damaged.
    """
    if run.combines_folds:
        return _read_blend(run, checkpoint)
    columns = read_oof(run, checkpoint)
    if run.num_folds > 1:
        return columns
    return replace(columns, fold_N=run.divide(columns.ids_N), is_ordered=False)  # all are rows of its only fold


def read_oof(run: Run, checkpoint: str) -> NumberColumns:
    """The out-of-fold predictions of the members that are combined, be it one; arguments and errors as in
    `read_columns`."""
    tables = {
        name: pa.concat_tables(read_table(fold.predictions("validation", checkpoint)) for fold in folds)
        for name, folds in run.members.items()
    }
    tables |= {name: table for name, (table, _) in read_external(run).items()}
    ids_N, oof_MN = stack_models(list(tables.values()))
    first = next(iter(tables.values()))
    fold_N, target_N = first["fold"].to_numpy(), first["target"].to_numpy()
    units_N = run.find_units(ids_N)
    return NumberColumns(tuple(tables), ids_N, fold_N, target_N, oof_MN, units_N, run.is_ordered)


def _read_blend(run: Run, checkpoint: str) -> NumberColumns:
    """The fold models' predictions of the blend set, which is divided anew to score fitted weights on rows they did not
    see.

    Raises:
        PredictionError: there is no blend set.
    """
    folds = run.find_blend_models()
    tables = [read_table(fold.predictions("blend", checkpoint)) for fold in folds]
    ids_N, predictions_MN = stack_models(tables)
    target_N, part_N = tables[0]["target"].to_numpy(), run.divide(ids_N)
    return NumberColumns(run.model_names, ids_N, part_N, target_N, predictions_MN, run.find_units(ids_N))


def read_test(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """What is combined, for the test rows: the members' predictions, each the combination of its fold models by
    `ensemble.fold_method`; with one member, those of its fold models.

    Returns:
        ids (T,) and predictions (M, T) in the order of `read_columns`; None without test rows.

    Raises:
        PredictionError: a member lacks test rows.
    """
    models = read_test_of_folds(run)
    if not models:
        return None
    ids_T, predictions = stack_models([table for tables in models.values() for table in tables])
    if run.combines_folds:
        return ids_T, predictions
    return ids_T, combine_folds(run.ensemble, predictions, [len(tables) for tables in models.values()])


def combine_folds(ensemble: EnsembleConfig, predictions: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Of each member the combination of its fold models, (M, rows).

    Args:
        ensemble: says how.
        predictions: of all fold models, those of a member one after the other.
        counts: of fold models of each member.
    """
    parts = np.split(predictions, np.cumsum(counts)[:-1])
    return np.stack([combine(part, ensemble.fold_method, ensemble.space, trim=ensemble.trim) for part in parts])


def read_test_of_folds(run: Run) -> dict[str, list[pa.Table]]:
    """The test predictions of each fold model of each member that is combined, by the member's name; empty without test
    rows.

    Raises:
        PredictionError: a member from elsewhere has no test predictions.
    """
    models = {}
    for name, folds in run.members.items():
        paths = [fold.predictions("test", run.ensemble.checkpoint) for fold in folds]
        if not paths[0].exists():
            return {}
        models[name] = [read_table(path) for path in paths]
    for name, (_, test) in read_external(run).items():
        models[name] = [test.filter(pc.equal(test["fold"], fold)) for fold in sorted(set(test["fold"].to_pylist()))]
        if not models[name]:
            raise PredictionError(
                f"{run.ensemble.external}: member {name!r} has no prediction of a test row: expected one for each"
            )
    return models


def read_external(run: Run) -> dict[str, tuple[pa.Table, pa.Table]]:
    """The members of `ensemble.external`: out-of-fold and test predictions of each, by name.

    Raises:
        PredictionError: the file is no such table, or a member's out-of-fold predictions are not one finite one for
            each row on the run's folds.
    """
    if run.ensemble.external is None:
        return {}
    path = Path(os.path.expanduser(run.ensemble.external))
    if not path.is_file():
        raise PredictionError(f"ensemble.external={path}: no such file")
    table = read_table(path)
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise PredictionError(
            f"{path}: no column {', '.join(map(repr, missing))}; the table has "
            f"{', '.join(map(repr, table.column_names))}; expected those of oof.parquet, {', '.join(SCHEMA.names)}"
        )
    fold_of = {i: f for i, f in zip(run.plan["id"].to_pylist(), run.plan["fold"].to_pylist(), strict=True) if f >= 0}
    is_known = pa.array([row_id in fold_of for row_id in table["id"].to_pylist()])
    external, chosen = {}, run.ensemble.members
    names = set(table["member"].to_pylist())
    if any(name not in names and name not in run.names for name in chosen or ()):
        raise PredictionError(
            f"ensemble.members=[{','.join(chosen or ())}]: expected members of the run: {', '.join(run.names)}, or of "
            f"{path}: {', '.join(sorted(names))}"
        )
    for name in dict.fromkeys(table["member"].to_pylist()):
        if name in run.names:
            raise PredictionError(
                f"{path}: member {name!r} is a member of the run, too: expected another name; rename it in the file"
            )
        if chosen is not None and name not in chosen:
            continue
        is_own = pc.equal(table["member"], name)
        oof = table.filter(pc.and_(is_own, is_known))
        _check_external(oof, fold_of, f"{path}: member {name!r}")
        external[name] = (oof, table.filter(pc.and_(is_own, pc.invert(is_known))))
    if not external:
        whose = f"{path} has {', '.join(sorted(names)) or 'none'}"
        raise PredictionError(
            f"ensemble.external={path}: expected a member of the file in ensemble.members; {whose}; add one, or set "
            "ensemble.external=none"
        )
    return external


def _check_external(oof: pa.Table, fold_of: dict[str, int], what: str) -> None:
    """Raises PredictionError unless each row that a fold validates has one finite prediction on that fold."""
    ids = oof["id"].to_pylist()
    if len(ids) != len(fold_of) or len(set(ids)) != len(ids):
        twice = len(ids) - len(set(ids))
        raise PredictionError(
            f"{what} has {len(ids)} out-of-fold predictions ({twice} ids more than once): expected one for each "
            f"of the {len(fold_of)} rows that the run's folds validate"
        )
    other = [i for i, fold in zip(ids, oof["fold"].to_pylist(), strict=True) if fold != fold_of[i]]
    if other:
        raise PredictionError(
            f"{what}: {len(other)} rows are validated by another fold than in fold_plan.parquet, such as {other[0]!r}: "
            "expected the folds of the run; train the member on these folds"
        )
    if any(oof["in_sample"].to_pylist()):
        raise PredictionError(
            f"{what} has out-of-fold predictions with in_sample=true: expected predictions of models that were not "
            "trained on the row"
        )
    if not np.isfinite(oof["prediction"].to_numpy()).all():
        raise PredictionError(f"{what} has out-of-fold predictions that are NaN or infinite: expected finite numbers")
