"""The nodes of a cluster: asking each of them, and whether each sees the run's storage."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs.cluster.ray_private import find_draining_nodes, is_worker_process
from ray_jobs.errors import ClusterError

_CHECK_INTERVAL_S = 1.0


def list_nodes() -> list[dict[str, Any]]:
    """Nodes that take work: alive, and not about to go."""
    import ray

    draining = find_draining_nodes()
    return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]


def kill_process(node_id: str, pid: int) -> None:
    """Ends a process of Ray's on a node, which cannot be asked to end any more. Does not wait until it has ended."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id, soft=True)
    ray.remote(num_cpus=0)(_kill).options(name=f"kill {pid}", scheduling_strategy=there).remote(node_id, pid)


def _kill(node_id: str, pid: int) -> None:
    import ray

    # A node that is gone has taken the process with it, and its number may be another's by now.
    is_here = ray.get_runtime_context().get_node_id() == node_id
    if is_here and is_worker_process(pid):
        os.kill(pid, signal.SIGKILL)


def run_on_each_node(function: Any, *args: Any, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Calls a function once on every node that takes work.

    Args:
        function, args: what to call with what.
        check: called again and again meanwhile: for minutes Ray would wait for a cluster that is gone.

    Returns:
        {node: result}.

    Raises:
        ClusterError: a node went meanwhile.
        Exception: of the function.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=1)(_call)
    waiting = {}
    for node in list_nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerAddress']} ({node['NodeID'][:6]})"
        waiting[name] = task.options(scheduling_strategy=there, name=function.__name__).remote(function, *args)
    try:
        pending = list(waiting.values())
        while pending:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=_CHECK_INTERVAL_S)
            check()
        return {name: ray.get(result) for name, result in waiting.items()}
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"a node of the cluster has gone: {error!s:.300}; the same command goes on with those that are left"
        ) from None


def _call(function: Any, *args: Any) -> Any:
    """A task of this package: a worker that begins with it has this project's packages (ray_jobs/__init__.py)."""
    return function(*args)


def refuse_private_storage(folder: Path, check: Callable[[], None] = lambda: None) -> None:
    """Looks whether every node sees what the driver writes: folds run anywhere, and leave their files in the run's
    folder.

    Args:
        folder: the run's.
        check: as `run_on_each_node` has it.

    Raises:
        ClusterError: with the nodes that do not.
    """
    mark = folder / f".seen_{secrets.token_hex(6)}.tmp"
    mark.touch()
    try:
        seen = run_on_each_node(_is_there, str(mark), check=check)
    finally:
        mark.unlink()
    if blind := [node for node, is_seen in seen.items() if not is_seen]:
        raise ClusterError(
            f"{folder} is not shared: {len(blind)} of {len(seen)} nodes do not see what the driver writes there: "
            f"{', '.join(blind)}. Set run.storage to a folder that is the same storage on every node (NFS, a shared "
            "volume), or to object storage (s3://bucket/folder)"
        )


def _is_there(path: str) -> bool:
    return Path(path).exists()
