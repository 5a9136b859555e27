"""How every family learns a fold: its epochs, an optimiser step, the best so far, and the point from which an interrupted fold goes
on. A family says what a batch is, what its loss is and how a fold is validated."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.interface import CheckpointName, Progress, ResumePoint, Split, Workplace
from trainers.learning.arithmetic import sum_over_ranks
from trainers.learning.batches import cut, learning_rate_factor, share_of_rank, training_order
from trainers.learning.model import Model
from trainers.learning.optimizer_state import by_kind, pack_optimizer, unpack_optimizer

LONG_VALIDATION_S = 5.0  # before one that takes longer the fold saves where it is: an interrupt would not wait for it


class Fold(Protocol):
    """What stays the same while a fold trains: its data, its model, and how to validate, save and predict.

    Attributes:
        CHOSEN_BY: the metric by which best is chosen, such as `val/msle`.
        config: the family's `Config`, with the sections of `config_sections.py`.
        precision: of forward passes; with float16 gradients are scaled.
    """

    CHOSEN_BY: ClassVar[str]
    config: Any
    split: Split
    place: Workplace
    precision: torch.dtype

    @property
    def model(self) -> Model:
        """What is trained."""

    def validate(self) -> dict[str, float]:
        """The metrics of the validation rows, `val/loss_epoch` and CHOSEN_BY among them, the same on every rank."""

    def score(self, metrics: Mapping[str, float]) -> float:
        """From `validate`'s metrics what the lowest of is best."""

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint from which predictions can be made without this run."""

    def trained_state(self) -> dict[str, Tensor]:
        """All tensors of the model that the fold changes."""

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `trained_state` gave."""

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes their predictions of all rows that do not train."""


@dataclass(frozen=True)
class Best:
    """The best epoch so far.

    Attributes:
        value: of the metric that it was chosen by.
        score: the lower, the better.
    """

    epoch: int = -1
    val_loss: float = math.inf
    value: float = math.nan
    score: float = math.inf


class Learner:
    """What changes while a fold trains: optimiser, schedule, place in the data, best so far. A family's own learner gives
    `read_batches` and `find_loss`.

    Args:
        fold: what stays the same.
        optimizer: of the model's parameters that learn.
        num_rows: that the fold trains on.
    """

    def __init__(self, fold: Fold, optimizer: torch.optim.Optimizer, num_rows: int) -> None:
        training, place = fold.config.training, fold.place
        self.fold, self.config, self.optimizer, self.num_rows = fold, fold.config, optimizer, num_rows
        self.num_steps = training.epochs * math.ceil(num_rows / training.batch_size)
        self.parallel: nn.Module = DistributedDataParallel(fold.model) if place.world_size > 1 else fold.model
        self.scaler = torch.amp.GradScaler(torch.device(place.device).type, enabled=fold.precision == torch.float16)
        self.step, self.rate, self.best = 0, 0.0, Best()
        self.epoch, self.num_batches = 0, 0  # the epoch under way, and how many of its batches are done
        self.spent_s, self.waited_s = 0.0, 0.0  # on these batches, and of that for them to come
        self.validation_s = math.inf  # of the last one; unknown
        self.total = torch.zeros((), device=place.device)  # this rank's part of its loss, summed over rows

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[Any]:
        """This rank's batches of an epoch.

        Args:
            epoch: decides the augmentation.
            portions: of each batch the numbers of its rows among those that the fold trains on.
        """
        raise NotImplementedError

    def find_loss(self, batch: Any, share_B: np.ndarray) -> Tensor:
        """This rank's part of a batch's loss: the parts of all ranks add up to it, and their gradients to its gradient.

        Args:
            batch: of `read_batches`.
            share_B: the weight of each row in the mean over the whole batch; 0: a filler for a rank that has no row of it.
        """
        raise NotImplementedError

    def averaged_weights(self) -> AbstractContextManager[object]:
        """Within it the model has the weights to validate and save; here those that it trains."""
        return nullcontext()

    def describe_point(self) -> ResumePoint:
        """Everything that changes, from which `resume` goes on."""
        tensors = {f"model/{name}": value for name, value in self.fold.trained_state().items()}
        tensors |= {f"optimizer/{name}": value for name, value in pack_optimizer(self.optimizer).items()}
        facts = {
            "step": self.step, "epoch": self.epoch, "num_batches": self.num_batches, "rate": self.rate,
            "spent_s": self.spent_s, "waited_s": self.waited_s, "best": asdict(self.best), "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        return ResumePoint(tensors, {"total": self.total}, facts)

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt."""
        parts, facts = by_kind(point.tensors), point.facts
        self.fold.load_trained_state(parts["model"])
        unpack_optimizer(self.optimizer, parts["optimizer"])
        self.scaler.load_state_dict(facts["scaler"])
        self.step, self.epoch, self.num_batches = (facts[name] for name in ("step", "epoch", "num_batches"))
        self.spent_s, self.waited_s = facts["spent_s"], facts["waited_s"]
        self.rate, self.best = facts["rate"], Best(**facts["best"])
        self.total.copy_(point.own["total"])

    def learn(self) -> None:
        """Trains what is left of the fold, validates after each epoch, saves, and predicts with what was saved."""
        fold, place, epochs = self.fold, self.fold.place, self.config.training.epochs
        point = place.load_resume_point()
        if point is None:
            place.log(0, _describe_setup(fold))
        else:
            self.resume(point)
        for epoch in range(self.epoch, epochs):
            metrics = self._train_epoch(epoch)
            if self.validation_s > LONG_VALIDATION_S:
                place.save_resume_point(self.describe_point(), self.step)
            with self.averaged_weights():
                metrics = self._validate() | metrics
                score = fold.score(metrics)
                if score < self.best.score:
                    self.best = Best(epoch, metrics["val/loss_epoch"], metrics[fold.CHOSEN_BY], score)
                    fold.save("best", epoch, metrics)
                if epoch == epochs - 1:
                    fold.save("final", epoch, metrics)
            place.report_epoch(epoch, epochs, self.step, metrics | {"score": score})
            self.epoch, self.num_batches, self.total = epoch + 1, 0, torch.zeros_like(self.total)
            self.spent_s = self.waited_s = 0.0
            place.save_resume_point(self.describe_point(), self.step)
        best, name = self.best, fold.CHOSEN_BY.removeprefix("val/")
        place.log(self.step, {"best_epoch": best.epoch, "best_val_loss": best.val_loss, f"best_{name}": best.value})
        fold.predict_checkpoints()
        place.log(self.step, {"training_completed": 1, "final_best_val_loss": best.val_loss, "total_epochs": epochs})

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training rows, or what is left of it; returns its metrics, `train/loss_epoch` the mean over all rows."""
        fold, training, place, began = self.fold, self.config.training, self.fold.place, time.monotonic() - self.spent_s
        order = training_order(training.seed, fold.split.fold, epoch, self.num_rows)
        global_batches = cut(order, training.batch_size)
        shares = [share_of_rank(batch, place.rank, place.world_size) for batch in global_batches]
        self.parallel.train()
        done = self.num_batches
        batches = self.read_batches(epoch, [rows for rows, _ in shares[done:]])
        for number, batch in enumerate(self._wait_for_each(batches), start=done):
            loss = self.train_step(batch, shares[number][1])
            self.total += loss * len(global_batches[number])
            self.num_batches, self.spent_s = number + 1, time.monotonic() - began
            place.log_step(self.step, {"train/loss_step": loss, "learning_rate": self.rate})
            place.report_progress(Progress(self.step, self.num_steps, epoch, training.epochs, number + 1, len(shares)))
            if place.is_resume_point_due(self.step):
                place.save_resume_point(self.describe_point(), self.step)
        if place.world_size > 1:
            for buffer in fold.model.buffers():  # rank 0's are what the next step would begin with, and what is saved
                dist.broadcast(buffer, 0)
        loss_epoch = float(sum_over_ranks(self.total.clone())) / self.num_rows
        seconds = time.monotonic() - began
        return {
            "learning_rate": self.rate,
            "train/loss_epoch": loss_epoch,
            "train/samples_per_second": len(fold.split.train_ids) / seconds,
            "train/epoch_time": seconds,
            "train/data_wait_share": self.waited_s / seconds,
        }

    def _validate(self) -> dict[str, float]:
        began = time.monotonic()
        metrics = self.fold.validate()
        seconds = torch.tensor(time.monotonic() - began, device=self.fold.place.device)
        self.validation_s = float(sum_over_ranks(seconds)) / self.fold.place.world_size  # the same on every rank
        return metrics

    def _wait_for_each(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited_s += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def train_step(self, batch: Any, share_B: np.ndarray) -> Tensor:
        """One optimiser step; returns this rank's part of the batch's loss, on the device."""
        optimizer = self.config.optimizer
        factor = learning_rate_factor(self.step, self.num_steps, optimizer.schedule, optimizer.warmup_fraction)
        self.rate = optimizer.lr * factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        loss = self.find_loss(batch, share_B)
        self.optimizer.zero_grad(set_to_none=True)
        # DDP averages gradients; the parts have to add up.
        self.scaler.scale(loss * self.fold.place.world_size).backward()
        if optimizer.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.fold.model.parameters(), optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return loss.detach()


def _describe_setup(fold: Fold) -> dict[str, Any]:
    counts = {f"model/{name}": number for name, number in fold.model.count_parameters().items()}
    return counts | {
        "data/train_size": len(fold.split.train_ids),
        "data/val_size": len(fold.split.validation_ids),
        "setup/world_size": fold.place.world_size,
        "setup/device": fold.place.device,
    }
