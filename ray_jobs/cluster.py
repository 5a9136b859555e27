"""What a Ray cluster is made of: package versions and resources of its nodes."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.errors import ClusterError
from ray_jobs.placement import ClusterResources, Resources

# Packages whose version decides what a fold computes or how files are read.
PACKAGES = (
    "ray",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "pillow",
)

_MOST_NODES = 1000  # of a kind without a limit


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, as installed here."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def refuse_other_versions(driver: dict[str, str], nodes: dict[str, dict[str, str]]) -> None:
    """Compares the driver's package versions with each node's.

    Raises:
        ClusterError: with every difference.
    """
    differing = [
        f"{package} {versions[package]} on {node}, {driver[package]} here"
        for node, versions in nodes.items()
        for package in driver
        if versions[package] != driver[package]
    ]
    if differing:
        raise ClusterError(
            "the cluster's packages are not the driver's: "
            + "; ".join(differing)
            + ". Install the same Python, to the third number, and the same requirements.txt on all nodes"
        )


def _list_nodes() -> list[dict[str, Any]]:
    """Nodes that take work: alive, and not about to go."""
    import ray

    draining = find_draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]


def find_draining_nodes() -> set[str]:
    """Ids of nodes that are being taken away: drained by hand or by an autoscaler, or whose spot machine has had its notice."""
    import ray

    return set(ray._private.state.state.get_draining_nodes())


def run_on_each_node(function: Any, *args: Any) -> dict[str, Any]:
    """Calls a function once on every node that takes work.

    Returns:
        {node: result}.

    Raises:
        ClusterError: a node went meanwhile.
        Exception: of the function.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=1)(function)
    waiting = {}
    for node in _list_nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        waiting[name] = task.options(scheduling_strategy=there).remote(*args)
    try:
        return {name: ray.get(result) for name, result in waiting.items()}
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"a node went while it was asked something; the same command asks those that are left. {error!s:.300}"
        ) from None


def refuse_private_storage(folder: Path) -> None:
    """Looks whether every node sees what the driver writes: folds run anywhere, and leave their files in the run's folder.

    Raises:
        ClusterError: with the nodes that do not.
    """
    mark = folder / f".seen_{secrets.token_hex(6)}.tmp"
    mark.touch()
    try:
        seen = run_on_each_node(_is_there, str(mark))
    finally:
        mark.unlink()
    if blind := [node for node, is_seen in seen.items() if not is_seen]:
        raise ClusterError(
            f"{folder} is not shared: {len(blind)} of {len(seen)} nodes do not see what the driver writes there: "
            f"{', '.join(blind)}. Set run.storage to a folder that is the same storage on every node (NFS, a shared volume), or to object storage (s3://bucket/folder)"
        )


def _is_there(path: str) -> bool:
    return Path(path).exists()


def find_resources() -> ClusterResources:
    """What the nodes have, and what an autoscaler may start."""
    nodes = tuple(_read_resources(node["Resources"], 0.0) for node in _list_nodes())
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
    import ray

    reported = ray._private.state.state.get_cluster_config()
    if reported is not None:
        groups = [(_read_resources(one.resources, math.inf), one.max_count) for one in reported.node_group_configs]
        return _repeat(groups, _MOST_NODES)
    path = Path("~/ray_bootstrap_config.yaml").expanduser()  # where `ray up` leaves the config on the head node
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
