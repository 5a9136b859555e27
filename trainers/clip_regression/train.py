"""Learns one fold of the CLIP regressor: epochs, validation, best and final checkpoints, predictions of both."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.arithmetic import autocast, choose_precision, seed_fold, sum_over_ranks
from trainers.batches import cut, learning_rate_factor, share_of_rank, training_order
from trainers.clip_regression.config import Config
from trainers.clip_regression.data import (
    Augmentation,
    Batch,
    Numbers,
    RowFeatures,
    RowTensors,
    TargetStatistics,
)
from trainers.clip_regression.equipment import Equipment, equip, read_tables
from trainers.clip_regression.loss import batch_loss
from trainers.clip_regression.model import AverageOfWeights, ClipRegressor
from trainers.interface import CheckpointName, Predictions, ResumePoint, Split, Workplace
from trainers.optimizer_state import by_kind, pack_optimizer, unpack_optimizer


def train_fold(config: Config, split: Split, place: Workplace) -> None:
    """Trains, validates, saves and predicts one fold; called on every rank.

    Raises:
        DataError: a picture that its header promised cannot be decoded and `data.on_bad_row` is `error`.
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
        with learner.averaged_weights():
            metrics = fold.validate(learner.rate)
            metrics |= {
                "train/loss_epoch": train_loss,
                "train/samples_per_second": len(split.train_ids) / seconds,
                "train/epoch_time": seconds,
                "train/data_wait_share": waited_s / seconds,
            }
            if metrics["val/msle"] < learner.best.msle:
                learner.best = _Best(epoch, metrics["val/loss_epoch"], metrics["val/msle"])
                fold.save("best", epoch, metrics)
            if epoch == config.training.epochs - 1:
                fold.save("final", epoch, metrics)
        place.report_epoch(epoch, config.training.epochs, learner.step, metrics | {"score": metrics["val/msle"]})
        learner.end_epoch()
        place.save_resume_point(learner.describe_point(), learner.step)
    best = learner.best
    place.log(learner.step, {"best_epoch": best.epoch, "best_val_loss": best.val_loss, "best_msle": best.msle})
    fold.predict_checkpoints()
    place.log(
        learner.step,
        {"training_completed": 1, "final_best_val_loss": best.val_loss, "total_epochs": config.training.epochs},
    )


@dataclass(frozen=True)
class _Best:
    epoch: int = -1
    val_loss: float = math.inf
    msle: float = math.inf


def _set_up(config: Config, split: Split, place: Workplace) -> _Fold:
    tables = place.insist("reading the rows", partial(read_tables, config, place.inputs))
    rows = tables["train"].rows
    position = {row_id: index for index, row_id in enumerate(rows.ids.tolist())}
    train, validation, blend = (
        np.array([position[row_id] for row_id in ids.tolist()], int)
        for ids in (split.train_ids, split.validation_ids, split.blend_ids)
    )
    learned_from = rows.take(train)
    numbers = Numbers.fit(learned_from, config)
    equipment = equip(config, tables, numbers, split, place)
    if place.world_size > 1:  # the same initial weights on every rank, other dropout
        seed_fold(config.training.seed, split.fold, place.rank)
    to_inputs = equipment.to_inputs
    return _Fold(
        config=config,
        split=split,
        place=place,
        equipment=equipment,
        model=equipment.model.to(place.device),
        numbers=numbers,
        statistics=TargetStatistics.fit(learned_from.target),
        train=to_inputs("train", train),
        validation=to_inputs("train", validation),
        blend=to_inputs("train", blend) if len(blend) else None,
        test=to_inputs("test", np.arange(len(tables["test"].rows))) if "test" in tables else None,
        precision=choose_precision(config.training.precision, place.device),
    )


