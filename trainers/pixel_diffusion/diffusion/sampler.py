"""From noise to pictures by Heun's method, with guidance. A model is a function here: an ensemble is the mean of what
its models predict.

Shape suffixes: B pictures, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trainers.pixel_diffusion.diffusion.loss import find_divisor
from trainers.pixel_diffusion.process import Process

# Clean pictures from noisy ones, times and labels.
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guidance:
    """How far a label is exaggerated (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598), and at which times
    (Kynkäänniemi et al. 2024, https://arxiv.org/abs/2404.07724).

    Attributes:
        scale: 1: not at all.
        low, high: only at times between these, both excluded.
    """

    scale: float = 1.0
    low: float = 0.1
    high: float = 1.0

    def at(self, time: float) -> float:
        """The scale at a time, compared in float32 as the times are."""
        now, low, high = (np.float32(value) for value in (time, self.low, self.high))
        return self.scale if low < now < high else 1.0


def average_models(models: Sequence[Predict]) -> Predict:
    """Predicts the mean of what the models predict, the best that is known from them together of a squared error."""

    def predict(noisy_BCHW: Tensor, time_B: Tensor, label_B: Tensor) -> Tensor:
        first, *others = (model(noisy_BCHW, time_B, label_B) for model in models)
        for other in others:
            first = first + other
        return first / len(models)

    return models[0] if len(models) == 1 else predict


def find_velocity(
    process: Process,
    predict: Predict,
    noisy_BCHW: Tensor,
    time: float,
    label_B: Tensor,
    no_label: int,
    guidance: Guidance,
) -> Tensor:
    """The velocity at a time, guided by the labels: v_none + scale · (v_label - v_none)."""
    time_B = torch.full((len(noisy_BCHW),), time, device=noisy_BCHW.device)
    divisor = find_divisor(process, time_B)[:, None, None, None]

    def ask(label_B: Tensor) -> Tensor:
        return (predict(noisy_BCHW, time_B, label_B).float() - noisy_BCHW) / divisor

    labelled, scale = ask(label_B), guidance.at(time)
    if scale == 1:
        return labelled
    free = ask(torch.full_like(label_B, no_label))
    return free + scale * (labelled - free)


def draw_samples(
    process: Process,
    predict: Predict,
    noise_BCHW: Tensor,
    label_B: Tensor,
    no_label: int,
    *,
    steps: int = 50,
    guidance: Guidance | None = None,
) -> Tensor:
    """Pictures from noise, (B, C, H, W) uint8.

    Heun's method, and Euler's in the last step: 2 · steps - 1 evaluations. With more than 1 / clamp steps the last one
    does not arrive at the predicted picture, by the clamp.

    Args:
        process: that the model was trained by.
        predict: the model.
        noise_BCHW: of standard deviation 1.
        label_B: int64; `no_label`: none.
        no_label: the number that means no label.
        steps: from noise to picture.
        guidance: None: none.
    """
    guidance, times = guidance or Guidance(), np.linspace(0, 1, steps + 1, dtype=np.float32).tolist()
    noisy = process.noise_scale * noise_BCHW.float()
    for number, (time, later) in enumerate(pairwise(times), start=1):
        width = later - time
        velocity = find_velocity(process, predict, noisy, time, label_B, no_label, guidance)
        if number < steps:
            ahead = noisy + width * velocity
            velocity = (velocity + find_velocity(process, predict, ahead, later, label_B, no_label, guidance)) / 2
        noisy = noisy + width * velocity
    return to_bytes(noisy)


def to_bytes(pictures_BCHW: Tensor) -> Tensor:
    """Pictures from -1 to 1 as bytes."""
    return ((pictures_BCHW + 1) / 2 * 255).clamp(0, 255).round().to(torch.uint8)


def from_bytes(pictures_BCHW: Tensor) -> Tensor:
    """Bytes as pictures from -1 to 1."""
    return pictures_BCHW.float() / 255 * 2 - 1
