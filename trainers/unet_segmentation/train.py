"""Learns one fold of the U-Net: epochs, validation, best and final checkpoints, predicted maps of both.

Best is the epoch with the highest Dice; a score is lower for the better, so it is 1 - Dice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.arithmetic import autocast, choose_precision, seed_fold, sum_over_ranks
from trainers.batches import cut, learning_rate_factor, share_of_rank, training_order
from trainers.interface import CheckpointName, PredictedMap, ResumePoint, Split, Workplace
from trainers.optimizer_state import by_kind, pack_optimizer, unpack_optimizer
from trainers.unet_segmentation.config import Config
from trainers.unet_segmentation.data import Augmentation, Examples, Normalisation
from trainers.unet_segmentation.evaluation import (
    average,
    count_pixels,
    enlarge,
    measure_dice,
    measure_iou,
    predict_logits,
)
from trainers.unet_segmentation.loss import IGNORED, Sums, add_up, batch_loss, finish
from trainers.unet_segmentation.model import UNet, to_probability
from trainers.unet_segmentation.rows import find_positions, place_rows, read_mask, read_rows


def train_fold(config: Config, split: Split, place: Workplace) -> None:
    """Trains, validates, saves and predicts one fold; called on every rank.

    Raises:
        DataError: a picture is not the one that was checked.
    """
    torch.set_num_threads(place.num_threads)
    seed_fold(config.training.seed, split.fold)
    fold = _set_up(config, split, place)
    learner = _Learner(fold)
    point = place.load_resume_point()
    if point is None:
        place.log(0, fold.describe_setup())
    else:
        learner.resume(point)
    for epoch in range(learner.epoch, config.training.epochs):
        started = time.monotonic()
        train_loss = learner.train_epoch(epoch)
        seconds = time.monotonic() - started
        waited_s, learner.waited_s = learner.waited_s, 0.0
        metrics = fold.validate() | {
            "learning_rate": learner.rate,
            "train/loss_epoch": train_loss,
            "train/samples_per_second": len(split.train_ids) / seconds,
            "train/epoch_time": seconds,
            "train/data_wait_share": waited_s / seconds,
        }
        if metrics["val/dice"] > learner.best.dice:
            learner.best = _Best(epoch, metrics["val/loss_epoch"], metrics["val/dice"])
            fold.save("best", epoch, metrics)
        if epoch == config.training.epochs - 1:
            fold.save("final", epoch, metrics)
        place.report_epoch(epoch, config.training.epochs, learner.step, metrics | {"score": 1 - metrics["val/dice"]})
        learner.end_epoch()
        place.save_resume_point(learner.describe_point(), learner.step)
    best = learner.best
    place.log(learner.step, {"best_epoch": best.epoch, "best_val_loss": best.val_loss, "best_dice": best.dice})
    fold.predict_checkpoints()
    place.log(
        learner.step,
        {"training_completed": 1, "final_best_val_loss": best.val_loss, "total_epochs": config.training.epochs},
    )


@dataclass(frozen=True)
class _Best:
    epoch: int = -1
    val_loss: float = math.inf
    dice: float = -math.inf


def _set_up(config: Config, split: Split, place: Workplace) -> _Fold:
    def read(table: str) -> Examples | None:
        path = place_rows(place.inputs, config.data, table)
        if table == "test" and not path.exists():
            return None
        return Examples(read_rows(path), config, place.num_threads, place.insist)

    table, test = (place.insist("reading the rows", partial(read, name)) for name in ("train", "test"))
    train, validation, blend = (
        find_positions(table.rows, ids.tolist()) for ids in (split.train_ids, split.validation_ids, split.blend_ids)
    )
    learned_from = table.rows.take(train)
    model: nn.Module = UNet(config.data.channels, config.data.outputs, config.model.features)
    if place.world_size > 1 and place.device.startswith("cuda"):  # on CPUs each worker's share is normalised by itself
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return _Fold(
        config=config,
        split=split,
        place=place,
        model=model.to(place.device),
        normalisation=Normalisation.fit(learned_from),
        weight_K=weigh_classes(config, learned_from.counts_NC).to(place.device),
        table=table,
        train=train,
        parts={"validation": (table, validation), "blend": (table, blend)}
        | ({} if test is None else {"test": (test, np.arange(len(test.rows)))}),
        precision=choose_precision(config.training.precision, place.device),
    )


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

    config: Config
    split: Split
    place: Workplace
    model: nn.Module
    normalisation: Normalisation
    weight_K: Tensor
    table: Examples
    train: np.ndarray
    parts: dict[str, tuple[Examples, np.ndarray]]
    precision: torch.dtype

    def describe_setup(self) -> dict[str, float]:
        counts = {f"model/{name}": number for name, number in self.model.count_parameters().items()}
        return counts | {
            "data/train_size": len(self.split.train_ids),
            "data/val_size": len(self.split.validation_ids),
            "setup/world_size": self.place.world_size,
            "setup/device": self.place.device,
        }

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Loss, Dice and IoU of the validation pictures, over all ranks: sums are added, never means."""
        self.model.eval()
        table, positions = self.parts["validation"]
        num_kinds, device = self.config.data.classes - 1, self.place.device
        sums = torch.zeros(3 * num_kinds + 2, dtype=torch.float64, device=device)
        counts = torch.zeros(3 * num_kinds + 1, dtype=torch.float64, device=device)  # the last: Dice of the pictures
        for example in table.read(positions[self.place.rank :: self.place.world_size]):
            logits_CHW = self._predict(example.picture_CHW)
            mask_HW = torch.from_numpy(example.mask_HW).to(device)
            sums += add_up(logits_CHW[None], mask_HW[None], self.weight_K).stack().double()
            counts_3K = count_pixels(logits_CHW, mask_HW)
            counts[:-1] += counts_3K.flatten()
            counts[-1] += average(measure_dice(counts_3K))
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
        self.place.save_checkpoint(name, self.model.state_dict(), description)

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes their maps of all pictures that do not train."""
        for name in ("best", "final"):
            self.model.load_state_dict(self.place.load_checkpoint(name))
            self.model.eval()
            for part, (table, positions) in self.parts.items():
                if len(positions):
                    self.place.save_maps(name, part, table.rows.ids[positions], self._predict_maps(table, positions))

    @torch.inference_mode()
    def _predict_maps(self, table: Examples, positions: np.ndarray) -> Iterator[PredictedMap]:
        """This rank's share, as large as the files are."""
        for example in table.read(positions[self.place.rank :: self.place.world_size]):
            row, rows = example.row, table.rows
            probability_CHW = to_probability(self._predict(example.picture_CHW)[None])[0]
            probability_CHW = enlarge(probability_CHW, int(rows.height[row]), int(rows.width[row]))
            mask_HW = self.place.insist("reading masks", partial(read_mask, rows, row, self.config.data, scaled=False))
            yield PredictedMap(str(rows.ids[row]), probability_CHW.cpu().numpy(), mask_HW)

    def _predict(self, picture_CHW: np.ndarray) -> Tensor:
        picture = self.normalisation.apply(picture_CHW).to(self.place.device)
        return predict_logits(self.model, picture, self.config, self.precision)


