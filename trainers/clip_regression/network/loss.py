"""The losses offered, as functions of the predicted and the true standardised log target.

    z = (log1p(y) - mu) / sigma                       the scale that the model predicts
    mse           mean (ẑ - z)²
    msle          mean (log1p ŷ - log1p y)²           = sigma² · mse where no prediction is clipped at 0
    rmsle         sqrt(msle of the whole batch)
    weighted_mse  mean w·(ẑ - z)²,  w = 1 + lambda · sigmoid(2·(log1p y - center)),  lambda rising linearly from 0

The clip of predictions at 0 is left out of msle and rmsle: its gradient would vanish just where a prediction is far
too low.

Shape suffix: B rows of this rank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainers.clip_regression.config import LossConfig


def batch_loss(
    loss: LossConfig,
    z_hat_B: Tensor,
    z_B: Tensor,
    *,
    mu: float,
    sigma: float,
    progress: float,
    share_B: Tensor,
    sum_over_ranks: Callable[[Tensor], Tensor],
) -> Tensor:
    """This rank's part of the loss of the whole batch; the parts of all ranks add up to it, in value and gradient.

    Args:
        loss: which loss.
        z_hat_B: predictions.
        z_B: targets.
        mu: mean of log1p(target) over the fold's training rows.
        sigma: its standard deviation.
        progress: share of all optimiser steps done, 0 to 1 (for the ramp of lambda).
        share_B: weight of each row in the batch mean, 1 / rows of all ranks (0 for a filler row).
        sum_over_ranks: adds a detached tensor over the ranks (rmsle needs the whole batch).

    Returns:
        A scalar.
    """
    squared_B = (z_hat_B - z_B).square()
    if loss.kind == "weighted_mse":
        squared_B = squared_B * row_weights(loss, z_B * sigma + mu, progress)
    mean = (share_B * squared_B).sum()
    if loss.kind in ("msle", "rmsle"):
        mean = mean * sigma**2
    if loss.kind == "rmsle":
        whole = sum_over_ranks(mean.detach().clone()).clamp_min(1e-12)
        # d sqrt(m) = dm / (2 sqrt m): the first term carries the value, the second the gradient.
        root = whole.sqrt()
        return mean.detach() / root + (mean - mean.detach()) / (2 * root)
    return mean


def row_weights(loss: LossConfig, log_y_B: Tensor, progress: float) -> Tensor:
    """Weights of weighted_mse, (B,), from 1 to 1 + lambda."""
    ramp = 1.0 if loss.weight_ramp_fraction <= 0 else min(1.0, progress / loss.weight_ramp_fraction)
    return 1 + loss.weight_lambda * ramp * torch.sigmoid(2 * (log_y_B - loss.weight_center))
