"""Learns one fold of the U-Net: epochs, validation, best and final checkpoints, predicted maps of both.

Best is the epoch with the highest Dice; of scores the lowest is best, so it is 1 - Dice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainers.interface import (
    CheckpointName,
    FoldContext,
    RowsName,
    Split,
)
from trainers.learning.arithmetic import autocast, choose_precision, seed_fold, sum_over_ranks
from trainers.learning.learner import Learner
from trainers.learning.optimizer_state import without_compiler
from trainers.predictions import PredictedMap
from trainers.unet_segmentation.config import Config
from trainers.unet_segmentation.inputs.data import Augmentation, Examples, Normalisation
from trainers.unet_segmentation.network.evaluation import (
    average,
    count_pixels,
    enlarge,
    measure_dice,
    measure_iou,
    predict_logits,
)
from trainers.unet_segmentation.network.loss import IGNORED, Sums, add_up, batch_loss, finish
from trainers.unet_segmentation.network.model import UNet, to_probability
from trainers.unet_segmentation.rows.rows_file import find_positions, place_rows, read_mask, read_rows


def train_fold(config: Config, split: Split, context: FoldContext) -> None:
    """Trains, validates, saves and predicts one fold; called on every rank.

    Raises:
        DataError: a picture is not the one that was checked.
    """
    torch.set_num_threads(context.num_threads)
    seed_fold(config.training.seed, split.fold)
    _Learner(_set_up(config, split, context)).learn()


def _set_up(config: Config, split: Split, context: FoldContext) -> _Fold:
    def read(table: str) -> Examples | None:
        path = place_rows(context.inputs, config.data, table)
        if table == "test" and not path.exists():
            return None
        return Examples(read_rows(path), config, context.num_threads, context.retry_while_unavailable)

    table, test = (
        context.retry_while_unavailable("reading the rows", partial(read, name)) for name in ("train", "test")
    )
    train, validation, blend = (
        find_positions(table.rows, ids.tolist()) for ids in (split.train_ids, split.validation_ids, split.blend_ids)
    )
    learned_from = table.rows.take(train)
    return _Fold(
        config=config,
        split=split,
        context=context,
        model=build_model(config, context.world_size, context.device).to(context.device),
        normalisation=Normalisation.fit(learned_from),
        weight_K=weigh_classes(config, learned_from.counts_NC).to(context.device),
        table=table,
        train=train,
        parts={"validation": (table, validation), "blend": (table, blend)}
        | ({} if test is None else {"test": (test, np.arange(len(test.rows)))}),
        precision=choose_precision(config.training.precision, context.device),
    )


def build_model(config: Config, world_size: int, device: str) -> UNet:
    """The model, untrained, on the CPU. The workers of a fold normalise a batch together on GPUs, and each its share by
    itself on CPUs, where torch offers nothing else."""
    model = UNet(config.data.channels, config.data.outputs, config.model.features)
    if world_size > 1 and device.startswith("cuda"):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def weigh_classes(config: Config, counts_NC: np.ndarray) -> Tensor:
    """Of each class but the background its weight in the cross entropy, (K,) float32; 1 for one that is nowhere."""
    given = config.loss.positive_weight
    if given != "auto":
        return torch.full((config.data.classes - 1,), float(given))
    counts_C = counts_NC.sum(0).astype(np.float64)
    weights = np.where(counts_C[1:] > 0, counts_C[0] / np.maximum(1, counts_C[1:]), 1.0)
    return torch.from_numpy(np.maximum(weights, 1e-3)).float()


@dataclass
class _Fold:
    """What stays the same while a fold trains: its data, its model, and how to validate, save and predict."""

    CHOSEN_BY: ClassVar = "val/dice"

    config: Config
    split: Split
    context: FoldContext
    model: UNet
    normalisation: Normalisation
    weight_K: Tensor
    table: Examples
    train: np.ndarray
    parts: dict[RowsName, tuple[Examples, np.ndarray]]
    precision: torch.dtype

    def trained_state(self) -> dict[str, Tensor]:
        """All of the model."""
        return self.model.state_dict()

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `trained_state` gave."""
        self.model.load_state_dict(state)

    def score(self, metrics: Mapping[str, float]) -> float:
        """What of the Dice is missing."""
        return 1 - metrics["val/dice"]

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Loss, Dice and IoU of the validation pictures, over all ranks: sums are added, never means."""
        self.model.eval()
        table, positions = self.parts["validation"]
        num_kinds, device = self.config.data.classes - 1, self.context.device
        sums = torch.zeros(3 * num_kinds + 2, dtype=torch.float64, device=device)
        counts = torch.zeros(3 * num_kinds + 1, dtype=torch.float64, device=device)  # the last: Dice of the pictures
        for example in table.read(positions[self.context.rank :: self.context.world_size]):
            logits_CHW = self._predict(example.picture_CHW)
            mask_HW = torch.from_numpy(example.mask_HW).to(device)
            sums += add_up(logits_CHW[None], mask_HW[None], self.weight_K).stack().double()
            counts_3K = count_pixels(logits_CHW, mask_HW)
            counts[:-1] += counts_3K.flatten()
            counts[-1] += average(measure_dice(counts_3K))
            self.context.touch()
        sums, counts = sum_over_ranks(sums), sum_over_ranks(counts)
        counts_3K = counts[:-1].reshape(3, num_kinds)
        dice_K, iou_K = measure_dice(counts_3K), measure_iou(counts_3K)
        by_class = (
            {f"val/dice_class_{k}": value for k, value in enumerate(dice_K.tolist(), start=1)} if num_kinds > 1 else {}
        )
        return {
            "val/loss_epoch": float(finish(self.config.loss, Sums.unstack(sums))),
            "val/dice": average(dice_K),
            "val/iou": average(iou_K),
            "val/dice_of_pictures": float(counts[-1]) / len(positions),
            **{name: value for name, value in by_class.items() if not math.isnan(value)},
        }

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint from which predictions can be made without this run."""
        data = self.config.data
        description = {
            "family": "unet_segmentation",
            "fold": self.split.fold,
            "epoch": epoch,
            "metrics": {key: metrics[key] for key in ("val/loss_epoch", "val/dice", "val/iou")},
            "model_summary": {},
            "architecture": {
                "channels": data.channels,
                "outputs": data.outputs,
                "features": list(self.config.model.features),
            },
            "preprocessing": asdict(self.normalisation)
            | {"size": data.size, "scaling": data.scaling, "channels": data.channels},
            "config": asdict(self.config),
        }
        self.context.save_checkpoint(name, self.model.state_dict(), description)

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes their maps of all pictures that do not train."""
        names: tuple[CheckpointName, ...] = ("best", "final")
        for name in names:
            self.load_trained_state(self.context.load_checkpoint(name))
            self.model.eval()
            for part, (table, positions) in self.parts.items():
                if len(positions):
                    maps = self._predict_maps(table, positions)
                    self.context.save_predictions(name, part, table.rows.ids[positions], maps)

    @torch.inference_mode()
    def _predict_maps(self, table: Examples, positions: np.ndarray) -> Iterator[PredictedMap]:
        """This rank's share, as large as the files are."""
        for example in table.read(positions[self.context.rank :: self.context.world_size]):
            row, rows = example.row, table.rows
            probability_CHW = to_probability(self._predict(example.picture_CHW)[None])[0]
            probability_CHW = enlarge(probability_CHW, int(rows.height[row]), int(rows.width[row]))
            mask_HW = self.context.retry_while_unavailable(
                "reading masks", partial(read_mask, rows, row, self.config.data, scaled=False)
            )
            yield PredictedMap(str(rows.ids[row]), probability_CHW.cpu().numpy(), mask_HW)

    def _predict(self, picture_CHW: np.ndarray) -> Tensor:
        picture = self.normalisation.apply(picture_CHW).to(self.context.device)
        return predict_logits(self.model, picture, self.config, self.precision)


