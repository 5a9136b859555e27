"""The files of a fold on the machines of its ranks, where they have no folder in common."""

from __future__ import annotations

from functools import partial
from typing import Any

import ray
import torch.distributed as dist

from ray_jobs.runs.outages import Storage
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NoMirror
from trainers.interface import CheckpointName


def bring_for_node(mirror: FoldMirror | NoMirror, storage: Storage, checkpoint: CheckpointName | None = None) -> None:
    """Lets one rank of each node but rank 0's, which holds the fold's files, bring them, or one checkpoint; returns
    when all are there."""
    if mirror.uri is None:
        return
    nodes: list[Any] = [None] * dist.get_world_size()
    # Train's ranks go by addresses, which nodes may share.
    dist.all_gather_object(nodes, ray.get_runtime_context().get_node_id())
    own = nodes[dist.get_rank()]
    if own != nodes[0] and nodes.index(own) == dist.get_rank():
        bring = mirror.bring if checkpoint is None else partial(mirror.bring_checkpoint, checkpoint)
        mirror.bring_beside(partial(storage.retry_while_unavailable, "bringing the fold's files", bring, by_name=False))
    dist.barrier()
