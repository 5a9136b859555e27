"""What every family's model can say of itself."""

from __future__ import annotations

from torch import nn


class Model(nn.Module):
    """What a fold trains."""

    def count_parameters(self) -> dict[str, int]:
        """`total_params`, `trainable_params`, `frozen_params`."""
        raise NotImplementedError
