"""How many folds run at once, with which resources, and how many workers an elastic fold has. Pure: numbers in, a
placement out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ray_jobs.config.resources import ResourcesConfig, parse_memory, show_memory
from ray_jobs.errors import ClusterError

_MANY = 1_000_000  # workers on a node of unknown size
# Measured with two and four folds of the default recipe; larger models take more.
FOLD_BYTES, DRIVER_BYTES = 1.4 * 2**30, 1.6 * 2**30
_RESIZE_MARGIN = 1.5  # a fold never gains as much by more workers as their number says


class Resources(NamedTuple):
    """What a node has, or what a worker reserves there."""

    cpus: float
    gpus: float
    memory_bytes: float


@dataclass(frozen=True)
class ClusterResources:
    """What a cluster has, and what it could grow to.

    Attributes:
        cpus, gpus: of all nodes that are alive.
        nodes: of each alive node.
        startable: of each node that the autoscaler may have started at once, those that are there included, infinite
            where that is known only of a started node; empty without autoscaling.
        free_bytes: memory that this machine has left, where it is all there is.
    """

    cpus: float
    gpus: float
    nodes: tuple[Resources, ...]
    startable: tuple[Resources, ...] = ()
    free_bytes: float | None = None


@dataclass(frozen=True)
class Placement:
    """The outcome: resources of one worker, workers of one fold (of an elastic one at least), folds at once, workers
    that the nodes hold at once, what has to be started before any fold can train, whether more nodes may be started,
    and whether more folds could train at once if there were more memory."""

    num_workers: int
    most_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    memory_per_worker_bytes: float
    threads_per_worker: int
    folds_at_once: int
    slots: int
    waits_for: str | None = None
    may_grow: bool = False
    is_short_of_memory: bool = False

    @property
    def workers_at_once(self) -> int:
        """Of all folds that train at once."""
        least, most = self.num_workers * self.folds_at_once, self.most_workers * self.folds_at_once
        return max(least, min(self.slots, most))

    def worker_resources(self) -> dict[str, float]:
        """As Ray wants them."""
        optional = {"GPU": self.gpus_per_worker, "memory": self.memory_per_worker_bytes}
        return {"CPU": self.cpus_per_worker} | {name: amount for name, amount in optional.items() if amount}


def place_folds(
    config: ResourcesConfig, cluster: ClusterResources, num_folds: int, num_todo: int | None = None
) -> Placement:
    """Decides the resources of the folds of a run.

    `num_folds` counts the whole plan, not what is left of it: a fold that is trained later, alone, gets the same
    threads and therefore the same bits. `num_todo` are to be trained, of all members (by default that plan's): with
    room of their own as many at once as there is room for, but where the cores were divided among the folds of a plan
    no more than these.

    With GPUs: one GPU a worker; with fewer GPUs than folds (and one worker a fold) an equal fraction, so that all folds
    fit at once. Without: a fraction of the cores a fold, so that all folds run together, as far as there is memory for
    them. Memory decides how many folds run at once, never their threads. A worker of an elastic fold is the same
    whatever their number.

    Raises:
        ClusterError: no node that is there or could be started can hold a worker; or GPUs are left to `auto` on an
            autoscaling cluster that has none at the moment.
    """
    worker, threads = _shape_worker(config, cluster, num_folds)
    waits_for = _check_feasible(worker, cluster)
    workers, slots = config.least_workers, _count_workers(cluster.nodes, worker)
    wanted = num_folds if num_todo is None else num_todo
    if divides_cores(config, worker.gpus):
        wanted = min(wanted, num_folds)
    at_once = min(wanted, _count_most_workers(cluster, worker) // workers)
    if at_once == 0:
        fits_without = _count_workers(cluster.nodes, worker._replace(memory_bytes=0)) >= workers
        raise ClusterError(
            f"one fold asks for {workers} workers with {_describe(worker)} each; the cluster's nodes hold "
            f"{slots} of them: "
            f"{_list(cluster.nodes, worker)}. "
            + _advise(fits_without, "resources.workers_per_fold, resources.cpus_per_fold or resources.gpus_per_fold")
        )
    at_once = min(at_once, config.max_folds_at_once or at_once)
    room = at_once
    if divides_cores(config, worker.gpus) and config.max_folds_at_once is None and not worker.memory_bytes:
        room = max(1, _count_by_memory(cluster) // workers)
    return Placement(
        num_workers=workers,
        most_workers=config.most_workers,
        cpus_per_worker=worker.cpus,
        gpus_per_worker=worker.gpus,
        memory_per_worker_bytes=worker.memory_bytes,
        threads_per_worker=threads,
        folds_at_once=min(at_once, room),
        slots=slots,
        waits_for=waits_for,
        may_grow=bool(cluster.startable),
        is_short_of_memory=room < at_once,
    )


def divides_cores(config: ResourcesConfig, gpus_per_worker: float) -> bool:
    """Whether the folds have the cores of all nodes divided among them; more folds at once would have to share them."""
    return config.cpus_per_fold == "auto" and not gpus_per_worker


def count_in_memory(free_bytes: float) -> int:
    """Folds without a GPU that one machine has memory for, beside the driver and Ray; at least one is tried."""
    return max(1, int((free_bytes - DRIVER_BYTES) / FOLD_BYTES))


def share_workers(room: int, least: int, wishes: Sequence[int]) -> list[int]:
    """Divides room for workers among elastic folds.

    Args:
        room: workers that the nodes can take.
        least: workers with which a fold can train.
        wishes: the most that each fold may have, in the order in which they get something at all.

    Returns:
        Workers of each fold, as even as possible; 0: it has to wait.
    """
    shares = []
    for _ in wishes:
        shares.append(least if room >= least else 0)
        room -= shares[-1]
    return add_workers(shares, room, [wish if share else 0 for wish, share in zip(wishes, shares, strict=True)])


def add_workers(sizes: Sequence[int], room: int, wishes: Sequence[int]) -> list[int]:
    """Gives room to folds that have workers already: one at a time, to the fold with the fewest, up to its wish."""
    sizes = list(sizes)
    for _ in range(room):
        growing = [number for number, size in enumerate(sizes) if size < wishes[number]]
        if not growing:
            break
        sizes[min(growing, key=lambda number: sizes[number])] += 1
    return sizes


def find_gain(remaining_s: float, now: int, then: int, restart_s: float) -> float:
    """Seconds that a fold is done earlier with another number of workers, at best; 0 where that is not clearly more
    than what it costs to begin another attempt.

    Args:
        remaining_s: what it still needs as it is.
        now, then: its workers.
        restart_s: from the last step of an attempt to the first of the next.
    """
    saved_s = remaining_s * (1 - now / then)
    return saved_s - restart_s if saved_s > _RESIZE_MARGIN * restart_s else 0.0


def _shape_worker(config: ResourcesConfig, cluster: ClusterResources, num_folds: int) -> tuple[Resources, int]:
    """What a worker reserves, and its threads."""
    workers = config.most_workers
    gpus = _choose_gpus(config, cluster, num_folds) / workers
    if config.cpus_per_fold != "auto":
        cpus = config.cpus_per_fold / workers
        threads = max(1, int(cpus))
    else:
        # Of elastic folds as many workers as have a core each, and at least the fewest with which all folds run
        # together.
        num_workers = max(num_folds * config.least_workers, min(num_folds * workers, int(cluster.cpus)))
        cpus, threads = _choose_cpus(cluster, num_workers, gpus)
    memory = 0.0 if config.memory_per_fold is None else parse_memory(config.memory_per_fold)
    return Resources(cpus, gpus, math.ceil(memory / workers)), threads  # Ray takes whole bytes


def _choose_gpus(config: ResourcesConfig, cluster: ClusterResources, num_folds: int) -> float:
    if config.gpus_per_fold != "auto":
        return config.gpus_per_fold
    if not cluster.gpus:
        if any(node.gpus for node in cluster.startable):
            raise ClusterError(
                "resources.gpus_per_fold=auto: expected a number, as this cluster has no GPU now and can start nodes "
                "with GPUs; set 1 to wait for GPUs, or 0 to train on CPUs"
            )
        return 0.0
    workers = config.most_workers
    gpus = sum(node.gpus for node in _list_most_nodes(cluster))
    if workers > 1 or gpus >= num_folds:
        return float(workers)
    folds_per_gpu = math.ceil(num_folds / int(gpus))
    return math.floor(1000 / folds_per_gpu) / 1000


def _choose_cpus(cluster: ClusterResources, num_workers: int, gpus_per_worker: float) -> tuple[float, int]:
    """Cores that a worker reserves, and threads that it uses."""
    nodes = [node for node in cluster.nodes + cluster.startable if node.cpus < math.inf]
    if gpus_per_worker:  # an even share of the cores beside each GPU
        share = min((node.cpus / node.gpus for node in nodes if node.gpus), default=1.0) * gpus_per_worker
        share = float(math.floor(share)) if share >= 1 else share
        return math.floor(1000 * share) / 1000, max(1, int(share))
    largest = max((node.cpus for node in nodes), default=1.0)
    cores = cluster.cpus or largest
    share = min(1.0, math.floor(1000 * cores / num_workers) / 1000)
    return share, max(1, int(min(cores // num_workers, largest)))


def _fit(node: Resources, worker: Resources) -> float:
    """How many times a node holds a worker."""
    if 0 < worker.gpus < 1:  # Ray gives a fraction of one GPU, never parts of two
        node = node._replace(gpus=node.gpus * worker.gpus * int(1 / worker.gpus + 1e-9))
    ratio = min(has / needs for has, needs in zip(node, worker, strict=True) if needs)
    return ratio + 1e-9  # 0.3 / 0.1 is a little less than 3


def _count_workers(nodes: tuple[Resources, ...], worker: Resources) -> int:
    """Workers that fit on the nodes, each on one."""
    return sum(int(min(_fit(node, worker), _MANY)) for node in nodes)


def _count_most_workers(cluster: ClusterResources, worker: Resources) -> int:
    """Workers that fit once the autoscaler has started all that it may."""
    return _count_workers(_list_most_nodes(cluster), worker)


def _count_by_memory(cluster: ClusterResources) -> int:
    """Workers without a GPU that the nodes have memory for, by what a small one takes."""
    if cluster.free_bytes is not None:
        return count_in_memory(cluster.free_bytes)
    nodes = _list_most_nodes(cluster)
    return sum(int(min(node.memory_bytes / FOLD_BYTES, _MANY)) if node.memory_bytes else _MANY for node in nodes)


def _list_most_nodes(cluster: ClusterResources) -> tuple[Resources, ...]:
    """The nodes once the autoscaler has started all that it may."""
    started = {node[:2] for node in cluster.startable}
    return tuple(node for node in cluster.nodes if node[:2] not in started) + cluster.startable


def _check_feasible(worker: Resources, cluster: ClusterResources) -> str | None:
    """What the autoscaler has to start before a worker fits; None if a node of now holds one.

    Raises:
        ClusterError: no node and no node type can hold a worker.
    """
    if any(_fit(node, worker) >= 1 for node in cluster.nodes):
        return None
    request = f"a node with {_describe(worker)}"
    if any(_fit(node, worker) >= 1 for node in cluster.startable):
        return request
    everywhere = cluster.nodes + cluster.startable
    fits_without = any(_fit(node, worker._replace(memory_bytes=0)) >= 1 for node in everywhere)
    types = (
        f"; node types that can be started: {_list(tuple(dict.fromkeys(cluster.startable)), worker)}"
        if cluster.startable
        else ""
    )
    raise ClusterError(
        f"no node can hold a worker: it needs {request}; nodes: {_list(cluster.nodes, worker)}{types}. "
        + _advise(fits_without, "resources.cpus_per_fold or resources.gpus_per_fold")
    )


def _describe(worker: Resources) -> str:
    if not worker.memory_bytes:
        return f"{worker.cpus:g} CPU and {worker.gpus:g} GPU"
    return f"{worker.cpus:g} CPU, {worker.gpus:g} GPU and {show_memory(worker.memory_bytes)} of memory"


def _list(nodes: tuple[Resources, ...], worker: Resources) -> str:
    """The nodes as a text, with their memory if the worker asks for some."""

    def show(node: Resources) -> str:
        memory = f"/{show_memory(node.memory_bytes)}" if worker.memory_bytes else ""
        return f"{node.cpus:g} CPU/{node.gpus:g} GPU{memory}"

    return ", ".join(map(show, nodes)) or "none"


def _advise(fits_without_memory: bool, other_fields: str) -> str:
    """What to lower."""
    if not fits_without_memory:
        return f"Lower {other_fields}"
    return (
        "A node's memory is what was free when Ray started there, less Ray's object store (`ray start "
        "--memory=BYTES` sets it). Lower resources.memory_per_fold"
    )
