"""The loss: squared errors of velocities, in float32, since late times count up to 1 / clamp² = 400 times.

Shape suffixes: B pictures, C colours, H height, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.pixel_diffusion.process import Process


def draw_times(process: Process, normal_B: Tensor) -> Tensor:
    """Times from standard normal numbers, (B,)."""
    return torch.sigmoid(process.time_mean + process.time_spread * normal_B)


def add_noise(process: Process, clean_BCHW: Tensor, noise_BCHW: Tensor, time_B: Tensor) -> Tensor:
    """z = t x + (1 - t) ε.

    Args:
        process: with the noise's scale.
        clean_BCHW: pictures from -1 to 1.
        noise_BCHW: of standard deviation 1.
        time_B: from 0 to 1.
    """
    time = time_B[:, None, None, None]
    return time * clean_BCHW + (1 - time) * process.noise_scale * noise_BCHW


def find_divisor(process: Process, time_B: Tensor) -> Tensor:
    """What differences are divided by to become velocities, max(1 - t, clamp)."""
    return (1 - time_B.float()).clamp_min(process.clamp)


def find_velocity_errors(process: Process, predicted_BCHW: Tensor, clean_BCHW: Tensor, time_B: Tensor) -> Tensor:
    """v̂ - v = (x̂ - x) / max(1 - t, clamp), float32."""
    divisor = find_divisor(process, time_B)[:, None, None, None]
    return (predicted_BCHW.float() - clean_BCHW.float()) / divisor


def find_losses(process: Process, predicted_BCHW: Tensor, clean_BCHW: Tensor, time_B: Tensor) -> Tensor:
    """The v-loss of each picture, (B,) float32: the mean squared error of its velocities."""
    return find_velocity_errors(process, predicted_BCHW, clean_BCHW, time_B).square().flatten(1).mean(1)
