"""Whether an ensemble's config fits the rows and the folds of a run, and whether these are finished and whole."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ensemble.config import FITTED_METHODS, FOLD_METHODS, NOTHING_TO_FIT, EnsembleConfig
from ensemble.predictions import PredictionError
from ensemble.run import find_units, has_blend_set
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import IncompleteRunError, RunError, RunFolderError
from ray_jobs.results.run_files import (
    combines_folds,
    describe_planned,
    explain_part,
    list_combined_folds,
    measure_folds,
)
from ray_jobs.runs.checkpoints import CHECKPOINTS
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import find_provenance


def refuse_damaged(folder: RunFolder, num_folds: int) -> None:
    """Compares what this stage reads of finished folds with their manifests: predictions, and what is said of
    checkpoints; of the other files their sizes.

    Raises:
        RunFolderError: a file is damaged; the message names it, and the command that repairs it.
    """
    for fold in range(num_folds):
        files = folder.fold(fold)
        described = (str((files.checkpoint(name) / "checkpoint.json").relative_to(files.root)) for name in CHECKPOINTS)
        if not files.manifest.exists():
            continue
        damaged = files.find_damage("predictions/", *described)
        if not damaged and not files.is_complete():
            damaged = files.find_damage()
        if damaged:
            command = _find_command(folder)
            raise RunFolderError(
                f"{damaged[0]} is missing or damaged; `{command}` trains {folder.describe_fold(fold)} again, with the "
                "same bits"
            )


def _find_command(folder: RunFolder) -> str:
    return find_provenance(folder).command or "the command that trained the run"


def check_finished(folder: RunFolder, config: RunConfig, members: Sequence[str]) -> RunConfig:
    """What a job that combines finished folds anew has to know before it changes anything.

    Args:
        folder: the run.
        config: as it is to be.
        members: whose folds have to be finished.

    Returns:
        The config with absolute paths.

    Raises:
        RunError: a fold is not finished or damaged, or the ensemble's config does not fit the run.
        PredictionError: `ensemble.external` does not.
    """
    folds = list_combined_folds(folder, config)
    for own in map(folder.of_member, members):
        refuse_damaged(own, config.folds.count)
        finished = own.completed_folds(config.folds.count)
        if missing := sorted(set(folds) - set(finished)):
            advice = ", or combine the others by ensemble.folds=finished" if finished else ""
            raise IncompleteRunError(
                f"folds {missing} of {own.root} are not finished; train them first, by `{_find_command(folder)}`"
                f"{advice}"
            )
    if reason := explain_part(folder, config, folds):
        raise IncompleteRunError(f"{folder.root}: {reason}")
    config = with_absolute_external(config)
    some = folder.of_member(members[0])

    def read_targets() -> np.ndarray:
        target_N, _ = config.kind.split(measure_folds(some, config, folds[:1], "final")[0])
        return target_N

    check_ensemble(config, read_parquet(folder.fold_plan), read_targets)
    return config


def with_absolute_external(config: RunConfig) -> RunConfig:
    """The config with the whole path of `ensemble.external`."""
    if not config.ensemble.external:
        return config
    external = os.path.abspath(os.path.expanduser(config.ensemble.external))
    return dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, external=external))


def with_usual_metric(config: RunConfig) -> RunConfig:
    """The config with the first score of the kind as the metric, where it is the default and the kind does not know
    it: what is predicted may be found in the data."""
    ensemble, kind = config.ensemble, config.kind
    if ensemble.metric != EnsembleConfig().metric:
        return config
    try:
        kind.check_metric(ensemble.metric)
    except ValueError:
        return dataclasses.replace(config, ensemble=dataclasses.replace(ensemble, metric=kind.scores[0]))
    return config


def check_ensemble(config: RunConfig, plan: pa.Table, read_targets: Callable[[], np.ndarray]) -> None:
    """What of the ensemble's config can only be judged once the rows and their folds are known, and what the kind of
    predictions offers.

    Args:
        config: of the run.
        plan: its fold plan.
        read_targets: gives the targets of some rows, (N,).

    Raises:
        RunError: something that is not on offer, a metric that is unknown or not defined for such targets, or fitted
            weights without rows to fit them to.
        PredictionError: `ensemble.external` does not belong to these rows and folds.
    """
    ensemble, kind = config.ensemble, config.kind
    refuse_what_is_not_offered(config)
    try:
        kind.check_metric(ensemble.metric, read_targets)
    except ValueError as error:
        raise RunError(f"ensemble.metric={ensemble.metric}: {error}") from None
    if ensemble.method == "weighted_mean" and ensemble.weights is None and not kind.can_weigh_by(ensemble.metric):
        raise RunError(
            f"ensemble.metric={ensemble.metric}: expected an error such as msle or mae with "
            "ensemble.method=weighted_mean, as weights are one over the error; set ensemble.weights, or another metric"
        )
    if combines_folds(config) and ensemble.method in FITTED_METHODS and not has_blend_set(plan):
        raise RunError(f"ensemble.method={ensemble.method}: {NOTHING_TO_FIT}")
    try:
        kind.check_run(describe_planned(config, plan))
    except PredictionError:
        raise
    except ValueError as error:
        raise RunError(str(error)) from None
    if not combines_folds(config) and "members" in kind.offers:
        _refuse_single_unit(plan)


def _refuse_single_unit(plan: pa.Table) -> None:
    """Raises RunError where all rows that score members are one, or of one group: no interval can be estimated from
    them."""
    validated = plan.filter(pc.greater_equal(plan["fold"], 0))
    units = find_units(validated, validated["id"].to_pylist())
    if len(validated) < 2 or (units is not None and len(np.unique(units)) < 2):
        what = "row validates" if len(validated) < 2 else "group of rows validates"
        raise RunError(
            f"only one {what}: expected at least two to compare members; raise folds.holdout_fraction, or train folds "
            "(kfold.py)"
        )


def refuse_what_is_not_offered(config: RunConfig) -> None:
    """Raises RunError where the config wants what the family's kind of predictions does not offer."""
    ensemble, kind = config.ensemble, config.kind
    if ensemble.method not in kind.methods:
        raise RunError(
            f"ensemble.method={ensemble.method}: expected one of {', '.join(kind.methods)} for {kind.title}, which "
            "this "
            f"family predicts{'; ' * (ensemble.method in kind.refused)}{kind.refused.get(ensemble.method, '')}"
        )
    for name in ("interval", "external"):
        if getattr(ensemble, name) is not None and name not in kind.offers:
            raise RunError(
                f"ensemble.{name}={getattr(ensemble, name)}: expected none for {kind.title}, which this family predicts"
            )
    if config.members and "members" not in kind.offers:
        raise RunError(
            f"--members={list(config.members)}: expected none for {kind.title}, which this family predicts; train each "
            "variant as a run of its own"
        )
    if ensemble.seeds > 1 and "members" not in kind.offers:
        raise RunError(f"ensemble.seeds={ensemble.seeds}: expected 1 for {kind.title}, which this family predicts")
    if len(config.member_names) > 1 and ensemble.fold_method not in kind.methods:
        raise RunError(
            f"ensemble.fold_method={ensemble.fold_method}: expected one of "
            f"{', '.join(method for method in FOLD_METHODS if method in kind.methods)} for {kind.title}, which this "
            "family predicts"
        )
