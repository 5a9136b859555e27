"""What a kind of predictions is told of a run, from its folder and its config, and the scores that it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.config import EnsembleConfig
from ensemble.kinds import Kind
from ensemble.run import Materials, Model, Run
from ensemble.run import combines_folds as combines_folds_of
from ray_jobs.config.folds import BLEND
from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.results.wording import name_folds
from ray_jobs.runs.checkpoints import CHECKPOINTS, read_description
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder, find_members
from ray_jobs.runs.json_files.provenance import find_provenance, read_provenance
from ray_jobs.runs.json_files.status import read_status
from ray_jobs.runs.json_files.summary import RowScores, Scores
from trainers.interface import CheckpointName, load_inventory_module
from trainers.storage.whole_files import write_whole


def describe_run(folder: RunFolder, config: RunConfig) -> Run:
    """The run with the files of the members that are combined."""
    folders, folds = find_members(folder, config), list_combined_folds(folder, config)
    is_whole = len(folds) == config.folds.count
    return Run(
        config.ensemble,
        {name: [folders[name].fold(fold) for fold in folds] for name in config.combined_members},
        len(folds),
        tuple(config.member_names),
        read_parquet(folder.fold_plan),
        find_provenance(folder).target or "",
        config.folds.kind,
        config.folds.seed,
        is_whole
        and not _list_repeating(folder, config)
        and config.folds.on_leak != "group"
        and not any(_has_chosen_end(folders[name], folds) for name in config.combined_members),
        folds,
    )


def _has_chosen_end(member: RunFolder, folds: Sequence[int]) -> bool:
    """Whether the validation rows of a fold have decided when its training ends."""
    return any(read_status(member, fold).ended_by == "patience" for fold in folds)


def list_combined_folds(folder: RunFolder, config: RunConfig) -> tuple[int, ...]:
    """Numbers of the folds whose models are combined: of `ensemble.folds=finished` those that are finished in each
    member that is combined."""
    folds = set(range(config.folds.count))
    if config.ensemble.folds == "finished":
        folds.intersection_update(
            *(folder.of_member(name).completed_folds(config.folds.count) for name in config.combined_members)
        )
    return tuple(sorted(folds))


def explain_part(folder: RunFolder, config: RunConfig, folds: Sequence[int]) -> str | None:
    """Why a part of the folds cannot be combined; None: it can, or it is all of them."""
    if not folds:
        return "no fold is finished" + (" in each member" if len(config.combined_members) > 1 else "")
    if len(folds) == config.folds.count:
        return None
    some = f"ensemble.folds=finished combines {name_folds(folds, config.folds.count)}"
    if config.ensemble.external is not None:
        return f"{some}, and ensemble.external has predictions of the rows of all: leave out one of the two"
    repeating = [name for name in _list_repeating(folder, config) if name in config.combined_members]
    if repeating and len(config.combined_members) > 1:
        return (
            f"{some}, and member {repeating[0]}, with a division of its own, has other rows in these: leave it out of "
            "ensemble.members, or finish all folds"
        )
    return None


def _list_repeating(folder: RunFolder, config: RunConfig) -> list[str]:
    """Further members that repeat the cross-validation on another division."""
    folders = find_members(folder, config)
    return [name for name, own in folders.items() if name != MAIN and own.own_fold_plan.exists()]


def with_own_recipe(config: RunConfig) -> RunConfig:
    """The config of a run as if it had no further members: what its own recipe's fold models are asked by."""
    own = replace(config.ensemble, members=None, external=None, weights=None, seeds=1)
    return replace(config, ensemble=own, members=())


def with_one_model(config: RunConfig) -> RunConfig:
    """The config of a run as if there were one model: with nothing that combines several."""
    own, default, methods = config.ensemble, EnsembleConfig(), config.kind.methods
    ensemble = replace(
        default,
        method=default.method if default.method in methods else methods[0],
        metric=own.metric,
        threshold=own.threshold,
        checkpoint=own.checkpoint,
        folds=own.folds,
    )
    return replace(config, ensemble=ensemble, members=())


def list_blend_ids(folder: RunFolder) -> list[str]:
    """The rows of a run that no fold trains or validates on."""
    plan = read_parquet(folder.fold_plan)
    ids: list[str] = plan.filter(pc.equal(plan["fold"], BLEND))["id"].to_pylist()
    return ids


def describe_planned(config: RunConfig, plan: pa.Table) -> Run:
    """A run that has no files yet."""
    members: dict[str, list[Any]] = {name: [] for name in config.combined_members}
    return Run(
        config.ensemble, members, config.folds.count, tuple(config.member_names), plan, fold_kind=config.folds.kind
    )


