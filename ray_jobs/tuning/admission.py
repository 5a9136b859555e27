"""How many trials run at once, and with what resources: so many that all their folds do. Pure.

A trial reserves nothing itself and holds nothing while it waits: only its folds' workers have resources, and each fold
gives them back when it ends. So trials cannot block each other, however many there are; more than fit would only make
each end later."""

from __future__ import annotations

from dataclasses import replace

from ray_jobs.cluster.placement import ClusterResources, Placement, place_folds
from ray_jobs.config.resources import ResourcesConfig


def admit_trials(
    resources: ResourcesConfig, cluster: ClusterResources, folds_each: int, num_trials: int, limit: int | None = None
) -> tuple[Placement, int]:
    """Decides the resources of a fold and the number of trials at once.

    What is left to `auto` is not cut into smaller parts than a core or a GPU for the sake of more trials: a trial that
    has the cluster for itself is placed as `kfold.py` places it.

    Args:
        resources: of a fold, and how many folds at once at most, of all trials together.
        cluster: what there is.
        folds_each: folds that a trial trains at the same time.
        num_trials: of the whole tuning, not what is left of it: threads decide bits.
        limit: most trials at once.

    Returns:
        The placement of one trial, and how many trials at once, at least 1.

    Raises:
        ClusterError: no node can hold a worker.
    """
    admitted, placement = 1, place_folds(resources, cluster, folds_each)
    while admitted < min(num_trials, limit or num_trials):
        wider = place_folds(resources, cluster, folds_each * (admitted + 1))
        if wider.folds_at_once < folds_each * (admitted + 1) or _is_cut(wider, resources):
            break
        admitted, placement = admitted + 1, wider
    return replace(placement, folds_at_once=min(placement.folds_at_once, folds_each)), admitted


def _is_cut(placement: Placement, resources: ResourcesConfig) -> bool:
    """Whether a worker has less than a whole one of what decides its speed, and nobody has asked for less."""
    if placement.gpus_per_worker:
        return resources.gpus_per_fold == "auto" and placement.gpus_per_worker < 1
    return resources.cpus_per_fold == "auto" and placement.cpus_per_worker < 1
