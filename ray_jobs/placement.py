"""How many folds run at once, with which resources, and how many workers an elastic fold has. Pure: numbers in, a placement out."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ray_jobs.errors import ClusterError

_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([MGT])(i?)B?")
_POWERS = {"M": 2, "G": 3, "T": 4}
_LEAST_MEMORY_BYTES = 2**20  # whoever gives less has meant another unit: 4 for 4GiB
_MANY = 1_000_000  # workers on a node of unknown size
_RESIZE_MARGIN = 1.5  # a fold never gains as much by more workers as their number says


@dataclass(frozen=True)
class ResourcesConfig:
    """What each fold gets; `auto` leaves the choice to the project."""

    gpus_per_fold: float | Literal["auto"] = "auto"
    """GPUs of one fold; below 1 several folds share one; 0: train on CPUs even if there are GPUs."""
    cpus_per_fold: float | Literal["auto"] = "auto"
    """CPU cores that one fold reserves, over all its workers."""
    memory_per_fold: float | str | None = None
    """Main memory that one fold reserves, over all its workers: bytes, as Ray counts them (4e9), or with a unit (4GiB, 4GB).
    A fold waits until a node has so much unreserved. Nothing is estimated; a fold that takes more is not stopped. None: not
    counted."""
    workers_per_fold: int | tuple[int, int] = 1
    """Processes that train one fold together (DistributedDataParallel). [least,most]: as many as there is room for, changing while
    the fold trains; gpus_per_fold, cpus_per_fold and memory_per_fold are then those of a fold with most workers. Such a run is
    not bit-repeatable."""
    resize_interval_s: float = 60.0
    """A fold whose number of workers may change keeps them for at least so long, and as long as a change would cost more time than it
    saves. 0: it takes whatever room there is at once, whatever that costs."""
    max_folds_at_once: int | None = None
    """Upper limit of folds in training at the same time."""

    def __post_init__(self) -> None:
        self._check_workers()
        gpus, cpus = self.gpus_per_fold, self.cpus_per_fold
        if cpus != "auto" and not 0 < cpus < math.inf:
            raise ValueError(f"resources.cpus_per_fold={cpus}: expected a number above 0, or auto")
        if gpus != "auto" and not 0 <= gpus < math.inf:
            raise ValueError(f"resources.gpus_per_fold={gpus}: expected a number from 0, or auto")
        if gpus != "auto" and gpus > 1 and (gpus / self.most_workers) % 1:
            raise ValueError(
                f"resources.gpus_per_fold={gpus} with resources.workers_per_fold={self._show_workers()}: above one GPU a "
                "worker can only have whole ones"
            )
        if gpus != "auto" and self.most_workers > 1 and 0 < gpus < self.most_workers:
            most = f" (gpus_per_fold is that of {self.most_workers} workers)" if self.is_elastic else ""
            raise ValueError(
                f"resources.gpus_per_fold={gpus} with resources.workers_per_fold={self._show_workers()}: "
                f"NCCL refuses two workers of one fold on one GPU; give one GPU a worker{most}, or one worker a fold"
            )
        if self.max_folds_at_once is not None and self.max_folds_at_once < 1:
            raise ValueError(f"resources.max_folds_at_once={self.max_folds_at_once}: expected at least 1")
        if self.memory_per_fold is not None:
            parse_memory(self.memory_per_fold)
        if not 0 <= self.resize_interval_s < 1e6:
            raise ValueError(f"resources.resize_interval_s={self.resize_interval_s}: expected seconds, 0 or more")

    @property
    def is_elastic(self) -> bool:
        """Whether a fold's number of workers may change."""
        return isinstance(self.workers_per_fold, tuple)

    @property
    def least_workers(self) -> int:
        """With which a fold can train."""
        return self.workers_per_fold[0] if self.is_elastic else self.workers_per_fold

    @property
    def most_workers(self) -> int:
        """That a fold may have."""
        return self.workers_per_fold[1] if self.is_elastic else self.workers_per_fold

    def _check_workers(self) -> None:
        numbers = self.workers_per_fold if self.is_elastic else (self.workers_per_fold,)
        if any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"resources.workers_per_fold={self._show_workers()}: expected at least 1, or [least,most]")
        if self.is_elastic and (len(numbers) != 2 or numbers[0] >= numbers[1]):
            raise ValueError(
                f"resources.workers_per_fold={self._show_workers()}: expected [least,most], the second number larger than the first; "
                "a number that never changes stands alone, without brackets"
            )

    def _show_workers(self) -> str:
        return str(list(self.workers_per_fold) if self.is_elastic else self.workers_per_fold).replace(" ", "")


