"""The training of a fold: AdamW, gradients of a step added up over several forward passes, and moving averages of the
weights, of which the best is saved."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainers.interface import ResumePoint
from trainers.learning.arithmetic import autocast
from trainers.learning.average import AverageOfWeights
from trainers.learning.learner import Learner
from trainers.learning.optimizer_state import split_by_prefix, without_compiler
from trainers.pixel_diffusion.diffusion.loss import add_noise, find_losses
from trainers.pixel_diffusion.fold.batches import Batch, EpochDraws
from trainers.pixel_diffusion.fold.evaluation import DiffusionFold
from trainers.pixel_diffusion.fold.samples import make_pictures
from trainers.pixel_diffusion.grids import encode_picture, lay_grid

logger = logging.getLogger(__name__)
_LARGE_NORM, _SMALL_NORM = 100.0, 0.001  # of gradients, above and below which is warned


class DiffusionLearner(Learner):
    """Learns a fold.

    Args:
        fold: what stays the same.
    """

    MEASURES_GRADIENTS: ClassVar = True
    fold: DiffusionFold

    def __init__(self, fold: DiffusionFold) -> None:
        training, optimizer = fold.config.training, fold.config.optimizer
        schedule = optimizer.plan(training)
        adamw = without_compiler(torch.optim.AdamW)(
            _group_parameters(fold.model, optimizer.weight_decay),
            lr=schedule.lr,
            betas=(0.9, optimizer.beta2),
            fused=True,
        )
        of_steps = replace(training, batch_size=training.pictures_of_a_step)
        super().__init__(fold, adamw, len(fold.train), training=of_steps, schedule=schedule)
        self.averages = [AverageOfWeights(fold.model, decay) for decay in training.ema_decays]
        self.chosen = ExitStack()  # holds the average that is being saved in the place of the weights
        self.best_loss, self.norms = math.inf, torch.zeros(3, device=fold.context.device)

    def begin(self) -> None:
        """Says what the config leaves to be computed."""
        precision = str(self.fold.precision).removeprefix("torch.")
        facts = {"effective_batch": self.training.batch_size, "learning_rate": self.schedule.lr, "precision": precision}
        logger.info("pictures of a step, peak learning rate, precision: %s", ", ".join(map(str, facts.values())))
        self.fold.context.log(0, {f"setup/{name}": facts[name] for name in ("effective_batch", "learning_rate")})

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[Batch]:
        """Pictures with labels, times and noise, as the epoch says."""
        fold, config = self.fold, self.config
        draws = EpochDraws(
            config.training, config.process, fold.split.fold, epoch, self.num_rows, fold.model.num_classes
        )
        for rows_B in portions:
            places = fold.train[rows_B]
            labels = fold.label_rows(fold.table, places)
            yield draws.build(rows_B, fold.table.take(places), labels, fold.context.device)

    def split_batch(self, batch: Batch, share_B: np.ndarray) -> list[tuple[Batch, np.ndarray]]:
        """As many parts as a step has forward passes, or rows."""
        num_parts = min(self.config.training.accumulation, len(share_B))
        ends = np.linspace(0, len(share_B), num_parts + 1).astype(int)
        parts = [slice(start, end) for start, end in pairwise(ends.tolist())]
        return [(batch.take(part), share_B[part]) for part in parts]

    def find_loss(self, batch: Batch, share_B: np.ndarray) -> Tensor:
        """The mean v-loss of the pictures, of all ranks together."""
        fold, process = self.fold, self.config.process
        noisy = add_noise(process, batch.clean, batch.noise, batch.time)
        with autocast(fold.context.device, fold.precision):
            predicted = self.parallel(noisy, batch.time, batch.label)
        loss_B = find_losses(process, predicted, batch.clean, batch.time)
        return (loss_B * torch.from_numpy(share_B).to(loss_B.device)).sum()

    def train_step(self, batch: Any, share_B: np.ndarray) -> Tensor:
        """A step of the optimiser and of the moving averages."""
        loss = super().train_step(batch, share_B)
        for average in self.averages:
            average.update()
        if self.grad_norm is not None:
            norm = self.grad_norm.detach()
            self.norms += torch.stack([norm > _LARGE_NORM, norm < _SMALL_NORM, torch.ones_like(norm)]).float()
        return loss

    def describe_step(self, loss: Tensor) -> dict[str, Tensor | float]:
        """Also by the names that users of the method know."""
        described = super().describe_step(loss) | {"train/loss": loss, "train/learning_rate": self.rate}
        if self.grad_norm is None:
            return described
        return described | {"train/grad_norm": self.grad_norm.detach() / self.fold.context.world_size}

    def describe_epoch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Also by the names that users of the method know; warns of gradients that are very large or small."""
        self.best_loss = min(self.best_loss, metrics["train/loss_epoch"])
        large, small, steps = self.norms.tolist()
        for number, what in ((large, f"above {_LARGE_NORM:g}"), (small, f"below {_SMALL_NORM:g}")):
            if number:
                logger.warning(
                    "the norm of the gradients was %s in %d of %d steps of epoch %d: lower optimizer.lr, or set "
                    "optimizer.max_grad_norm" if what.startswith("above") else
                    "the norm of the gradients was %s in %d of %d steps of epoch %d: little is learned; raise "
                    "optimizer.lr, or look at the data",
                    what, number, steps, self.epoch + 1,
                )  # fmt: skip
        self.norms.zero_()
        return {"train/epoch_loss": metrics["train/loss_epoch"], "train/best_loss": self.best_loss}

    def _draw_samples(self) -> None:
        """A grid of pictures that the model makes, as it is validated, in some of the epochs."""
        sampling, epoch = self.config.sampling, self.epoch + 1
        if not sampling.every_epochs or epoch % sampling.every_epochs:
            return
        numbers = np.arange(sampling.grid**2)
        with torch.inference_mode():
            grid = lay_grid(make_pictures(self.fold, numbers), sampling.grid)
        self.fold.context.log_picture(self.global_step, "samples/grid", encode_picture(grid))

    def averaged_weights(self) -> AbstractContextManager[object]:
        """Within it, once it is validated, the model has the weights that were best."""
        self.chosen = ExitStack()
        return self.chosen

    def validate(self) -> dict[str, float]:
        """Of each moving average, and of the best one what counts."""
        if not self.averages:
            metrics = self.fold.validate()
            self._draw_samples()
            return metrics
        found = []
        for average in self.averages:
            with average.swapped():
                found.append(self.fold.validate())
        best = min(range(len(found)), key=lambda number: self.fold.score(found[number]))
        self.chosen.enter_context(self.averages[best].swapped())
        self._draw_samples()
        by_average = {f"val/v_loss_ema_{number}": one["val/v_loss"] for number, one in enumerate(found)}
        return found[best] | (by_average if len(found) > 1 else {})

    def describe_point(self) -> ResumePoint:
        """Also the moving averages and the least loss."""
        point = super().describe_point()
        tensors: dict[str, Tensor] = {}
        for number, average in enumerate(self.averages):
            tensors |= {f"average_{number}/{name}": value for name, value in average.pack().items()}
        facts = {"best_loss": self.best_loss, "num_updates": [one.num_updates for one in self.averages]}
        return ResumePoint({**point.tensors, **tensors}, point.own, {**point.facts, **facts})

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt."""
        super().resume(point)
        parts, self.best_loss = split_by_prefix(point.tensors), point.facts["best_loss"]
        for number, average in enumerate(self.averages):
            average.unpack(parts[f"average_{number}"], point.facts["num_updates"][number])


def _group_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which may be drawn to zero, and the rest, which never are."""
    parameters = list(model.parameters())
    wide, flat = ([one for one in parameters if (one.ndim > 1) is is_wide] for is_wide in (True, False))
    return [{"params": wide, "weight_decay": weight_decay}, {"params": flat, "weight_decay": 0.0}]
