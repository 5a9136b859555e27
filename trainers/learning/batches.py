"""Which rows make up the batches of an epoch: a function of (seed, fold, epoch) alone, and each rank's share of a
batch."""

from __future__ import annotations

import math

import numpy as np


def training_order(seed: int, fold: int, epoch: int, num_rows: int) -> np.ndarray:
    """The order of the training rows in an epoch, (num_rows,)."""
    return np.random.default_rng([seed, fold, epoch, 0]).permutation(num_rows)


def share_of_rank(batch: np.ndarray, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a global batch that a rank computes, and the weight of each in the batch mean.

    A rank that would have none computes the batch's first row with weight 0, because all ranks must take part in
    every step.
    """
    mine = batch[rank::world_size]
    if len(mine) == 0:
        return batch[:1], np.zeros(1, np.float32)
    return mine, np.full(len(mine), 1 / len(batch), np.float32)


def cut(positions: np.ndarray, size: int) -> list[np.ndarray]:
    """Consecutive portions of at most `size`."""
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def learning_rate_factor(step: int, num_steps: int, schedule: str, warmup_fraction: float, least: float = 0.0) -> float:
    """Share of the peak learning rate at an optimiser step (from 0): linear warm-up, then constant or half a cosine
    down to the least share."""
    warmup = round(warmup_fraction * num_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))