@dataclass
class _Fold:
    """What stays the same while a fold trains: its data, its model, and how to validate, save and predict."""

    config: Config
    split: Split
    place: Workplace
    equipment: Equipment
    model: ClipRegressor
    numbers: Numbers
    statistics: TargetStatistics
    train: RowTensors | RowFeatures
    validation: RowTensors | RowFeatures
    blend: RowTensors | RowFeatures | None
    test: RowTensors | RowFeatures | None
    precision: torch.dtype
    shared: dict[str, str] | None = None

    def describe_setup(self) -> dict[str, float]:
        counts = {f"model/{name}": number for name, number in self.model.count_parameters().items()}
        return counts | {
            "data/train_size": len(self.split.train_ids),
            "data/val_size": len(self.split.validation_ids),
            "setup/world_size": self.place.world_size,
            "setup/device": self.place.device,
        }

    def forward(self, model: nn.Module, batch: Batch, tensors: RowTensors | RowFeatures) -> Tensor:
        inputs = tensors.to_device(batch, self.place.device)
        with autocast(self.place.device, self.precision):
            return model(*inputs).float()

    @torch.inference_mode()
    def predict(self, tensors: RowTensors | RowFeatures) -> np.ndarray:
        """z of all rows, (B,) float64, the same on every rank; each rank computes its share."""
        self.model.eval()
        rank, world_size, total = self.place.rank, self.place.world_size, len(tensors.rows)
        mine = np.arange(rank, total, world_size)
        parts = [
            self.forward(self.model, batch, tensors).double().cpu().numpy()
            for batch in tensors.batches(cut(mine, self.config.training.eval_batch_size))
        ]
        z = np.concatenate(parts) if parts else np.zeros(0)
        if world_size == 1:
            return z
        gathered: list[Any] = [None] * world_size
        dist.all_gather_object(gathered, z)
        whole = np.empty(total)
        for source, part in enumerate(gathered):
            whole[source::world_size] = part
        return whole

    def validate(self, rate: float) -> dict[str, float]:
        z_hat, target = self.predict(self.validation), self.validation.rows.target
        prediction = self.statistics.restore(z_hat)
        loss = batch_loss(
            self.config.loss,
            torch.from_numpy(z_hat),
            torch.from_numpy(self.statistics.standardise(target)),
            mu=self.statistics.mu,
            sigma=self.statistics.sigma,
            progress=1.0,
            share_B=torch.full((len(target),), 1 / len(target), dtype=torch.float64),
            sum_over_ranks=lambda value: value,
        )
        weights = {f"weights/{name}": float(weight) for name, weight in self.model.modality_weights().items()}
        return {
            "val/loss_epoch": float(loss),
            **score_on_target_scale(target, prediction),
            "predictions/mean": float(prediction.mean()),
            "predictions/std": float(prediction.std()),
            "targets/mean": float(target.mean()),
            "targets/std": float(target.std()),
            "learning_rate": rate,
            **weights,
        }

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint from which predictions can be made without this project's config or open_clip's registry."""
        if self.shared is None:
            self.shared = self._share_encoders()
        description = {
            "family": "clip_regression",
            "fold": self.split.fold,
            "epoch": epoch,
            "metrics": {key: metrics[key] for key in ("val/loss_epoch", "val/msle")},
            "model_summary": {
                f"{modality}_weight": metrics[f"weights/{modality}"] for modality in ("image", "text", "age")
            },
            "architecture": self.equipment.architecture,
            "preprocessing": self.equipment.preprocessing,
            "shared_tensors": self.shared,
            "config": asdict(self.config),
            "numbers": asdict(self.numbers),
            "target_statistics": asdict(self.statistics),
        }
        self.place.save_checkpoint(name, self.model.trained_state(), description)

    def _share_encoders(self) -> dict[str, str]:
        if self.equipment.weights is not None:
            return self.place.share_file("frozen_encoders", *self.equipment.weights)
        frozen = self.model.frozen_state()
        return self.place.share_tensors("frozen_encoders", frozen) if frozen else {}

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes their predictions of all rows that do not train."""
        for name in ("best", "final"):
            state = self.place.load_checkpoint(name)
            missing, unexpected = self.model.load_state_dict(state, strict=False)
            assert not unexpected, unexpected
            assert set(missing) == set(self.model.frozen_state()), missing
            for rows, tensors in (("validation", self.validation), ("blend", self.blend), ("test", self.test)):
                if tensors is not None:
                    z = self.predict(tensors)
                    self.place.save_predictions(
                        name, rows, Predictions(tensors.rows.ids, self.statistics.restore(z), z, tensors.rows.target)
                    )


