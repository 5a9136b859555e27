"""What the nodes of a cluster have, and what an autoscaler may start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import yaml

from ray_jobs.cluster.nodes import list_nodes
from ray_jobs.cluster.placement import ClusterResources, Resources
from ray_jobs.cluster.ray_private import BOOTSTRAP_CONFIG, read_cluster_config

_MOST_NODES = 1000  # of a kind without a limit


def find_resources() -> ClusterResources:
    """What the nodes have, and what an autoscaler may start."""
    nodes = tuple(_read_resources(node["Resources"], 0.0) for node in list_nodes())
    return ClusterResources(
        cpus=sum(node.cpus for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        nodes=nodes,
        startable=_find_startable(),
    )


def _read_resources(stated: Mapping[str, float], unstated_memory: float) -> Resources:
    """Of Ray's names; CPUs and GPUs that are not stated are none."""
    cpus, gpus = float(stated.get("CPU", 0.0)), float(stated.get("GPU", 0.0))
    return Resources(cpus, gpus, float(stated.get("memory", unstated_memory)))


def _find_startable() -> tuple[Resources, ...]:
    """Resources of each node that the cluster's autoscaler may start; empty where nothing is known.

    Known are clusters whose manager reports its node types to Ray, and those whose config lies on the head node when the driver runs
    there, as submitted jobs do: of `ray up`, and of ray_jobs/deploy/rayjob.yaml.
    """
    reported = read_cluster_config()
    if reported is not None:
        groups = [(_read_resources(one.resources, math.inf), one.max_count) for one in reported.node_group_configs]
        return _repeat(groups, _MOST_NODES)
    path = Path(BOOTSTRAP_CONFIG).expanduser()
    return parse_startable(path.read_text()) if path.is_file() else ()


def parse_startable(config: str) -> tuple[Resources, ...]:
    """Resources of each worker node that a `cluster.yaml` allows at once. A type without stated resources, or without stated memory,
    counts as unlimited: Ray finds them out from the cloud only when it starts a node."""
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
    """Each kind as often as it may be there, a negative number standing for any; where that is too much for all together, one of each and
    what is left of the largest."""
    numbers = [min(number, _MOST_NODES) if number >= 0 else _MOST_NODES for _, number in kinds]
    nodes = [node for (node, _), number in zip(kinds, numbers, strict=True) for node in [node] * number]
    if len(nodes) <= most:
        return tuple(nodes)
    first = list(dict.fromkeys(nodes))
    rest = sorted(nodes, key=lambda node: (node.gpus, node.cpus), reverse=True)
    for node in first:
        rest.remove(node)
    return tuple(first + rest[: max(0, most - len(first))])