def parse_memory(value: float | str) -> float:
    """Bytes of a number of bytes, or of a text such as 4GiB (1024³ each) or 4GB (1000³ each).

    Raises:
        ValueError: it is neither, or too little for anything.
    """
    match = _MEMORY.fullmatch(str(value))
    try:
        num_bytes = float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]] if match else float(value)
    except (TypeError, ValueError, OverflowError):
        num_bytes = math.nan
    if not _LEAST_MEMORY_BYTES <= num_bytes < math.inf:
        raise ValueError(
            f"resources.memory_per_fold={value}: expected bytes (4e9) or a number with its unit (4GiB, 500MiB, 4GB), at "
            "least 1MiB, or none"
        )
    return num_bytes


def show_memory(num_bytes: float) -> str:
    """Bytes as a text."""
    return f"{num_bytes / 2**30:.4g} GiB"


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
        startable: of each node that the autoscaler may have started at once, those that are there included, infinite where that is known
            only of a started node; empty without autoscaling.
    """

    cpus: float
    gpus: float
    nodes: tuple[Resources, ...]
    startable: tuple[Resources, ...] = ()


@dataclass(frozen=True)
class Placement:
    """The outcome: resources of one worker, workers of one fold (of an elastic one at least), folds at once, workers that the nodes
    hold at once, what has to be started before any fold can train, whether more nodes may be started."""

    num_workers: int
    most_workers: int
    cpus_per_worker: float
    gpus_per_worker: float
    memory_per_worker_bytes: int
    threads_per_worker: int
    folds_at_once: int
    slots: int
    waits_for: str | None = None
    may_grow: bool = False

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

    `num_folds` counts the whole plan, not what is left of it: a fold that is trained later, alone, gets the same threads
    and therefore the same bits. `num_todo` are to be trained, of all members (by default that plan's): with room of their own as many
    at once as there is room for, but where the cores were divided among the folds of a plan no more than these.

    With GPUs: one GPU a worker; with fewer GPUs than folds (and one worker a fold) an equal fraction, so that all
    folds fit at once. Without: a fraction of the cores a fold, so that all folds run together. Memory decides how many
    folds run at once, never their threads. A worker of an elastic fold is the same whatever their number.

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
            f"one fold asks for {workers} workers with {_describe(worker)} each; the cluster's nodes hold {slots} of them: "
            f"{_list(cluster.nodes, worker)}. "
            + _advise(fits_without, "resources.workers_per_fold, resources.cpus_per_fold or resources.gpus_per_fold")
        )
    at_once = min(at_once, config.max_folds_at_once or at_once)
    return Placement(workers, config.most_workers, *worker, threads, at_once, slots, waits_for, bool(cluster.startable))


def divides_cores(config: ResourcesConfig, gpus_per_worker: float) -> bool:
    """Whether the folds have the cores of all nodes divided among them; more folds at once would have to share them."""
    return config.cpus_per_fold == "auto" and not gpus_per_worker


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
    """Seconds that a fold is done earlier with another number of workers, at best; 0 where that is not clearly more than what
    it costs to begin another attempt.

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
        # Of elastic folds as many workers as have a core each, and at least the fewest with which all folds run together.
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
                "this cluster can start nodes with GPUs but has none now; say what a fold shall use: "
                "resources.gpus_per_fold=1 waits for GPUs, resources.gpus_per_fold=0 trains on CPUs"
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
        "A node's memory is what was free when Ray started there, less Ray's object store (`ray start --memory=BYTES` sets "
        "it). Lower resources.memory_per_fold"
    )
