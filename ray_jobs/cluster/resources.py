"""What the nodes of a cluster have, and what an autoscaler may start."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from ray_jobs.cluster.nodes import list_nodes
from ray_jobs.cluster.placement import ClusterResources, Resources
from ray_jobs.cluster.ray_private import BOOTSTRAP_CONFIG, read_cluster_config

_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = {
    "memory.max": "memory.current",
    "memory.limit_in_bytes": "memory.usage_in_bytes",
}  # of both versions of cgroups
_MOST_NODES = 1000  # of a kind without a limit


def find_resources(*, is_own: bool = False) -> ClusterResources:
    """What the nodes have, and what an autoscaler may start; of a cluster of this job's own what its machine has left,
    too."""
    nodes = tuple(_read_resources(node["Resources"], 0.0) for node in list_nodes())
    return ClusterResources(
        cpus=sum(node.cpus for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        nodes=nodes,
        startable=_find_startable(),
        free_bytes=find_free_bytes() if is_own else None,
    )


def find_free_bytes() -> float | None:
    """Memory that this process and its children may still take: what the machine has left, and a container or a batch
    job is allowed. None: the system does not tell.

    Ray looks at the uppermost cgroup only, which is not that of a batch job.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = float(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
        places = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except (OSError, StopIteration):
        return None
    for _, controllers, place in places:
        top = _CGROUPS / "memory" if "memory" in controllers.split(",") else _CGROUPS
        below = top / place.lstrip("/")
        for folder in (below, *below.parents):
            if folder.is_relative_to(top):
                free = min(free, _read_rest(folder))
    return free


def _read_rest(cgroup: Path) -> float:
    """What is left of a cgroup's limit, the pages of files that it can give back included; infinite without one."""
    for limit, usage in _LIMITS.items():
        with suppress(OSError, ValueError):
            most, used = float((cgroup / limit).read_text()), float((cgroup / usage).read_text())
            pages = [line.split() for line in (cgroup / "memory.stat").read_text().splitlines()]
            return (
                most
                - used
                + sum(float(size) for name, size in pages if name in ("inactive_file", "total_inactive_file"))
            )
    return math.inf


def _read_resources(stated: Mapping[str, float], unstated_memory: float) -> Resources:
    """Of Ray's names; CPUs and GPUs that are not stated are none."""
    cpus, gpus = float(stated.get("CPU", 0.0)), float(stated.get("GPU", 0.0))
    return Resources(cpus, gpus, float(stated.get("memory", unstated_memory)))


def _find_startable() -> tuple[Resources, ...]:
    """Resources of each node that the cluster's autoscaler may start; empty where nothing is known.

    Known are clusters whose manager reports its node types to Ray, and those whose config lies on the head node when
    the driver runs there, as submitted jobs do: of `ray up`, and of ray_jobs/deploy/rayjob.yaml."""
    reported = read_cluster_config()
    if reported is not None:
        groups = [(_read_resources(one.resources, math.inf), one.max_count) for one in reported.node_group_configs]
        return _repeat(groups, _MOST_NODES)
    path = Path(os.path.expanduser(BOOTSTRAP_CONFIG))
    return parse_startable(path.read_text()) if path.is_file() else ()


def parse_startable(config: str) -> tuple[Resources, ...]:
    """Resources of each worker node that a `cluster.yaml` allows at once. A type without stated resources, or without
    stated memory, counts as unlimited: Ray finds them out from the cloud only when it starts a node."""
    values = yaml.safe_load(config)
    most = values.get("max_workers", 2)
    kinds = [
        (
            _read_resources(kind.get("resources") or {"CPU": math.inf, "GPU": math.inf}, math.inf),
            kind.get("max_workers", most),
        )
        for name, kind in values.get("available_node_types", {}).items()
        if name != values.get("head_node_type")
    ]
    return _repeat(kinds, most)


def _repeat(kinds: list[tuple[Resources, int]], most: int) -> tuple[Resources, ...]:
    """Each kind as often as it may be there, a negative number standing for any; where that is too much for all
    together, one of each and what is left of the largest."""
    numbers = [min(number, _MOST_NODES) if number >= 0 else _MOST_NODES for _, number in kinds]
    nodes = [node for (node, _), number in zip(kinds, numbers, strict=True) for node in [node] * number]
    if len(nodes) <= most:
        return tuple(nodes)
    first = list(dict.fromkeys(nodes))
    rest = sorted(nodes, key=lambda node: (node.gpus, node.cpus), reverse=True)
    for node in first:
        rest.remove(node)
    return tuple(first + rest[: max(0, most - len(first))])
