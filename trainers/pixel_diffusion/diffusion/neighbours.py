"""Whether samples are copies: their nearest training pictures against their nearest pictures that did not train.

Both sides have equally many pictures: of a larger one something is always nearer. What counts is the share of samples
that are nearer to a training picture, beside the same share of unseen pictures themselves; one half is chance.

Shape suffixes: N samples, M pictures of a side, D numbers of a small picture, C colours, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

MOST_PICTURES = 10_000  # of a side
_SMALL = 32  # side of the pictures that are compared


@dataclass(frozen=True)
class Nearest:
    """The nearest picture of a side of each sample: its place there, and the root mean square of the difference, from 0
    to 2."""

    place_N: np.ndarray
    distance_N: np.ndarray


def shrink(pictures_NCHW: np.ndarray) -> torch.Tensor:
    """Pictures, uint8, as numbers from -1 to 1 of at most 32 x 32 pixels, (N, D)."""
    values = torch.from_numpy(np.ascontiguousarray(pictures_NCHW)).float() / 127.5 - 1
    if values.shape[-1] > _SMALL:
        values = functional.interpolate(values, size=(_SMALL, _SMALL), mode="area")
    return values.flatten(1)


def find_nearest(samples_ND: torch.Tensor, pictures_MD: torch.Tensor, *, is_same: bool = False) -> Nearest:
    """The nearest picture of each sample.

    Args:
        samples_ND, pictures_MD: of `shrink`.
        is_same: the samples are the pictures, and none is its own nearest.
    """
    distance_NM = torch.cdist(samples_ND.double(), pictures_MD.double())
    if is_same:
        distance_NM.fill_diagonal_(torch.inf)
    distance_N, place_N = distance_NM.min(dim=1)
    return Nearest(place_N.numpy(), (distance_N / samples_ND.shape[1] ** 0.5).numpy())


def measure_share(train_N: np.ndarray, held_out_N: np.ndarray) -> float:
    """Share of samples that are nearer to a training picture; equally near ones count half."""
    return float((train_N < held_out_N).mean() + (train_N == held_out_N).mean() / 2)
