"""How many folds run at once, and with which resources. Pure: numbers in, a placement out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ray_jobs.errors import ClusterError


@dataclass(frozen=True)
class ResourcesConfig:
    """What each fold gets; `auto` leaves the choice to the project."""

    gpus_per_fold: float | Literal["auto"] = "auto"
    """GPUs of one fold; below 1 several folds share one; 0: train on CPUs even if there are GPUs."""
    cpus_per_fold: float | Literal["auto"] = "auto"
    """CPU cores that one fold reserves, over all its workers."""
    workers_per_fold: int = 1
    """Processes that train one fold together (DistributedDataParallel)."""
    max_folds_at_once: int | None = None
    """Upper limit of folds in training at the same time."""

    def __post_init__(self) -> None:
        if self.workers_per_fold < 1:
            raise ValueError(f"resources.workers_per_fold={self.workers_per_fold}: expected at least 1")
        gpus, cpus = self.gpus_per_fold, self.cpus_per_fold
        if cpus != "auto" and not 0 < cpus < math.inf:
            raise ValueError(f"resources.cpus_per_fold={cpus}: expected a number above 0, or auto")
        if gpus != "auto" and not 0 <= gpus < math.inf:
            raise ValueError(f"resources.gpus_per_fold={gpus}: expected a number from 0, or auto")
        if gpus != "auto" and gpus > 1 and (gpus / self.workers_per_fold) % 1:
            raise ValueError(
                f"resources.gpus_per_fold={gpus} with resources.workers_per_fold={self.workers_per_fold}: above one GPU a "
                "worker can only have whole ones"
            )
        if gpus != "auto" and self.workers_per_fold > 1 and 0 < gpus < self.workers_per_fold:
            raise ValueError(
                f"resources.gpus_per_fold={gpus} with resources.workers_per_fold={self.workers_per_fold}: "
                "NCCL refuses two workers of one fold on one GPU; give one GPU a worker, or one worker a fold"
            )
        if self.max_folds_at_once is not None and self.max_folds_at_once < 1:
            raise ValueError(f"resources.max_folds_at_once={self.max_folds_at_once}: expected at least 1")


@dataclass(frozen=True)
class ClusterResources:
    """What a cluster has, and what it could grow to.

    Attributes:
        cpus, gpus: of all nodes that are alive.
        nodes: (cpus, gpus) of each alive node.
        node_types: (cpus, gpus) of each node type that the autoscaler may start; empty without autoscaling.
    """

    cpus: float
    gpus: float
    nodes: tuple[tuple[float, float], ...]
    node_types: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Placement:
    """The outcome: resources of one worker, workers of one fold, folds at once."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    threads_per_worker: int
    folds_at_once: int
    waits_for: str | None = None

    def worker_resources(self) -> dict[str, float]:
        """As Ray wants them."""
        resources = {"CPU": self.cpus_per_worker}
        return resources | {"GPU": self.gpus_per_worker} if self.gpus_per_worker else resources


def place_folds(config: ResourcesConfig, cluster: ClusterResources, num_folds: int) -> Placement:
    """Decides the resources of the folds of a run.

    `num_folds` counts the whole plan, not what is left of it: a fold that is trained later, alone, gets the same threads
    and therefore the same bits.

    With GPUs: one GPU a worker; with fewer GPUs than folds (and one worker a fold) an equal fraction, so that all
    folds fit at once. Without: a fraction of the cores a fold, so that all folds run together.

    Raises:
        ClusterError: no node that is there or could be started can hold a worker; or GPUs are left to `auto` on an
            autoscaling cluster that has none at the moment.
    """
    workers = config.workers_per_fold
    gpus_per_worker = _choose_gpus(config, cluster, num_folds) / workers
    if config.cpus_per_fold != "auto":
        cpus_per_worker = config.cpus_per_fold / workers
        threads = max(1, int(cpus_per_worker))
    else:
        cpus_per_worker, threads = _choose_cpus(cluster, num_folds * workers, gpus_per_worker)

    waits_for = _check_feasible(cpus_per_worker, gpus_per_worker, cluster)
    slots = sum(_count_workers(node, cpus_per_worker, gpus_per_worker) for node in cluster.nodes)
    at_once = num_folds if cluster.node_types else min(num_folds, slots // workers)
    if at_once == 0:
        raise ClusterError(
            f"one fold asks for {workers} workers with {cpus_per_worker:g} CPU and {gpus_per_worker:g} GPU each; the "
            f"cluster's nodes hold {slots} of them. Lower resources.workers_per_fold, resources.cpus_per_fold or "
            "resources.gpus_per_fold"
        )
    at_once = min(at_once, config.max_folds_at_once or at_once)
    return Placement(workers, cpus_per_worker, gpus_per_worker, threads, at_once, waits_for)


def _choose_gpus(config: ResourcesConfig, cluster: ClusterResources, num_folds: int) -> float:
    if config.gpus_per_fold != "auto":
        return config.gpus_per_fold
    if not cluster.gpus:
        if any(gpus for _, gpus in cluster.node_types):
            raise ClusterError(
                "this cluster can start nodes with GPUs but has none now; say what a fold shall use: "
                "resources.gpus_per_fold=1 waits for GPUs, resources.gpus_per_fold=0 trains on CPUs"
            )
        return 0.0
    workers = config.workers_per_fold
    if workers > 1 or cluster.gpus >= num_folds:
        return float(workers)
    folds_per_gpu = math.ceil(num_folds / int(cluster.gpus))
    return math.floor(1000 / folds_per_gpu) / 1000


def _choose_cpus(cluster: ClusterResources, num_workers: int, gpus_per_worker: float) -> tuple[float, int]:
    """Cores that a worker reserves, and threads that it uses."""
    nodes = cluster.nodes + cluster.node_types
    if gpus_per_worker:  # an even share of the cores beside each GPU
        share = min((cpus / gpus for cpus, gpus in nodes if gpus), default=1.0) * gpus_per_worker
        share = float(math.floor(share)) if share >= 1 else share
        return math.floor(1000 * share) / 1000, max(1, int(share))
    cores = cluster.cpus or max((cpus for cpus, _ in nodes), default=1.0)
    largest = max((cpus for cpus, _ in nodes), default=1.0)
    share = min(1.0, math.floor(1000 * cores / num_workers) / 1000)
    return share, max(1, int(min(cores // num_workers, largest)))


def _count_workers(node: tuple[float, float], cpus: float, gpus: float) -> int:
    """Workers that fit on one node."""
    by_cpu = int(node[0] / cpus + 1e-6)
    return min(by_cpu, int(node[1] / gpus + 1e-6)) if gpus else by_cpu


def _check_feasible(cpus: float, gpus: float, cluster: ClusterResources) -> str | None:
    """What the autoscaler has to start before a worker fits; None if a node of now holds one.

    Raises:
        ClusterError: no node and no node type can hold a worker.
    """
    if any(_count_workers(node, cpus, gpus) for node in cluster.nodes):
        return None
    request = f"a node with {cpus:g} CPU and {gpus:g} GPU"
    if any(_count_workers(node, cpus, gpus) for node in cluster.node_types):
        return request
    there = ", ".join(f"{c:g} CPU/{g:g} GPU" for c, g in cluster.nodes) or "none"
    types = ", ".join(f"{c:g} CPU/{g:g} GPU" for c, g in cluster.node_types)
    raise ClusterError(
        f"no node can hold a worker: it needs {request}; nodes: {there}"
        + (f"; node types that can be started: {types}" if types else "")
        + ". Lower resources.cpus_per_fold or resources.gpus_per_fold"
    )
