"""What the workers of a fold divide: `fully_shard` (FSDP2) for weights and gradients, ZeroRedundancyOptimizer for the
optimiser's state alone (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054). With a group size, groups of
workers with consecutive ranks divide it, and each group has the whole (hybrid sharding: Zhao et al. 2023,
https://arxiv.org/abs/2304.11277, section 3.2.2).

Each worker has its rows of every tensor, and saves them itself in resume points. In checkpoints those of the first
group do, under `<name>@<rank>`. Put together in the order of the ranks they are the whole, so that another number of
workers, and a prediction, can go on with them.
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
    return world_size > 1 and config.level in ("zero2", "zero3")


def find_group_size(config: ShardingConfig, world_size: int) -> int:
    """Workers that divide the weights: all, where there are no whole groups of the size that is wanted."""
    size = config.group_size or world_size
    return size if world_size % size == 0 else world_size


def divide(model: Gpt, config: ShardingConfig, world_size: int, device: str) -> None:
    """Gives each worker its part of the weights, block by block; what is tied to the embedding stays together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    size = find_group_size(config, world_size)
    kind, num_groups = torch.device(device).type, world_size // size
    if num_groups == 1:
        mesh = init_device_mesh(kind, (world_size,))
    else:
        mesh = init_device_mesh(kind, (num_groups, size), mesh_dim_names=("groups", "workers"))
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


def name_parts(tensors: Mapping[str, Tensor], rank: int, group_size: int) -> dict[str, Tensor]:
    """This worker's parts under names that no other has; none of a worker whose part the first group has, too."""
    if rank >= group_size:
        return {}
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


def fill(target: Tensor, parts: Sequence[Tensor]) -> None:
    """Writes this worker's rows of what another number of workers had; parts are in the order of their ranks."""
    from torch.distributed.tensor import DTensor

    whole = torch.cat(list(parts)) if parts[0].dim() else parts[0]
    if not isinstance(target, DTensor):
        target.copy_(whole)
        return
    mesh = target.device_mesh
    place = mesh.get_local_rank(mesh.ndim - 1)
    rows = torch.chunk(whole, mesh.size(mesh.ndim - 1))
    if place < len(rows):
        target.to_local().copy_(rows[place])


def build_divided_optimizer(groups: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    """AdamW whose state is divided among the workers."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    assert dist.is_initialized()
    return ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, **options)


def load_divided_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives each worker its part of the state of all parameters, by `<number of the parameter>/<name>`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, what = name.partition("/")
        state.setdefault(int(number), {})[what] = value.clone()
    groups, first = [], 0
    for group in optimizer.param_groups:
        last = first + len(group["params"])
        groups.append({**group, "params": list(range(first, last))})
        first = last
    optimizer.load_state_dict({"state": state, "param_groups": groups})
