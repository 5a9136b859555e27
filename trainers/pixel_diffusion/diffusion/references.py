"""The best predictions of two who know all pictures: one knows every picture that there is, the other only those that
trained, which is perfect memory. A model that is better than the latter on unseen pictures has learned more than these.

Shape suffixes: B noisy pictures, N pictures that are known, D numbers of a picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.pixel_diffusion.process import Process

MOST_NUMBERS = 20_000_000  # of the known pictures together; with more nothing is computed


def predict_mean(process: Process, noisy_BD: Tensor, time_B: Tensor, known_ND: Tensor) -> Tensor:
    """The mean of the known pictures, equally likely beforehand, given a noisy one: (B, D) float64.

    Its v-loss is the least that there is for a picture that is one of them.

    Args:
        process: that made the noise.
        noisy_BD, time_B: noisy pictures and their times.
        known_ND: pictures from -1 to 1.
    """
    noisy, time, known = noisy_BD.double(), time_B.double()[:, None], known_ND.double()
    variance = ((1 - time) * process.noise_scale) ** 2
    log_weight = (time * (noisy @ known.T) - time**2 * known.square().sum(1) / 2) / variance
    return torch.softmax(log_weight, dim=1) @ known
