"""What the workers of a fold divide: `fully_shard` (FSDP2) for weights and gradients, ZeroRedundancyOptimizer for the
optimiser's state alone (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054).

Each worker has its rows of every tensor and saves them itself under `<name>@<rank>`; put together in the order of the
ranks they are the whole, so that another number of workers, and a prediction, can go on with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainers.gpt_pretraining.config import ShardingConfig
from trainers.gpt_pretraining.network.model import Gpt

_MARK = "@"


def is_divided(config: ShardingConfig, world_size: int) -> bool:
    """Whether workers have parts of the weights or of the gradients."""
    return world_size > 1 and config.level in ("zero2", "zero3", "hybrid")


def divide(model: Gpt, config: ShardingConfig, world_size: int, device: str) -> None:
    """Gives each worker its part of the weights, block by block; what is tied to the embedding stays together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    kind = torch.device(device).type
    if config.level == "hybrid":
        group = min(config.group, world_size)
        if world_size % group:
            raise ValueError(f"sharding.group={group}: expected a divisor of the fold's {world_size} workers")
        mesh = init_device_mesh(kind, (world_size // group, group), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh(kind, (world_size,))
    after = config.level != "zero2"
    for block in model.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=after)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


@contextmanager
def without_exchange(model: nn.Module) -> Any:
    """Within it the gradients stay with each worker."""
    model.set_requires_gradient_sync(False)  # type: ignore[operator]  # of FSDPModule
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)  # type: ignore[operator]


def to_local(value: Tensor) -> Tensor:
    """This worker's rows of a tensor."""
    from torch.distributed.tensor import DTensor

    return value.to_local() if isinstance(value, DTensor) else value


def name_parts(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """This worker's parts under names that no other has."""
    return {f"{name}{_MARK}{rank}": to_local(value).detach() for name, value in tensors.items()}


def join_parts(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors of the parts of all workers; what was never divided stays as it is."""
    found: dict[str, dict[int, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, value in parts.items():
        bare, mark, rank = name.rpartition(_MARK)
        if mark:
            found.setdefault(bare, {})[int(rank)] = value
        else:
            whole[name] = value
    for name, by_rank in found.items():
        whole[name] = torch.cat([by_rank[rank] for rank in sorted(by_rank)])
    return whole


def fill(target: Tensor, parts: Sequence[Tensor], rank: int) -> None:
    """Writes this worker's rows: its own part, or its rows of what another number of workers had."""
    from torch.distributed.tensor import DTensor

    if not isinstance(target, DTensor):
        target.copy_(torch.cat(list(parts)) if parts[0].dim() else parts[0])
        return
    local, whole = target.to_local(), torch.cat(list(parts))
    mesh = target.device_mesh
    size, place = mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1)
    rows = torch.chunk(whole, size)
    if place < len(rows):
        local.copy_(rows[place])


def build_divided_optimizer(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """AdamW whose state is divided among the workers."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    assert dist.is_initialized()
    return ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, **options)