class _Learner(Learner):
    """Batches of pictures with their masks, by Adam."""

    fold: _Fold

    def __init__(self, fold: _Fold) -> None:
        optimizer = fold.config.optimizer
        adam = without_compiler(torch.optim.Adam)(
            fold.model.parameters(), lr=optimizer.lr, weight_decay=optimizer.weight_decay, fused=True
        )
        super().__init__(fold, adam, len(fold.train))

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pictures and masks, augmented as the epoch says."""
        fold, config = self.fold, self.config
        augment = Augmentation(
            config.data, config.training, fold.normalisation, fold.split.fold, epoch, len(fold.table.rows)
        )
        return fold.table.batches([fold.train[rows] for rows in portions], augment)

    def find_loss(self, batch: tuple[Tensor, Tensor], share_B: np.ndarray) -> Tensor:
        """Dice and cross entropy over the pixels of all ranks; a filler's count nowhere."""
        (pictures_BCSS, masks_BSS), fold, device = batch, self.fold, self.fold.context.device
        if not share_B.any():
            masks_BSS = torch.full_like(masks_BSS, IGNORED)
        with autocast(device, fold.precision):
            logits_BCSS = self.parallel(pictures_BCSS.to(device))
        loss = batch_loss(self.config.loss, logits_BCSS.float(), masks_BSS.to(device), fold.weight_K, sum_over_ranks)
        # Of the gradient it is this rank's part already, but the value is that of the whole batch.
        return loss - loss.detach() * (1 - 1 / fold.context.world_size)
