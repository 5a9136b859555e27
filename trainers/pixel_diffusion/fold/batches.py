"""What a training step learns from: pictures, labels, times and noise, drawn from seed, fold, epoch and row alone.

Shape suffixes: B pictures, N rows that train, C colours, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.pixel_diffusion.config import TrainingConfig
from trainers.pixel_diffusion.diffusion.loss import draw_times
from trainers.pixel_diffusion.diffusion.sampler import from_bytes
from trainers.pixel_diffusion.process import Process

_AUGMENTATION, _NOISE = 2, 3  # told apart from the order of the rows


@dataclass(frozen=True)
class Batch:
    """Pictures from -1 to 1, (B, C, H, W), with labels (B,), times (B,) and noise of standard deviation 1."""

    clean: Tensor
    label: Tensor
    time: Tensor
    noise: Tensor

    def take(self, rows: slice) -> Batch:
        """A part of it."""
        return Batch(self.clean[rows], self.label[rows], self.time[rows], self.noise[rows])


class EpochDraws:
    """What is drawn for each training row of an epoch.

    Args:
        training: the config's section.
        process: the distribution of times.
        fold, epoch: which.
        num_rows: that train.
        no_label: the number that means no label.
    """

    def __init__(
        self, training: TrainingConfig, process: Process, fold: int, epoch: int, num_rows: int, no_label: int
    ) -> None:
        self.seeds, self.process, self.no_label = [training.seed, fold, epoch], process, no_label
        rng = np.random.default_rng([*self.seeds, _AUGMENTATION])
        self.normal_N = rng.standard_normal(num_rows, np.float32)
        self.is_mirrored_N = rng.random(num_rows) < (0.5 if training.horizontal_flip else 0)
        self.is_hidden_N = rng.random(num_rows) < (training.label_drop if no_label > 1 else 0)
        self.seed_N = np.random.default_rng([*self.seeds, _NOISE]).integers(2**63, size=num_rows)

    def build(self, rows_B: np.ndarray, pictures_BCHW: np.ndarray, label_B: np.ndarray, device: str) -> Batch:
        """A batch on the device.

        Args:
            rows_B: numbers of its rows among those that train.
            pictures_BCHW: uint8.
            label_B: of each.
            device: on which noise is drawn, too.
        """
        mirrored = self.is_mirrored_N[rows_B, None, None, None]
        shown = np.where(mirrored, pictures_BCHW[..., ::-1], pictures_BCHW)
        label_B = np.where(self.is_hidden_N[rows_B], self.no_label, label_B)
        clean = from_bytes(torch.from_numpy(shown).to(device))
        generator, noise = torch.Generator(device), torch.empty_like(clean)
        for own, seed in zip(noise, self.seed_N[rows_B].tolist(), strict=True):  # of each row: ranks divide a batch
            own.normal_(generator=generator.manual_seed(seed))
        time = draw_times(self.process, torch.from_numpy(self.normal_N[rows_B]).to(device))
        return Batch(clean, torch.from_numpy(label_B).to(device), time, noise)