class _Learner:
    """What changes while a fold trains: optimiser, schedule, average of weights, place in the data, best so far."""

    def __init__(self, fold: _Fold) -> None:
        config, model = fold.config, fold.model
        self.fold, self.config, self.step = fold, config, 0
        self.num_rows = len(fold.train.rows)
        self.num_steps = config.training.epochs * math.ceil(self.num_rows / config.training.batch_size)
        self.parallel: nn.Module = DistributedDataParallel(model) if fold.place.world_size > 1 else model
        self.optimizer = torch.optim.AdamW(
            _group_parameters(model, config.optimizer.weight_decay), lr=config.optimizer.lr, fused=True
        )
        self.scaler = torch.amp.GradScaler(
            torch.device(fold.place.device).type, enabled=fold.precision == torch.float16
        )
        self.average = AverageOfWeights(model, config.training.ema_decay) if config.training.ema_decay else None
        self.z = torch.from_numpy(fold.statistics.standardise(fold.train.rows.target)).float()
        self.rate = 0.0
        self.best = _Best()
        self.waited_s = 0.0  # in this epoch, for its batches
        self.epoch, self.num_batches = 0, 0  # the epoch under way, and how many of its batches are done
        self.total = torch.zeros((), device=fold.place.device)  # this rank's part of its loss, summed over rows

    def describe_point(self) -> ResumePoint:
        """Everything that changes, from which `resume` goes on."""
        tensors = {f"model/{name}": value for name, value in self.fold.model.trained_state().items()}
        tensors |= {f"optimizer/{name}": value for name, value in pack_optimizer(self.optimizer).items()}
        facts = {
            "step": self.step, "epoch": self.epoch, "num_batches": self.num_batches, "rate": self.rate,
            "best": asdict(self.best), "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        if self.average:
            tensors |= {f"average/{number}": value for number, value in enumerate(self.average.average)}
            facts["num_updates"] = self.average.num_updates
        return ResumePoint(tensors, {"total": self.total}, facts)

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt."""
        parts = by_kind(point.tensors)
        self.fold.model.load_state_dict(parts["model"], strict=False)
        unpack_optimizer(self.optimizer, parts["optimizer"])
        self.scaler.load_state_dict(point.facts["scaler"])
        if self.average:
            for number, average in enumerate(self.average.average):
                average.copy_(parts["average"][str(number)])
            self.average.num_updates = point.facts["num_updates"]
        self.step, self.epoch, self.num_batches = (point.facts[name] for name in ("step", "epoch", "num_batches"))
        self.rate, self.best = point.facts["rate"], _Best(**point.facts["best"])
        self.total.copy_(point.own["total"])

    def end_epoch(self) -> None:
        """Moves on to the next epoch's first batch."""
        self.epoch, self.num_batches = self.epoch + 1, 0
        self.total = torch.zeros_like(self.total)

    def train_epoch(self, epoch: int) -> float:
        """One pass over the training rows, or what is left of it; returns the mean loss over all of them."""
        fold, training, place = self.fold, self.config.training, self.fold.place
        order = training_order(training.seed, fold.split.fold, epoch, self.num_rows)
        global_batches = cut(order, training.batch_size)
        shares = [share_of_rank(batch, place.rank, place.world_size) for batch in global_batches]
        num_tokens = 0 if fold.train.tokens is None else fold.train.tokens.shape[1]
        augment = Augmentation(self.config, fold.split.fold, epoch, self.num_rows, num_tokens)
        self.parallel.train()
        done = self.num_batches
        batches = fold.train.batches([positions for positions, _ in shares[done:]], augment)
        for number, batch in enumerate(self._wait_for_each(batches), start=done):
            loss = self.train_step(batch, shares[number][1])
            self.total += loss * len(global_batches[number])
            self.num_batches = number + 1
            place.log_step(self.step, {"train/loss_step": loss, "learning_rate": self.rate})
            place.report_progress(epoch, training.epochs, self.step, self.num_steps)
            if place.is_resume_point_due(self.step):
                place.save_resume_point(self.describe_point(), self.step)
        return float(sum_over_ranks(self.total.clone())) / self.num_rows

    def _wait_for_each(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def train_step(self, batch: Batch, share: np.ndarray) -> Tensor:
        """One optimiser step; returns this rank's part of the batch's loss, on the device."""
        fold, optimizer = self.fold, self.config.optimizer
        factor = learning_rate_factor(self.step, self.num_steps, optimizer.schedule, optimizer.warmup_fraction)
        self.rate = optimizer.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        z_hat_B = fold.forward(self.parallel, batch, fold.train)
        loss = batch_loss(
            self.config.loss,
            z_hat_B,
            self.z[torch.from_numpy(batch.positions_B)].to(z_hat_B.device),
            mu=fold.statistics.mu,
            sigma=fold.statistics.sigma,
            progress=self.step / self.num_steps,
            share_B=torch.from_numpy(share).to(z_hat_B.device),
            sum_over_ranks=sum_over_ranks,
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * fold.place.world_size).backward()  # DDP averages gradients; the parts have to add up
        if optimizer.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(fold.model.parameters(), optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average:
            self.average.update()
        self.step += 1
        return loss.detach()

    def averaged_weights(self) -> AbstractContextManager:
        """The moving average in place of the weights, if there is one."""
        return nullcontext() if self.average is None else _Swapped(self.average)


class _Swapped:
    def __init__(self, average: AverageOfWeights) -> None:
        self.average = average

    def __enter__(self) -> None:
        self.average.swap()

    def __exit__(self, *_: object) -> None:
        self.average.swap()


def score_on_target_scale(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """MSLE, MAE, MSE and RMSE of predictions in the target's unit (scikit-learn's definitions)."""
    error = prediction - target
    log_error = np.log1p(prediction) - np.log1p(target)
    mse = float(np.mean(error**2))
    return {
        "val/msle": float(np.mean(log_error**2)),
        "val/mae": float(np.mean(np.abs(error))),
        "val/mse": mse,
        "val/rmse": math.sqrt(mse),
    }


def _group_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
