"""What an optimiser remembers, as tensors by name, for a resume point."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state by `<number of the parameter>/<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}/{name}": value for number, values in state.items() for name, value in values.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Takes up what `pack_optimizer` gave, in an optimiser of the same parameters."""
    by_parameter: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, what = name.partition("/")
        by_parameter.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": by_parameter})


def by_kind(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`kind/rest` to {kind: {rest: tensor}}."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        parts.setdefault(kind, {})[rest] = value
    return parts
