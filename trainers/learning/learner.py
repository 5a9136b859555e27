"""How every family learns a fold: its stages, epochs or steps, evaluations, the best so far, and the point from which
an interrupted fold goes on. A family says what a batch is, what its loss is and how a fold is validated."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainers.interface import EndReason, Progress, ResumePoint
from trainers.learning.arithmetic import sum_over_ranks
from trainers.learning.average import AverageOfWeights
from trainers.learning.batches import cut, learning_rate_factor, share_of_rank, training_order
from trainers.learning.fold import Best, Fold
from trainers.learning.optimizer_state import pack_optimizer, split_by_prefix, unpack_optimizer

logger = logging.getLogger(__name__)
LONG_VALIDATION_S = 5.0  # before one that takes longer the fold saves where it is: an interrupt would not wait for it


class Learner:
    """What changes while a stage of a fold trains, of which most have one: optimisers, schedule, place in the data,
    best so far. A family's own learner gives `read_batches` and `find_loss`.

    Args:
        fold: what stays the same.
        optimizer: of the parameters that learn. Several take their steps together; `lr_factor` of a group of parameters
            scales the schedule's rate.
        num_rows: that the fold trains on.
        stage: its name; empty: the only one.
        training: the section with `epochs`, `batch_size` and `seed`; None: the config's.
        schedule: the section of the learning rate; None: the config's `optimizer`.
        num_steps: the stage ends after so many steps, and has no epochs; None: after the section's epochs.
        evaluate_every: evaluates after so many steps, too; without epochs also at the end.
        ema_decay: of a moving average of the weights, which is validated and saved in their place; None: there is none.

    Attributes:
        grad_norm: of all gradients of the last step together, before they were scaled down; None: it is not measured.
    """

    MEASURES_GRADIENTS: ClassVar = False  # also where nothing limits them

    def __init__(
        self,
        fold: Fold,
        optimizer: torch.optim.Optimizer | tuple[torch.optim.Optimizer, ...],
        num_rows: int,
        *,
        stage: str = "",
        training: Any = None,
        schedule: Any = None,
        num_steps: int | None = None,
        evaluate_every: int | None = None,
        ema_decay: float | None = None,
    ) -> None:
        context, config = fold.context, fold.config
        self.fold, self.config, self.num_rows, self.stage = fold, config, num_rows, stage
        self.optimizers = optimizer if isinstance(optimizer, tuple) else (optimizer,)
        self.training, self.schedule = training or config.training, schedule or config.optimizer
        self.evaluate_every, self.has_epochs = evaluate_every, num_steps is None
        self.steps_per_epoch = math.ceil(num_rows / self.training.batch_size)
        self.num_steps = self.training.epochs * self.steps_per_epoch if num_steps is None else num_steps
        self.parallel: nn.Module = fold.model
        self.average = AverageOfWeights(fold.model, ema_decay) if ema_decay else None
        self.scaler = torch.amp.GradScaler(torch.device(context.device).type, enabled=fold.precision == torch.float16)
        self.number, self.first_step, self.first_epoch = 0, 0, 0  # of the stage, among all
        self.all_steps, self.all_epochs = self.num_steps, self.num_epochs
        self.step, self.rate, self.best = 0, 0.0, Best()
        self.grad_norm: Tensor | None = None
        self.epoch, self.num_batches = 0, 0  # the epoch under way, and how many of its batches are done
        self.evaluated = 0  # the step of the last evaluation between epochs
        self.spent_s, self.waited_s = 0.0, 0.0  # on these batches, and of that for them to come
        self.validation_s = math.inf  # of the last one; unknown
        self.ended_by: EndReason | None = None  # why the stage ends before all its steps are done
        self.evaluated_at = 0.0  # by the clock of this attempt
        # This rank's part of the loss since the epoch began, or since the last evaluation where there are none, summed
        # over rows.
        self.total, self.num_counted = torch.zeros((), device=context.device), 0

    @property
    def num_epochs(self) -> int:
        """Epochs that are reported."""
        return self.training.epochs if self.has_epochs else 0

    @property
    def global_step(self) -> int:
        """Steps of all stages."""
        return self.first_step + self.step

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
            share_B: the weight of each row in the mean over the whole batch; 0: a filler for a rank that has no row of
                it.
        """
        raise NotImplementedError

    def split_batch(self, batch: Any, share_B: np.ndarray) -> list[tuple[Any, np.ndarray]]:
        """The parts of a batch, each with the weights of its rows, whose gradients are added up before the step: all of
        it at once, unless a family says otherwise."""
        return [(batch, share_B)]

    def describe_step(self, loss: Tensor) -> dict[str, Tensor | float]:
        """What is recorded of a step; tensors are this rank's share of a sum over the ranks.

        Args:
            loss: this rank's part of the batch's.
        """
        return {"train/loss_step": loss, "learning_rate": self.rate}

    def describe_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What else is recorded of an epoch, beside these metrics; called once an epoch, by every rank."""
        return {}

    def join_ranks(self) -> nn.Module:
        """The model whose gradients the ranks share, where there are several."""
        return DistributedDataParallel(self.fold.model)

    def begin(self) -> None:
        """Called when the stage starts, and not where it goes on: for what depends on the stage before."""

    def end(self) -> None:
        """Called when the stage is over, and again by a fold that goes on from there: for a checkpoint of its own."""

    def validate(self) -> dict[str, float]:
        """As the fold's, unless a stage has its own."""
        return self.fold.validate()

    def score(self, metrics: Mapping[str, float]) -> float:
        """As the fold's, unless a stage has its own."""
        return self.fold.score(metrics)

    def averaged_weights(self) -> AbstractContextManager[object]:
        """Within it the model has the weights to validate and save: those that it trains, or their moving average."""
        return nullcontext() if self.average is None else self.average.swapped()

    def describe_point(self) -> ResumePoint:
        """Everything that changes, from which `resume` goes on."""
        tensors = {f"model/{name}": value for name, value in self.fold.trained_state().items()}
        for kind, optimizer in self._name_optimizers():
            tensors |= {f"{kind}/{name}": value for name, value in pack_optimizer(optimizer).items()}
        facts = {
            "stage": self.number, "step": self.step, "epoch": self.epoch, "num_batches": self.num_batches,
            "rate": self.rate,
            "evaluated": self.evaluated, "num_counted": self.num_counted, "spent_s": self.spent_s,
            "waited_s": self.waited_s,
            "best": asdict(self.best), "scaler": self.scaler.state_dict(), "ended_by": self.ended_by,
            "precision": str(self.fold.precision),
        }  # fmt: skip
        if self.average is not None:
            tensors |= {f"average/{name}": value for name, value in self.average.pack().items()}
            facts["num_updates"] = self.average.num_updates
        return ResumePoint(tensors, {"total": self.total}, facts)

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt."""
        parts, facts = split_by_prefix(point.tensors), point.facts
        self.fold.load_trained_state(parts["model"])
        for kind, optimizer in self._name_optimizers():
            unpack_optimizer(optimizer, parts.get(kind, {}))
        if self.average is not None:
            self.average.unpack(parts["average"], facts["num_updates"])
        if (began := facts.get("precision")) not in (None, str(self.fold.precision)):
            logger.warning("the fold began in %s and goes on in %s: not with the same bits", began, self.fold.precision)
        if facts["scaler"]:  # else it was of no use where the fold began, as on a CPU
            self.scaler.load_state_dict(facts["scaler"])
        self.step, self.epoch, self.num_batches = (facts[name] for name in ("step", "epoch", "num_batches"))
        self.spent_s, self.waited_s = facts["spent_s"], facts["waited_s"]
        self.rate, self.best = facts["rate"], Best(**facts["best"])
        self.evaluated, self.num_counted = facts.get("evaluated", 0), facts.get("num_counted", 0)
        self.total.copy_(point.own["total"])
        self.ended_by = facts.get("ended_by")
        if self.ended_by:
            self.fold.context.report_early_end(self.global_step, self.ended_by)

    def learn(self) -> None:
        """Trains what is left of a fold with this stage alone."""
        learn_stages(self)

    def train(self) -> None:
        """Trains what is left of the stage, evaluates, and saves the best and the last."""
        if self.fold.context.world_size > 1:
            self.parallel = self.join_ranks()
        self.evaluated_at = time.monotonic()
        if self.has_epochs:
            self._train_epochs()
        else:
            self._train_steps()
        self.parallel = self.fold.model
        best, name = self.best, self.fold.CHOSEN_BY.removeprefix("val/")
        when = {"best_epoch": best.epoch} if self.has_epochs else {"best_step": best.step}
        self.fold.context.log(self.global_step, when | {"best_val_loss": best.val_loss, f"best_{name}": best.value})

    def _train_epochs(self) -> None:
        context, epochs = self.fold.context, self.training.epochs
        for epoch in range(self.epoch, self.epoch if self.ended_by else epochs):
            metrics = self._train_epoch(epoch)
            self._save_before_validation()
            metrics |= self._evaluate(epoch, metrics, is_last=epoch == epochs - 1)
            metrics |= self.describe_epoch(metrics)
            is_very_last = self.ended_by and self.first_epoch + epochs == self.all_epochs
            num_epochs = self.first_epoch + epoch + 1 if is_very_last else self.all_epochs
            context.report_epoch(self.first_epoch + epoch, num_epochs, self.global_step, metrics)
            self.epoch, self.num_batches, self.num_counted = epoch + 1, 0, 0
            self.total, self.evaluated = torch.zeros_like(self.total), self.step
            self.spent_s = self.waited_s = 0.0
            context.save_resume_point(self.describe_point(), self.global_step)
            if self.ended_by:
                break

    def _train_steps(self) -> None:
        while self.step < self.num_steps and not self.ended_by:
            self._learn_batches(self.epoch)
            if self.num_batches == self.steps_per_epoch:
                self.epoch, self.num_batches = self.epoch + 1, 0
        if self._evaluate_if_due():  # of a fold that went on before its last evaluation
            self.fold.context.save_resume_point(self.describe_point(), self.global_step)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training rows, or what is left of it; returns its metrics, `train/loss_epoch` the mean over
        all rows."""
        self._learn_batches(epoch)
        self._share_buffers()
        loss_epoch = float(sum_over_ranks(self.total.clone())) / self.num_rows
        return {
            "learning_rate": self.rate,
            "train/loss_epoch": loss_epoch,
            "train/samples_per_second": len(self.fold.split.train_ids) / self.spent_s,
            "train/epoch_time": self.spent_s,
            "train/data_wait_share": self.waited_s / self.spent_s,
        }

    def _learn_batches(self, epoch: int) -> None:
        """The batches of a pass over the rows that are left, of the whole stage as many as it has steps."""
        context, batch_size = self.fold.context, self.training.batch_size
        order = training_order(self.training.seed, self.fold.split.fold, epoch, self.num_rows)
        global_batches = cut(order, batch_size)[: self.num_steps - epoch * self.steps_per_epoch]
        shares = [share_of_rank(batch, context.rank, context.world_size) for batch in global_batches]
        self._evaluate_if_due()  # of a fold that went on before it
        if self.ended_by:
            return
        self.parallel.train()
        done, began = self.num_batches, time.monotonic() - self.spent_s
        batches = self.read_batches(epoch, [rows for rows, _ in shares[done:]])
        for number, batch in enumerate(self._wait_for_each(batches), start=done):
            loss = self.train_step(batch, shares[number][1])
            self.total += loss * len(global_batches[number])
            self.num_counted += len(global_batches[number])
            self.num_batches, self.spent_s = number + 1, time.monotonic() - began
            context.log_step(self.global_step, self.describe_step(loss))
            context.report_progress(self._describe_progress(epoch, len(shares)))
            is_evaluated = self._evaluate_if_due()
            if is_evaluated:
                self.parallel.train()
                began = time.monotonic() - self.spent_s
            if context.is_resume_point_due(self.global_step) or (is_evaluated and not self.has_epochs):
                context.save_resume_point(self.describe_point(), self.global_step)
            if self.ended_by:
                break
        self.spent_s = time.monotonic() - began

    def _describe_progress(self, epoch: int, num_batches: int) -> Progress:
        if not self.has_epochs:
            return Progress(self.global_step, self.all_steps)
        where = (self.first_epoch + epoch, self.all_epochs, self.num_batches, num_batches)
        return Progress(self.global_step, self.all_steps, *where)

    def _evaluate_if_due(self) -> bool:
        """Evaluates between epochs where it is time to and this step was not evaluated yet; whether it did."""
        is_end = self.step == self.num_steps and not self.has_epochs
        is_time = self.evaluate_every is not None and self.step > 0 and self.step % self.evaluate_every == 0
        is_epoch_end = self.has_epochs and self.num_batches == self.steps_per_epoch  # which is evaluated anyway
        if self.step == self.evaluated or is_epoch_end or not (is_time or is_end):
            return False
        self._save_before_validation()
        self._share_buffers()
        metrics = {"learning_rate": self.rate}
        if not self.has_epochs:
            metrics["train/loss_epoch"] = float(sum_over_ranks(self.total.clone())) / self.num_counted
            self.total, self.num_counted = torch.zeros_like(self.total), 0
        metrics |= self._evaluate(self.epoch, metrics, is_last=is_end)
        self.evaluated = self.step
        self.fold.context.report_evaluation(self.global_step, metrics)
        return True

    def _evaluate(self, epoch: int, metrics: dict[str, float], *, is_last: bool) -> dict[str, float]:
        """The metrics with those of the validation and the score; saves what is the best so far, and the last."""
        with self.averaged_weights():
            metrics = self._validate() | metrics
            score = self.score(metrics)
            if score < self.best.score:
                val_loss, value = metrics.get("val/loss_epoch", math.nan), metrics.get(self.fold.CHOSEN_BY, math.nan)
                self.best = Best(epoch, val_loss, value, score, self.step)
                self.fold.save("best", epoch, metrics)
            if not is_last:
                self._end_if_due(epoch)
            if is_last or self.ended_by:
                self.fold.save("final", epoch, metrics)
        self.evaluated_at = time.monotonic()
        return metrics | {"score": score}

    def _end_if_due(self, epoch: int) -> None:
        """Ends the stage here where nothing has got better for long, or where no more of it fits into its time. Of
        evaluations between epochs none ends it."""
        is_epoch_end = self.num_batches == self.steps_per_epoch
        if self.has_epochs and not is_epoch_end:
            return
        seconds = self.spent_s + self.validation_s if self.has_epochs else time.monotonic() - self.evaluated_at
        num_worse = epoch - self.best.epoch
        if not self.has_epochs:
            num_worse = (self.step - self.best.step) // (self.evaluate_every or self.num_steps)
        patience = getattr(self.training, "patience", None)  # a stage's own section may have none
        if patience is not None and num_worse >= patience:
            self.ended_by = "patience"
        elif self.fold.context.is_time_up(self.global_step, seconds):
            self.ended_by = "budget"
        if self.ended_by:
            self.fold.context.report_early_end(self.global_step, self.ended_by)

    def _save_before_validation(self) -> None:
        """Of one that takes long: an interrupt would not wait for it."""
        if self.validation_s > LONG_VALIDATION_S:
            self.fold.context.save_resume_point(self.describe_point(), self.global_step)

    def _share_buffers(self) -> None:
        """Gives all ranks rank 0's: the next step would begin with them, and they are what is saved."""
        if self.fold.context.world_size > 1:
            for buffer in self.fold.model.buffers():
                dist.broadcast(buffer, 0)

    def _validate(self) -> dict[str, float]:
        began = time.monotonic()
        metrics = self.validate()
        seconds = torch.tensor(time.monotonic() - began, device=self.fold.context.device)
        self.validation_s = float(sum_over_ranks(seconds)) / self.fold.context.world_size  # the same on every rank
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
        schedule = self.schedule
        self.rate = schedule.lr * learning_rate_factor(
            self.step,
            self.num_steps,
            schedule.schedule,
            schedule.warmup_fraction,
            getattr(schedule, "min_lr_fraction", 0.0),
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * group.get("lr_factor", 1.0)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._find_gradients(batch, share_B)
        self._limit_gradients()
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.step += 1
        if self.average is not None:
            self.average.update()
        return loss

    def _find_gradients(self, batch: Any, share_B: np.ndarray) -> Tensor:
        """Adds up the gradients of a batch's parts; returns this rank's part of its loss."""
        parts, losses = self.split_batch(batch, share_B), []
        for number, (part, share_b) in enumerate(parts, start=1):
            with self._without_exchange() if number < len(parts) else nullcontext():
                loss = self.find_loss(part, share_b)
                # DDP averages gradients; the parts have to add up.
                self.scaler.scale(loss * self.fold.context.world_size).backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _without_exchange(self) -> AbstractContextManager[object]:
        """Within it the ranks keep their gradients to themselves: the last part's exchange is of the sums."""
        return self.parallel.no_sync() if isinstance(self.parallel, DistributedDataParallel) else nullcontext()

    def _limit_gradients(self) -> None:
        """Measures the norm of all gradients together where it is recorded, and scales them down to the largest that is
        allowed."""
        most = self.schedule.max_grad_norm
        if not (most or self.MEASURES_GRADIENTS):
            return
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        gradients = [one.grad for one in self.fold.model.parameters() if one.grad is not None]
        self.grad_norm = nn.utils.get_total_norm(gradients)
        if most:
            nn.utils.clip_grads_with_norm_(self.fold.model.parameters(), most, self.grad_norm)

    def _name_optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        """What the names of their states begin with."""
        for number, optimizer in enumerate(self.optimizers):
            yield f"optimizer{number or ''}", optimizer


def learn_stages(*stages: Learner) -> None:
    """Trains a fold stage after stage, from where an earlier attempt was, and predicts with what was saved."""
    fold, last = stages[0].fold, stages[-1]
    all_steps, all_epochs = (sum(getattr(stage, name) for stage in stages) for name in ("num_steps", "num_epochs"))
    for number, stage in enumerate(stages):
        stage.number, stage.all_steps, stage.all_epochs = number, all_steps, all_epochs
        stage.first_step = sum(one.num_steps for one in stages[:number])
        stage.first_epoch = sum(one.num_epochs for one in stages[:number])
    point = fold.context.load_resume_point()
    if point is None:
        fold.context.log(0, _describe_setup(fold))
    for stage in stages[0 if point is None else point.facts.get("stage", 0) :]:
        if point is None:
            if stage.stage:
                fold.context.begin_stage(stage.stage)
            stage.begin()
        else:
            stage.resume(point)
            point = None
        stage.train()
        stage.end()
    if last.stage:
        fold.context.begin_stage("")
    fold.predict_checkpoints()
    fold.context.log(
        last.global_step,
        {
            "training_completed": 1,
            "final_best_val_loss": last.best.val_loss,
            "total_epochs": last.first_epoch + last.epoch if last.has_epochs else all_epochs,
        },
    )


def _describe_setup(fold: Fold) -> dict[str, Any]:
    counts = {f"model/{name}": number for name, number in fold.model.count_parameters().items()}
    return counts | {
        "data/train_size": len(fold.split.train_ids),
        "data/val_size": len(fold.split.validation_ids),
        "setup/world_size": fold.context.world_size,
        "setup/device": fold.context.device,
    }
