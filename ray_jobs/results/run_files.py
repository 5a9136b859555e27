"""What a kind of predictions is told of a run, from its folder and its config, and the scores that it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.kinds import Kind
from ensemble.run import Materials, Model, Run
from ensemble.run import combines_folds as combines_folds_of
from ray_jobs.config.run import RunConfig
from ray_jobs.runs.checkpoints import CHECKPOINTS, read_description
from ray_jobs.runs.files import read_json, read_parquet
from ray_jobs.runs.folder import RunFolder, find_members
from trainers.interface import CheckpointName, load_inventory_module
from trainers.storage.whole_files import write_whole


def describe_run(folder: RunFolder, config: RunConfig) -> Run:
    """The run with the files of the members that are combined."""
    folders = find_members(folder, config)
    repeats = any(own.own_fold_plan.exists() for own in list(folders.values())[1:])
    return Run(
        config.ensemble,
        {name: [folders[name].fold(fold) for fold in range(config.folds.count)] for name in config.combined_members},
        config.folds.count,
        tuple(config.member_names),
        read_parquet(folder.fold_plan),
        str(read_json(folder.provenance, default={}).get("target", "")),
        config.folds.kind,
        config.folds.seed,
        not repeats and config.folds.on_leak != "group",
    )


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
        folders = find_members(folder, config)
        return [Model({"member": name}, _average_summaries(folders.get(name), config)) for name in names]
    member = folder.of_member(config.combined_members[0])
    described = _describe_folds(member, config)
    return [Model({"fold": fold, "epoch": one["epoch"]}, one["model_summary"]) for fold, one in enumerate(described)]


def _describe_folds(member: RunFolder, config: RunConfig) -> list[dict[str, Any]]:
    folds = range(config.folds.count)
    return [read_description(member.fold(fold).checkpoint(config.ensemble.checkpoint)) for fold in folds]


def _average_summaries(member: RunFolder | None, config: RunConfig) -> dict[str, float]:
    """What a member's fold models say of themselves, on average; nothing of a member that was made elsewhere."""
    if member is None:
        return {}
    summaries = [one["model_summary"] for one in _describe_folds(member, config)]
    return {name: float(np.mean([summary[name] for summary in summaries])) for name in summaries[0]}


def measure_folds(folder: RunFolder, config: RunConfig, folds: Sequence[int], checkpoint: str) -> list[pa.Table]:
    """The lines of `oof.parquet` of each of these finished folds of a member.

    Raises:
        PredictionError: a file is missing or damaged.
    """
    paths = [folder.fold(fold).predictions("validation", checkpoint) for fold in folds]
    return [config.kind.measure(path, config.ensemble) for path in paths]


def score_folds(folder: RunFolder, config: RunConfig, folds: Sequence[int]) -> tuple[dict[str, Any], pa.Table]:
    """Scores each finished fold of a member and all of them together, by `ensemble.metric` and others, beside the
    constant predictor, which is what a model has to beat.

    Returns:
        The scores, and the lines of `oof.parquet` by the config's checkpoint.
    """
    kind, metric, chosen = config.kind, config.ensemble.metric, config.ensemble.checkpoint
    tables: dict[str, list[pa.Table]] = {
        checkpoint: measure_folds(folder, config, folds, checkpoint) for checkpoint in CHECKPOINTS
    }
    constants = read_json(folder.provenance)["constant_predictions"] or None
    by_fold = []
    for index, fold in enumerate(folds):
        of_fold: dict[str, pa.Table] = {checkpoint: tables[checkpoint][index] for checkpoint in CHECKPOINTS}
        by_fold.append({"fold": fold, **_score(kind, of_fold, chosen, constants, metric)})
    whole: dict[str, pa.Table] = {checkpoint: pa.concat_tables(tables[checkpoint]) for checkpoint in CHECKPOINTS}
    overall = _score(kind, whole, chosen, constants, metric)
    return {"folds": by_fold, "out_of_fold": {"checkpoint": chosen, **overall}}, whole[chosen]


def _score(
    kind: Kind,
    tables: Mapping[CheckpointName, pa.Table],
    chosen: CheckpointName,
    constants: list[Any] | None,
    metric: str,
) -> dict[str, Any]:
    target_N, _ = kind.split(tables[chosen])
    constant_N = None if constants is None else np.array([constants[f] for f in tables[chosen]["fold"].to_pylist()])
    return {
        "num_rows": len(tables[chosen]),
        **{checkpoint: kind.score(*kind.split(table), metric) for checkpoint, table in tables.items()},
        "constant": kind.score_constant(target_N, constant_N, metric),
    }
