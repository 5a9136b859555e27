"""The moving average of the weights that a training validates and saves in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_STATISTICS = ("running_mean", "running_var")


class AverageOfWeights:
    """Exponential moving average of the parameters that learn, and of the statistics of batch normalisation, which
    belong to them.

    The decay warms up, min(decay, (1 + n) / (10 + n)) after n steps, as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters: list[Tensor] = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.parameters += [buffer for name, buffer in module.named_buffers() if name.endswith(_STATISTICS)]
        self.decay, self.num_updates = decay, 0
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the parameters, after an optimiser step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges average and parameters; a second call puts them back."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within it the parameters are the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def pack(self) -> dict[str, Tensor]:
        """The average by `<number of the parameter>`."""
        return {str(number): average for number, average in enumerate(self.average)}

    def unpack(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Takes up what `pack` gave."""
        for number, average in enumerate(self.average):
            average.copy_(tensors[str(number)])
        self.num_updates = num_updates