class _Learner:
    """What changes while a fold trains: optimiser, schedule, place in the data, best so far."""

    def __init__(self, fold: _Fold) -> None:
        config, model = fold.config, fold.model
        self.fold, self.config, self.step = fold, config, 0
        self.num_rows = len(fold.train)
        self.num_steps = config.training.epochs * math.ceil(self.num_rows / config.training.batch_size)
        self.parallel: nn.Module = DistributedDataParallel(model) if fold.place.world_size > 1 else model
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(
            torch.device(fold.place.device).type, enabled=fold.precision == torch.float16
        )
        self.rate, self.best, self.waited_s = 0.0, _Best(), 0.0
        self.epoch, self.num_batches = 0, 0  # the epoch under way, and how many of its batches are done
        self.total = torch.zeros((), device=fold.place.device)  # of its loss, summed over rows

    def describe_point(self) -> ResumePoint:
        """Everything that changes, from which `resume` goes on."""
        tensors = {f"model/{name}": value for name, value in self.fold.model.state_dict().items()}
        tensors |= {f"optimizer/{name}": value for name, value in pack_optimizer(self.optimizer).items()}
        facts = {
            "step": self.step, "epoch": self.epoch, "num_batches": self.num_batches, "rate": self.rate,
            "best": asdict(self.best), "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        return ResumePoint(tensors, {"total": self.total}, facts)

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt."""
        parts, facts = by_kind(point.tensors), point.facts
        self.fold.model.load_state_dict(parts["model"])
        unpack_optimizer(self.optimizer, parts["optimizer"])
        self.scaler.load_state_dict(facts["scaler"])
        self.step, self.epoch, self.num_batches = (facts[name] for name in ("step", "epoch", "num_batches"))
        self.rate, self.best = facts["rate"], _Best(**facts["best"])
        self.total.copy_(point.own["total"])

    def end_epoch(self) -> None:
        """Moves on to the next epoch's first batch."""
        self.epoch, self.num_batches = self.epoch + 1, 0
        self.total = torch.zeros_like(self.total)

    def train_epoch(self, epoch: int) -> float:
        """One pass over the training pictures, or what is left of it; returns the mean loss over all of them."""
        fold, training, place = self.fold, self.config.training, self.fold.place
        order = fold.train[training_order(training.seed, fold.split.fold, epoch, self.num_rows)]
        global_batches = cut(order, training.batch_size)
        shares = [share_of_rank(batch, place.rank, place.world_size) for batch in global_batches]
        augment = Augmentation(
            self.config.data, training, fold.normalisation, fold.split.fold, epoch, len(fold.table.rows)
        )
        self.parallel.train()
        done = self.num_batches
        batches = fold.table.batches([positions for positions, _ in shares[done:]], augment)
        for number, (pictures, masks) in enumerate(self._wait_for_each(batches), start=done):
            if not shares[number][1].any():
                masks = torch.full_like(masks, IGNORED)  # a filler: the batch has no picture for this rank
            loss = self.train_step(pictures, masks)
            self.total += loss * len(global_batches[number])
            self.num_batches = number + 1
            place.log_step(self.step, {"train/loss_step": loss / place.world_size, "learning_rate": self.rate})
            place.report_progress(epoch, training.epochs, self.step, self.num_steps)
            if place.is_resume_point_due(self.step):
                place.save_resume_point(self.describe_point(), self.step)
        if place.world_size > 1:
            for buffer in fold.model.buffers():  # rank 0's are what the next step would begin with, and what is saved
                dist.broadcast(buffer, 0)
        return float(self.total) / self.num_rows

    def _wait_for_each(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def train_step(self, pictures_BCSS: Tensor, masks_BSS: Tensor) -> Tensor:
        """One optimiser step; returns the batch's loss over all ranks, on the device."""
        fold, optimizer, device = self.fold, self.config.optimizer, self.fold.place.device
        factor = learning_rate_factor(self.step, self.num_steps, optimizer.schedule, optimizer.warmup_fraction)
        self.rate = optimizer.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        with autocast(device, fold.precision):
            logits_BCSS = self.parallel(pictures_BCSS.to(device))
        loss = batch_loss(self.config.loss, logits_BCSS.float(), masks_BSS.to(device), fold.weight_K, sum_over_ranks)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * fold.place.world_size).backward()  # DDP averages gradients; the parts have to add up
        if optimizer.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(fold.model.parameters(), optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return loss.detach()
