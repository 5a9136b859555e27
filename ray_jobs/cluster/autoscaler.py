"""What folds wait for on a cluster that others use, too, or that starts nodes when they are needed: what Ray says of
itself, in one line.

It asks only; what is wanted, Ray's autoscaler sees from the placement groups that wait.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)
SAY_INTERVAL_S = 30.0  # between two lines, and before the first
_LOOK_S = 2.0
_TIMEOUT_S = 5


class WaitReport:
    """Says again and again what folds wait for, as long as they do.

    Args:
        say: shows a line to the user.
        interval_s: between two lines.
    """

    def __init__(self, say: Callable[[str], None], interval_s: float = SAY_INTERVAL_S) -> None:
        self.say, self.interval_s = say, interval_s
        self.since: dict[str, float] = {}  # of each fold that waits
        self.reported_at = self.looked = 0.0

    def look(self, find_waiting: Callable[[], list[str]]) -> None:
        """To be called again and again, with what finds the folds that wait for room."""
        now = time.monotonic()
        if now - self.looked < _LOOK_S:
            return
        self.looked, waiting = now, find_waiting()
        self.since = {fold: self.since.get(fold, now) for fold in waiting}
        if waiting and now - max(self.reported_at, min(self.since.values())) >= self.interval_s:
            self.reported_at = now
            waits = ", ".join(f"{fold} ({now - since:.0f} s)" for fold, since in self.since.items())
            self.say(f"not training yet: {waits}; {describe_autoscaler()}")


def describe_autoscaler() -> str:
    """What Ray's autoscaler is about, as far as it tells."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        return describe_status(get_cluster_status(ray.get_runtime_context().gcs_address, timeout=_TIMEOUT_S))
    except Exception as error:  # Ray raises what it likes, and this is only news
        logger.warning("the autoscaler's answer cannot be read", exc_info=True)
        return f"the autoscaler does not answer ({type(error).__name__})"


def describe_status(status: Any) -> str:
    """A `ray.autoscaler.v2.schema.ClusterStatus` in words."""
    demands = status.resource_demands
    wanted: Counter[str] = Counter()
    for demand in [*demands.placement_group_demand, *demands.ray_task_actor_demand]:
        for one in demand.bundles_by_count:
            wanted[_show(one.bundle)] += one.count
    starting = Counter(launch.ray_node_type_name for launch in status.pending_launches for _ in range(launch.count))
    starting.update(node.ray_node_type_name for node in status.pending_nodes)
    failed = [f"{launch.ray_node_type_name} ({launch.details})" for launch in status.failed_launches]
    failed += [
        f"{node.ray_node_type_name} ({node.details})" for node in status.failed_nodes if node.details
    ]  # else gone
    parts = [f"{len(status.active_nodes) + len(status.idle_nodes)} node(s) run"]
    parts += [f"no room for {_count(wanted)}"] if wanted else ["nothing waits for room"]
    parts += [f"starting: {_count(starting)}"] if starting else ["no node is being started"] if wanted else []
    parts += [f"failed to start: {', '.join(failed)}"] if failed else []
    return "; ".join(parts)


def _show(bundle: dict[str, float]) -> str:
    return "{" + ", ".join(f"{amount:g} {name}" for name, amount in sorted(bundle.items())) + "}"


def _count(things: Counter[str]) -> str:
    return ", ".join(f"{number} × {thing}" for thing, number in things.items())
