"""Any object as a tensor of bytes, for checkpoints and resume points. What is packed may hold code: whoever unpacks it
runs it."""

from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle
import torch
from torch import Tensor

from trainers.own_trainer.users_code.source import packed_by_value


def to_tensor(value: Any, what: str) -> Tensor:
    """An object as bytes, (n,) uint8; tensors in it, of whatever device, among them.

    Raises:
        ValueError: something in it cannot be pickled.
    """
    content = io.BytesIO()
    try:
        with packed_by_value(value):
            torch.save(value, content, pickle_module=cloudpickle)
    except (TypeError, AttributeError, pickle.PicklingError, RuntimeError) as error:
        raise ValueError(
            f"{what} cannot be saved: {type(error).__name__}: {error}. Leave out what cannot be pickled, such as open "
            "files, locks and generators"
        ) from error
    return torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)


def from_tensor(packed_N: Tensor, device: str) -> Any:
    """The object again, its tensors on a device."""
    content = io.BytesIO(packed_N.numpy().tobytes())
    return torch.load(content, map_location=device, pickle_module=pickle, weights_only=False)