def combines_folds(config: RunConfig) -> bool:
    """Whether fold models are combined rather than members: there is one."""
    return combines_folds_of(config.ensemble, len(config.combined_members))


def open_materials(folder: RunFolder, config: RunConfig) -> Materials:
    """What lies behind a run's rows, and where pictures of them go."""

    def open_backgrounds(table: str) -> Callable[[str], np.ndarray]:
        open_of_family = load_inventory_module(config.family).open_backgrounds
        background_of: Callable[[str], np.ndarray] = open_of_family(config.trainer, folder.inputs, table)
        return background_of

    return Materials(lambda name, content: write_whole(folder.root / name, content), open_backgrounds)


def describe_models(folder: RunFolder, config: RunConfig, names: Sequence[str]) -> list[Model]:
    """What is combined, with what its family says of it.

    Args:
        folder, config: the run.
        names: of the members, those from elsewhere included; not looked at where fold models are combined.
    """
    if not combines_folds(config):
        folders, folds = find_members(folder, config), list_combined_folds(folder, config)
        return [Model({"member": name}, _average_summaries(folders.get(name), config, folds)) for name in names]
    member = folder.of_member(config.combined_members[0])
    folds = list_combined_folds(folder, config)
    described = zip(folds, _describe_folds(member, config, folds), strict=True)
    return [Model({"fold": fold, "epoch": one["epoch"]}, one["model_summary"]) for fold, one in described]


def _describe_folds(member: RunFolder, config: RunConfig, folds: Sequence[int]) -> list[dict[str, Any]]:
    return [read_description(member.fold(fold).checkpoint(config.ensemble.checkpoint)) for fold in folds]


def _average_summaries(member: RunFolder | None, config: RunConfig, folds: Sequence[int]) -> dict[str, float]:
    """What a member's fold models say of themselves, on average; nothing of a member that was made elsewhere."""
    if member is None:
        return {}
    summaries = [one["model_summary"] for one in _describe_folds(member, config, folds)]
    return {name: float(np.mean([summary[name] for summary in summaries])) for name in summaries[0]}


def measure_folds(folder: RunFolder, config: RunConfig, folds: Sequence[int], checkpoint: str) -> list[pa.Table]:
    """The lines of `oof.parquet` of each of these finished folds of a member.

    Raises:
        PredictionError: a file is missing or damaged.
    """
    paths = [folder.fold(fold).predictions("validation", checkpoint) for fold in folds]
    return [config.kind.measure(path, config.ensemble) for path in paths]


def score_folds(folder: RunFolder, config: RunConfig, folds: Sequence[int]) -> tuple[Scores, pa.Table]:
    """Scores each finished fold of a member and all of them together, by `ensemble.metric` and others, beside the
    constant predictor, which is what a model has to beat.

    Returns:
        The scores, and the lines of `oof.parquet` by the config's checkpoint.
    """
    kind, metric, chosen = config.kind, config.ensemble.metric, config.ensemble.checkpoint
    tables: dict[str, list[pa.Table]] = {
        checkpoint: measure_folds(folder, config, folds, checkpoint) for checkpoint in CHECKPOINTS
    }
    constants = list(read_provenance(folder).constant_predictions or ()) or None
    by_fold = []
    for index, fold in enumerate(folds):
        of_fold: dict[str, pa.Table] = {checkpoint: tables[checkpoint][index] for checkpoint in CHECKPOINTS}
        by_fold.append(replace(_score(kind, of_fold, chosen, constants, metric), fold=fold))
    whole: dict[str, pa.Table] = {checkpoint: pa.concat_tables(tables[checkpoint]) for checkpoint in CHECKPOINTS}
    overall = _score(kind, whole, chosen, constants, metric)
    facts = kind.describe_out_of_fold(whole[chosen], is_ordered=config.folds.kind == "time")
    return Scores(tuple(by_fold), replace(overall, checkpoint=chosen), facts), whole[chosen]


def _score(
    kind: Kind,
    tables: Mapping[CheckpointName, pa.Table],
    chosen: CheckpointName,
    constants: list[Any] | None,
    metric: str,
) -> RowScores:
    target_N, _ = kind.split(tables[chosen])
    constant_N = None if constants is None else np.array([constants[f] for f in tables[chosen]["fold"].to_pylist()])
    scores = {checkpoint: kind.score(*kind.split(table), metric) for checkpoint, table in tables.items()}
    return RowScores(
        num_rows=len(tables[chosen]),
        best=scores["best"],
        final=scores["final"],
        constant=kind.score_constant(target_N, constant_N, metric),
    )
