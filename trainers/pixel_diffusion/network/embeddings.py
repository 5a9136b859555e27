"""What becomes a token: patches with the places that they have, times, and how tokens are turned by their places.

Shape suffixes: B pictures, T tokens, D channels, E heads, C colours, H height, W width, P pixels of a patch, F
frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_PERIOD = 10000.0
_TIME_FEATURES = 256


def cut_patches(pictures_BCHW: Tensor, patch: int) -> Tensor:
    """Patches from left to right and from top to bottom, each as (row in the patch, column, colour): (B, T, P)."""
    batch, colours, height, width = pictures_BCHW.shape
    cut = pictures_BCHW.reshape(batch, colours, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * colours)


def join_patches(patches_BTP: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The pictures of which `cut_patches` would give these patches."""
    batch = len(patches_BTP)
    laid = patches_BTP.reshape(batch, height // patch, width // patch, patch, patch, -1)
    return laid.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, height, width)


def list_frequencies(number: int) -> Tensor:
    """10000^(-i / number) for i from 0, (F,) float64."""
    return _PERIOD ** (-torch.arange(number, dtype=torch.float64) / number)


def build_sine_table(rows: int, columns: int, width: int) -> Tensor:
    """What is added to the tokens of a grid of patches, (T, D): the first half of the channels says the column, the
    second the row, each as sines and then cosines. It is never trained."""
    frequencies_F = list_frequencies(width // 4)
    row_T, column_T = _place_patches(rows, columns)
    parts = []
    for place_T in (column_T, row_T):
        angle_TF = place_T[:, None] * frequencies_F
        parts += [angle_TF.sin(), angle_TF.cos()]
    return torch.cat(parts, dim=1).float()


def build_rotation(rows: int, columns: int, head_width: int, num_unturned: int) -> Tensor:
    """Cosines and sines by which neighbouring channels of a head are turned, (2, T, head_width / 2): the first half of
    the channels by the patch's row, the second by its column (Su et al. 2021, https://arxiv.org/abs/2104.09864, in two
    dimensions). The first `num_unturned` tokens stay as they are."""
    frequencies_F = list_frequencies(head_width // 4)
    angle_TF = torch.cat([place_T[:, None] * frequencies_F for place_T in _place_patches(rows, columns)], dim=1)
    angle_TF = torch.cat([angle_TF.new_zeros(num_unturned, angle_TF.shape[1]), angle_TF])
    return torch.stack([angle_TF.cos(), angle_TF.sin()]).float()


def turn_pairs(values_BETD: Tensor, rotation_2TF: Tensor) -> Tensor:
    """Turns the pairs of channels (0, 1), (2, 3), … of each token."""
    cosine_TF, sine_TF = rotation_2TF
    even, odd = values_BETD[..., 0::2], values_BETD[..., 1::2]
    turned = torch.stack([even * cosine_TF - odd * sine_TF, odd * cosine_TF + even * sine_TF], dim=-1)
    return turned.flatten(-2)


def _place_patches(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch, (T,) float64 each."""
    numbers = torch.arange(rows * columns)
    return (numbers // columns).double(), (numbers % columns).double()


class PatchEmbedding(nn.Module):
    """A linear map without bias to the bottleneck, and one with bias to the tokens."""

    def __init__(self, pixels: int, bottleneck: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(pixels, bottleneck, bias=False)
        self.widen = nn.Linear(bottleneck, width)

    def forward(self, patches_BTP: Tensor) -> Tensor:
        """Tokens, (B, T, D)."""
        tokens_BTD: Tensor = self.widen(self.narrow(patches_BTP))
        return tokens_BTD


class TimeEmbedding(nn.Module):
    """Cosines and sines of a time, as it is, through two maps."""

    frequencies_F: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(_TIME_FEATURES, width), nn.Linear(width, width)
        self.register_buffer("frequencies_F", list_frequencies(_TIME_FEATURES // 2).float(), persistent=False)

    def forward(self, time_B: Tensor) -> Tensor:
        """(B, D) of times (B,) from 0 to 1."""
        angle_BF = time_B.float()[:, None] * self.frequencies_F
        features_BF = torch.cat([angle_BF.cos(), angle_BF.sin()], dim=1)
        embedded_BD: Tensor = self.second(functional.silu(self.first(features_BF)))
        return embedded_BD
