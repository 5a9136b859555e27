"""What stays the same while a fold trains, and how it is validated: v-losses of each row at its own fixed times and
noise, label given, nothing mirrored.

Shape suffixes: B rows, S draws of a row, n noisy pictures, P places of a picture, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainers.interface import (
    CheckpointName,
    FoldContext,
    RowsName,
    Split,
)
from trainers.learning.arithmetic import autocast, sum_over_ranks
from trainers.learning.batches import cut
from trainers.pixel_diffusion.config import Config
from trainers.pixel_diffusion.diffusion.denoising import Denoised, denoise_rows
from trainers.pixel_diffusion.diffusion.fixed_noise import DRAWS, choose_draws, choose_rows, place_times
from trainers.pixel_diffusion.network.model import Denoiser
from trainers.pixel_diffusion.rows.pictures import Pictures
from trainers.pixel_diffusion.rows.rows_file import NO_LABEL
from trainers.predictions import DenoisingLosses

FAMILY = "pixel_diffusion"
_MOST_VALIDATED = 2048  # rows of a validation between epochs


@dataclass
class DiffusionFold:
    """What stays the same while a fold trains.

    Attributes:
        table: the pictures that folds divide.
        train: which of them this fold trains on.
        parts: of the rows that do not train a table and places in it.
        classes: names; empty: there are none.
        known: by what it stands for the pictures that somebody knows, (N, D) from -1 to 1, see `references.py`.
    """

    CHOSEN_BY: ClassVar = "val/v_loss"

    config: Config
    split: Split
    context: FoldContext
    model: Denoiser
    table: Pictures
    train: np.ndarray
    parts: dict[RowsName, tuple[Pictures, np.ndarray]]
    classes: tuple[str, ...]
    precision: torch.dtype
    known: Mapping[str, Tensor] = field(default_factory=dict)

    def label_rows(self, table: Pictures, places: np.ndarray) -> np.ndarray:
        """The labels of rows, int64; without classes 0, and the number that means none where a row has none."""
        label_B = table.rows.label_N[places]
        missing = self.model.num_classes if self.classes else 0
        return np.where(label_B == NO_LABEL, missing, label_B)

    def predict_clean(self, noisy: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """What the model, as it is now, takes for the clean pictures."""
        with autocast(self.context.device, self.precision):
            predicted: Tensor = self.model(noisy, time, label)
        return predicted.float()

    def trained_state(self) -> dict[str, Tensor]:
        """All of the model."""
        return self.model.state_dict()

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `trained_state` gave."""
        self.model.load_state_dict(state)

    def score(self, metrics: Mapping[str, float]) -> float:
        """The v-loss of unseen rows, never that of training rows."""
        return metrics["val/v_loss"]

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """The v-loss of the validation rows, each at one of its times; of very many those that their ids choose."""
        self.model.eval()
        table, places = self.parts["validation"]
        places = choose_rows(table.rows.ids, places, _MOST_VALIDATED)
        sums = torch.zeros(2, dtype=torch.float64)
        for portion in cut(places[self.context.rank :: self.context.world_size], self.config.training.eval_batch_size):
            draws_BS = choose_draws(table.rows.ids[portion].tolist())[:, None]
            loss = self._denoise(table, portion, draws_BS, {}).loss_BS
            sums += torch.tensor([float(loss.sum()), loss.size], dtype=torch.float64)
            self.context.touch()
        total, number = sum_over_ranks(sums.to(self.context.device)).tolist()
        return {"val/loss_epoch": total / number, "val/v_loss": total / number}

    def _denoise(
        self, table: Pictures, places: np.ndarray, draws_BS: np.ndarray, known: Mapping[str, Tensor]
    ) -> Denoised:
        ids, process = table.rows.ids[places].tolist(), self.config.process
        time_BS = np.take_along_axis(place_times(ids, process), draws_BS, axis=1)
        labels = self.label_rows(table, places)
        return denoise_rows(
            process, [self.predict_clean], table.take(places), labels, ids, draws_BS, time_BS, self.context.device,
            known,
        )  # fmt: skip

    @torch.inference_mode()
    def predict(self, table: Pictures, places: np.ndarray) -> Iterator[DenoisingLosses]:
        """The losses of this rank's rows at all of their times."""
        self.model.eval()
        for portion in cut(places, self.config.training.eval_batch_size):
            ids = table.rows.ids[portion]
            draws_BS = np.tile(np.arange(DRAWS), (len(ids), 1))
            yield self._denoise(table, portion, draws_BS, self.known).describe(ids, self.config.process)

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint from which pictures can be made without this run."""
        config = self.config
        description = {
            "family": FAMILY,
            "fold": self.split.fold,
            "epoch": epoch,
            "metrics": {key: metrics[key] for key in ("val/loss_epoch", "val/v_loss")},
            "model_summary": {},
            "architecture": config.model.shape.describe() | {"num_classes": self.model.num_classes},
            "preprocessing": {"size": config.data.size, "range": [-1, 1], "classes": list(self.classes)},
            "process": config.process.describe(),
            "config": asdict(config),
        }
        self.context.save_checkpoint(name, self.model.state_dict(), description)

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes their losses of all rows that do not train."""
        rank, world_size = self.context.rank, self.context.world_size
        for checkpoint in ("best", "final"):
            self.model.load_state_dict(self.context.load_checkpoint(checkpoint))
            for name, (table, places) in self.parts.items():
                if len(places):
                    own = self.predict(table, places[rank::world_size])
                    self.context.save_predictions(checkpoint, name, table.rows.ids[places], own)
