"""Reads what is combined in a run, row by row: what its members predict out of fold, or what the fold models of its only member
predict of the blend set; and for the test rows. Members that were made elsewhere come from a file, and are checked against the
run's rows and folds.

Shape suffixes: M members, K folds, N rows with an out-of-fold prediction, T test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.members.combinations import Columns
from ensemble.numbers.combine import combine
from ensemble.predictions import SCHEMA, PredictionError, stack_models
from ray_jobs.config.folds import BLEND
from ray_jobs.config.run import RunConfig
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder, find_members

_PARTS = 5
_NEEDED = ("id", "member", "fold", "in_sample", "target", "prediction")


def read_columns(folder: RunFolder, config: RunConfig, checkpoint: str | None = None) -> Columns:
    """The predictions that weights are fitted to and combinations are scored by: out of fold, of the members that are combined and
    of external ones; with one member, of the blend set by each of its fold models.

    Args:
        folder: the run, all folds of these members finished.
        config: its config; `ensemble.members` and `ensemble.external` say which.
        checkpoint: best or final; None: as the config says.

    Raises:
        PredictionError: the members do not predict the same rows on the same folds.
        RunFolderError: a file is missing or damaged.
    """
    chosen = checkpoint or config.ensemble.checkpoint
    if combines_folds(config):
        member = folder.of_member(config.combined_members[0])
        return _read_blend(member, config, chosen, read_parquet(folder.fold_plan))
    columns = read_oof(folder, config, chosen)
    if config.folds.count > 1:
        return columns
    return replace(columns, fold_N=_divide(config, len(columns.ids_N), columns.unit_N))  # all are rows of its only fold


def read_oof(folder: RunFolder, config: RunConfig, checkpoint: str | None = None) -> Columns:
    """The out-of-fold predictions of the members that are combined, be it one; arguments and errors as in `read_columns`."""
    chosen, folders = checkpoint or config.ensemble.checkpoint, find_members(folder, config)
    plan = read_parquet(folder.fold_plan)
    tables = {name: _read_member(folders[name], chosen, config) for name in config.combined_members}
    tables |= {name: table for name, (table, _) in read_external(config, plan).items()}
    ids_N, oof_MN = stack_models(list(tables.values()))
    first = next(iter(tables.values()))
    fold_N, target_N = first["fold"].to_numpy(), first["target"].to_numpy()
    units_N, is_ordered = find_units(plan, ids_N), config.folds.kind == "time"
    return Columns(tuple(tables), ids_N, fold_N, target_N, oof_MN, units_N, is_ordered)


def find_columns(folder: RunFolder, config: RunConfig) -> Columns | None:
    """As `read_columns`; None where there are no rows that all of what is combined predicts unseen."""
    if combines_folds(config) and not has_blend_set(read_parquet(folder.fold_plan)):
        return None
    return read_columns(folder, config)


def combines_folds(config: RunConfig) -> bool:
    """Whether fold models are combined rather than members: there is one."""
    return len(config.combined_members) == 1 and config.ensemble.external is None


def has_blend_set(plan: pa.Table) -> bool:
    """Whether rows were held out of every fold."""
    return bool((plan["fold"].to_numpy() == BLEND).any())


def _read_blend(member: RunFolder, config: RunConfig, checkpoint: str, plan: pa.Table) -> Columns:
    """The fold models' predictions of the blend set, which is divided anew to score fitted weights on rows they did not see.

    Raises:
        PredictionError: there is no blend set.
    """
    if not has_blend_set(plan):
        raise PredictionError(
            "with one member, combinations of its fold models can only be scored on rows that all of them predict unseen: add members, "
            "or train a run with folds.blend_fraction=0.1"
        )
    folds = range(config.folds.count)
    tables = [read_parquet(member.fold(fold).predictions("blend", checkpoint)) for fold in folds]
    ids_N, predictions_MN = stack_models(tables)
    units_N = find_units(plan, ids_N)
    target_N = tables[0]["target"].to_numpy()
    names = tuple(f"fold_{fold}" for fold in folds)
    return Columns(names, ids_N, _divide(config, len(ids_N), units_N), target_N, predictions_MN, units_N)


def _divide(config: RunConfig, num_rows: int, units_N: np.ndarray | None) -> np.ndarray:
    """Rows that no model was trained on, in parts: fitted weights are scored on a part that they were not fitted to."""
    numbers_N = np.arange(num_rows) if units_N is None else np.unique(units_N, return_inverse=True)[1]
    num_units = int(numbers_N.max()) + 1
    part_U = np.random.default_rng(config.folds.seed).permutation(num_units) % max(2, min(_PARTS, num_units // 2))
    part_N: np.ndarray = part_U[numbers_N]
    return part_N


def find_units(plan: pa.Table, ids_N: Sequence[str] | np.ndarray) -> np.ndarray | None:
    """The group of each row of a fold plan, where groups were kept together."""
    if "group" not in plan.column_names:
        return None
    group_of = dict(zip(plan["id"].to_pylist(), plan["group"].to_pylist(), strict=True))
    return np.array([group_of[row_id] for row_id in ids_N])


def read_test(folder: RunFolder, config: RunConfig) -> tuple[np.ndarray, np.ndarray] | None:
    """What is combined, for the test rows: the members' predictions, each the combination of its fold models by
    `ensemble.fold_method`; with one member, those of its fold models.

    Returns:
        ids (T,) and predictions (M, T) in the order of `read_columns`; None without test rows.

    Raises:
        PredictionError: a member lacks test rows.
    """
    models = read_test_of_folds(folder, config)
    if not models:
        return None
    everyone = [table for tables in models.values() for table in tables]
    ids_T, predictions = stack_models(everyone)
    return ids_T, combine_folds(config, predictions, [len(tables) for tables in models.values()])


def combine_folds(config: RunConfig, predictions: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """What is combined, (M, rows): of each member the combination of its fold models; with one member its fold models.

    Args:
        config: of the run.
        predictions: of all fold models, those of a member one after the other.
        counts: of fold models of each member.
    """
    if combines_folds(config):
        return predictions
    method, space, trim = config.ensemble.fold_method, config.ensemble.space, config.ensemble.trim
    parts = np.split(predictions, np.cumsum(counts)[:-1])
    return np.stack([combine(part, method, space, trim=trim) for part in parts])


def read_test_of_folds(folder: RunFolder, config: RunConfig) -> dict[str, list[pa.Table]]:
    """The test predictions of each fold model of each member that is combined, by the member's name; empty without test rows.

    Raises:
        PredictionError: a member from elsewhere has no test predictions.
    """
    models = {}
    for name in config.combined_members:
        own = folder.of_member(name)
        paths = [own.fold(fold).predictions("test", config.ensemble.checkpoint) for fold in range(config.folds.count)]
        if not paths[0].exists():
            return {}
        models[name] = [read_parquet(path) for path in paths]
    for name, (_, test) in read_external(config, read_parquet(folder.fold_plan)).items():
        models[name] = [test.filter(pc.equal(test["fold"], fold)) for fold in sorted(set(test["fold"].to_pylist()))]
        if not models[name]:
            raise PredictionError(f"{config.ensemble.external}: member {name!r} has no prediction of a test row")
    return models


def _read_member(folder: RunFolder, checkpoint: str, config: RunConfig) -> pa.Table:
    folds = range(config.folds.count)
    return pa.concat_tables(read_parquet(folder.fold(fold).predictions("validation", checkpoint)) for fold in folds)


def read_external(config: RunConfig, plan: pa.Table) -> dict[str, tuple[pa.Table, pa.Table]]:
    """The members of `ensemble.external`: out-of-fold and test predictions of each, by name.

    Raises:
        PredictionError: the file is no such table, or a member's out-of-fold predictions are not one honest one for each row on
            the run's folds.
    """
    if config.ensemble.external is None:
        return {}
    path = Path(config.ensemble.external).expanduser()
    if not path.is_file():
        raise PredictionError(f"ensemble.external={path}: no such file")
    table = read_parquet(path)
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise PredictionError(
            f"{path} has no column {', '.join(missing)}: expected the schema of oof.parquet, {', '.join(SCHEMA.names)}"
        )
    fold_of = {i: f for i, f in zip(plan["id"].to_pylist(), plan["fold"].to_pylist(), strict=True) if f >= 0}
    is_known = pa.array([row_id in fold_of for row_id in table["id"].to_pylist()])
    external, chosen = {}, config.ensemble.members
    names = set(table["member"].to_pylist())
    if unknown := [name for name in chosen or () if name not in names and name not in config.member_names]:
        raise PredictionError(
            f"ensemble.members: no member {unknown[0]!r}; the run has {', '.join(config.member_names)}, {path} has "
            f"{', '.join(sorted(names))}"
        )
    for name in dict.fromkeys(table["member"].to_pylist()):
        if name in config.member_names:
            raise PredictionError(
                f"{path}: its member {name!r} has the name of one of the run's; rename it in the file"
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
            f"ensemble.external: no member of the file is combined: {whose}; name one in ensemble.members, or leave out ensemble.external"
        )
    return external


def _check_external(oof: pa.Table, fold_of: dict[str, int], what: str) -> None:
    """Raises PredictionError unless each row that a fold validates has one honest, finite prediction on that fold."""
    ids = oof["id"].to_pylist()
    if len(ids) != len(fold_of) or len(set(ids)) != len(ids):
        twice = len(ids) - len(set(ids))
        raise PredictionError(
            f"{what} has {len(ids)} out-of-fold predictions ({twice} ids more than once) for the {len(fold_of)} rows that the "
            "run's folds validate: expected one for each"
        )
    other = [i for i, fold in zip(ids, oof["fold"].to_pylist(), strict=True) if fold != fold_of[i]]
    if other:
        raise PredictionError(
            f"{what}: {len(other)} rows are validated by another fold than in fold_plan.parquet, such as {other[0]!r}: its models were "
            "trained on rows that they should not have seen. Train it on the run's folds"
        )
    if any(oof["in_sample"].to_pylist()):
        raise PredictionError(f"{what} has out-of-fold predictions that say in_sample: those models have seen the rows")
    if not np.isfinite(oof["prediction"].to_numpy()).all():
        raise PredictionError(f"{what} has out-of-fold predictions that are NaN or infinite")
