"""What models make of rows at their fixed times and noise: v-losses, and errors from which the loss of a mean of models
follows.

The error of a mean of models is not known from their losses. So of each row and draw the errors of velocities are kept
at up to MOST_PLACES places of the picture, which its id chooses. How far models differ is estimated from these, and
exactly where a picture has no more numbers (18 x 18 pixels). At 4 draws a row takes 8 KiB, whatever the pictures' size;
whole predictions would take 1.5 MiB a row at 256 x 256 pixels.

Shape suffixes: B rows, S draws of a row, n = B S noisy pictures, P places of a picture, D numbers of a picture, C
colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.pixel_diffusion.diffusion.fixed_noise import choose_places, draw_row_noise
from trainers.pixel_diffusion.diffusion.loss import add_noise, find_velocity_errors
from trainers.pixel_diffusion.diffusion.references import predict_mean
from trainers.pixel_diffusion.diffusion.sampler import Predict, average_models, from_bytes
from trainers.pixel_diffusion.process import Process
from trainers.predictions import DenoisingLosses

MOST_PLACES = 1024


@dataclass(frozen=True)
class Denoised:
    """What models make of rows.

    Attributes:
        time_BS: of each row and draw.
        loss_BS: v-losses.
        square_B: mean square of each row's picture, which is what predicting grey comes to, but for the time.
        error_BSP: errors of velocities at some places, float16.
        references: v-losses of others, (B, S), by their names.
    """

    time_BS: np.ndarray
    loss_BS: np.ndarray
    square_B: np.ndarray
    error_BSP: np.ndarray
    references: Mapping[str, np.ndarray]

    def describe(self, ids: np.ndarray, process: Process) -> DenoisingLosses:
        """As a prediction file has it."""
        return DenoisingLosses(
            ids, self.time_BS, self.loss_BS, self.square_B, self.error_BSP, process.describe(), self.references
        )


def denoise_rows(
    process: Process,
    models: Sequence[Predict],
    pictures_BCHW: np.ndarray,
    label_B: np.ndarray,
    ids: Sequence[str],
    draws_BS: np.ndarray,
    time_BS: np.ndarray,
    device: str,
    known: Mapping[str, Tensor] | None = None,
) -> Denoised:
    """What the mean of models makes of rows.

    Args:
        process: of the models.
        models: give clean pictures; one, or those of an ensemble.
        pictures_BCHW: uint8.
        label_B: of each row.
        ids: of each, by which noise and places are drawn.
        draws_BS: which draws of each row, from 0.
        time_BS: their times.
        device: of the models.
        known: pictures that others know, by what they are called.
    """
    num_rows, num_draws = draws_BS.shape
    shape = pictures_BCHW.shape[1:]
    noise = [draw_row_noise(row_id, draw, shape) for row_id, own in zip(ids, draws_BS, strict=True) for draw in own]
    clean = from_bytes(torch.from_numpy(pictures_BCHW).to(device))
    clean_n = clean.repeat_interleave(num_draws, dim=0)
    time_n = torch.from_numpy(time_BS.ravel()).float().to(device)
    label_n = torch.from_numpy(label_B).to(device).repeat_interleave(num_draws)
    noisy_n = add_noise(process, clean_n, torch.from_numpy(np.stack(noise)).to(device), time_n)
    predicted = average_models(models)(noisy_n, time_n, label_n)
    error_nD = find_velocity_errors(process, predicted, clean_n, time_n).flatten(1)
    places = np.stack([choose_places(row_id, error_nD.shape[1], MOST_PLACES) for row_id in ids])
    places_n = torch.from_numpy(places).to(device).repeat_interleave(num_draws, dim=0)
    references = {}
    for name, known_ND in (known or {}).items():
        said = predict_mean(process, noisy_n.flatten(1), time_n, known_ND).reshape(clean_n.shape)
        loss_n = find_velocity_errors(process, said, clean_n, time_n).double().square().flatten(1).mean(1)
        references[name] = loss_n.cpu().numpy().reshape(num_rows, num_draws)
    return Denoised(
        time_BS,
        error_nD.double().square().mean(1).cpu().numpy().reshape(num_rows, num_draws),
        clean.double().square().flatten(1).mean(1).cpu().numpy(),
        error_nD.gather(1, places_n).half().cpu().numpy().reshape(num_rows, num_draws, -1),
        references,
    )
