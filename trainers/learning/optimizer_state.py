"""Optimisers that do not load torch's compiler, and what they remember, as tensors by name, for a resume point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)

# Methods that torch.optim wraps so that torch.compile leaves them alone.
_WRAPPED = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """The same optimiser, for a training that compiles nothing.

    The wrappers of `torch.optim` import `torch._dynamo`, 1.6 s of CPU time in each process, to keep a compiler out that
    is not there. This has the methods without their wrappers. Where a release of torch wraps none of them the class
    stays as it is."""
    plain = {name: method.__wrapped__ for name in _WRAPPED if hasattr(method := getattr(kind, name), "__wrapped__")}
    if "step" in plain:  # its wrapper turns gradients off, too
        plain["step"] = torch.no_grad()(plain["step"])
    return type(kind.__name__, (kind,), plain)


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


def split_by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`kind/rest` to {kind: {rest: tensor}}."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        parts.setdefault(kind, {})[rest] = value
    return parts
