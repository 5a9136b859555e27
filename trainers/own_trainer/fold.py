"""What a user's function gets: the rows of a fold, where it runs, and what it may say while it trains."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from trainers.interface import FoldContext, Progress, ResumePoint
from trainers.own_trainer.kept import KeptModel, make_kept
from trainers.own_trainer.table import name_class
from trainers.own_trainer.users_code.packed_objects import from_tensor, to_tensor

if TYPE_CHECKING:
    from torch import Tensor

_SAVE_INTERVAL_S = 2.0
_EPOCHS = ("epoch", "num_epochs")


class Fold:
    """One fold, on one of its workers.

    Attributes:
        train, validation: the rows that train and validate, their target among the columns.
        test: the rows to predict, without the target; None: there are none.
        blend: rows that no fold trains on and every fold predicts; None: there are none.
        target: the target's column.
        classes: names of the target's values, in the order in which their probabilities are wanted; none: the target
            is a number.
        features: the columns that are neither target, id, group, time nor fold, and that the test table has, too.
        number, num_folds: which of how many folds, from 0.
        device: `cuda:0` (or another number) or `cpu`.
        rank, world_size: which of how many workers that train the fold together; most folds have one.
        num_threads: that this worker may use.
        seed: of this fold, for random generators; those of Python, NumPy and torch are seeded with it.
        config: the function's own options.
        data_folder: where the table lies, for files that its cells name.
    """

    def __init__(
        self,
        context: FoldContext,
        rows: Mapping[str, pd.DataFrame | None],
        *,
        number: int,
        num_folds: int,
        target: str,
        classes: tuple[str, ...],
        features: Sequence[str],
        seed: int,
        config: Any,
        data_folder: Path,
    ) -> None:
        train, validation = rows["train"], rows["validation"]
        assert train is not None
        assert validation is not None
        self.train, self.validation, self.test, self.blend = train, validation, rows["test"], rows["blend"]
        self.number, self.num_folds, self.target, self.features = number, num_folds, target, list(features)
        self.seed, self.config, self.data_folder, self.classes = seed, config, data_folder, classes
        self.device, self.num_threads = context.device, context.num_threads
        self.rank, self.world_size = context.rank, context.world_size
        self.kept: KeptModel | None = None
        self._context = context
        self._step, self._epoch, self._epochs = 0, 0, Progress(0)  # the epoch that is over, and the one under way
        self._has_reported, self._is_epoch_over = False, False
        self._saved_at = self._epoch_began = time.monotonic()
        self._epoch_s = 0.0

    def __reduce__(self) -> Any:
        """Raises TypeError: a checkpoint would hold all rows."""
        raise TypeError(
            "it uses the fold itself, which cannot be kept; take from the fold what is needed before, such as "
            "mean = fold.train[names].mean()"
        )

    def log(self, metrics: Mapping[str, Any] | None = None, *, step: int | None = None, **more: Any) -> None:
        """Records the values of a step; each call is the next step unless one is given.

        Args:
            metrics, more: numbers by name; `loss` is the training loss, as all families name it. A tensor of one value
                may stay on its device, and is a mean over the rows of this worker.
            step: from 1.
        """
        self._step = self._step + 1 if step is None else step
        self._is_epoch_over = False
        named = {
            ("train/loss_step" if name == "loss" else name): value
            for name, value in {**(metrics or {}), **more}.items()
        }
        self._context.log_step(self._step, {name: self._take_value(name, value) for name, value in named.items()})
        self._context.report_progress(replace(self._epochs, step=self._step))

    def report_epoch(
        self,
        epoch: int,
        num_epochs: int,
        *,
        score: float | None = None,
        train_loss: float | None = None,
        val_loss: float | None = None,
        **metrics: float,
    ) -> None:
        """Says that an epoch (or a round) is over.

        Args:
            epoch: from 0.
            num_epochs: all of them.
            score: the lowest is best; by default the validation loss.
            train_loss, val_loss: means over the rows.
            metrics: further numbers by name.

        Raises:
            ValueError: there is neither a score nor a validation loss.
        """
        score = val_loss if score is None else score
        if score is None:
            raise ValueError("score=None: expected a number, of which the lowest is best, unless there is a val_loss")
        losses = {"train/loss_epoch": train_loss, "val/loss_epoch": val_loss}
        known = {name: float(value) for name, value in losses.items() if value is not None}
        named = {**known, "score": float(score), **{name: float(value) for name, value in metrics.items()}}
        self._context.report_epoch(epoch, num_epochs, self._step, named)
        self._epoch, self._epochs = (
            epoch,
            Progress(self._step, epoch=min(epoch + 1, num_epochs - 1), num_epochs=num_epochs),
        )
        self._has_reported = self._is_epoch_over = True
        now = time.monotonic()
        self._epoch_s, self._epoch_began = now - self._epoch_began, now

    def is_time_up(self) -> bool:
        """Whether no further epoch fits into the time that the run gives the fold (`run.time_budget`). To be asked by
        every worker before each epoch; the function then ends its training and returns its predictions."""
        if not (self._has_reported and self._is_epoch_over):
            return False
        step = self._step or self._epoch + 1
        is_up = self._context.is_time_up(step, self._epoch_s)
        if is_up:
            self._context.report_early_end(step, "budget")
        return is_up

    def save(self, state: Any) -> None:
        """Keeps a state from which the fold goes on when it is killed: anything that can be pickled, such as a dict
        with a model's and an optimiser's `state_dict()`. It may be called after each step: it is written at most every
        two seconds, and when the run is asked to stop, which ends the fold here. Every worker of a fold calls it; the
        first one's state is kept.

        Raises:
            ValueError: it cannot be pickled.
        """
        is_due = self._context.is_resume_point_due(self._step)
        is_time = self.world_size > 1 or time.monotonic() - self._saved_at >= _SAVE_INTERVAL_S
        if not (is_due or is_time or self._is_epoch_over):
            return
        facts = {"step": self._step, "over": self._epoch, **{name: getattr(self._epochs, name) for name in _EPOCHS}}
        facts |= {"is_epoch_over": self._is_epoch_over, "epoch_s": self._epoch_s}
        point = ResumePoint({"state": to_tensor(state, "fold.save(state): the state")}, {}, facts)
        self._context.save_resume_point(point, self._step)
        self._saved_at = time.monotonic()

    def load(self) -> Any:
        """The state that an earlier attempt has saved last, its tensors on the CPU; None: begin. To be called when
        model and optimiser are built: random generators are set to where they were, too."""
        point = self._context.load_resume_point()
        if point is None:
            return None
        facts = point.facts
        self._step, self._epoch = facts["step"], facts["over"]
        self._epochs = Progress(self._step, epoch=facts["epoch"], num_epochs=facts["num_epochs"])
        self._has_reported = facts["epoch"] is not None
        self._is_epoch_over, self._epoch_s = facts.get("is_epoch_over", False), facts.get("epoch_s", 0.0)
        return from_tensor(point.tensors["state"], "cpu")

    def keep_model(self, model: Any, features: Sequence[str] | None = None, *, knows_numbers: bool = False) -> None:
        """Saves a fitted model, by which later rows can be predicted. The checkpoint then holds code: reading it runs
        it.

        Args:
            model: has `predict` (of classes `predict_proba`), or is a function of rows (a DataFrame) that returns
                their predictions.
            features: the columns that it is given; by default those that it was fitted on, where it says so, else
                `fold.features`; a function of rows gets all columns.
            knows_numbers: of classes: it was fitted on their numbers, `fold.number_classes(rows)`, not their names.

        Raises:
            ValueError: it cannot be asked, or a feature is no column.
        """
        self.kept = make_kept(
            model, features, self.features, self.train, self.classes, is_numbered=knows_numbers and bool(self.classes)
        )

    def number_classes(self, rows: pd.DataFrame) -> np.ndarray:
        """The number of the true class of each row among `classes`, from 0, (N,) int64."""
        names = rows[self.target].map(name_class).to_numpy(object)
        numbers: np.ndarray = pd.Index(self.classes).get_indexer(names).astype(np.int64)
        return numbers

    def touch(self) -> None:
        """Says that the fold is at work, where `run.stall_timeout_s` is set and nothing else is said for long."""
        self._context.touch()

    @property
    def has_reported(self) -> bool:
        """Whether a score was reported."""
        return self._has_reported

    @property
    def last_step(self) -> int:
        """The number of the last step; 0: none was logged."""
        return self._step

    @property
    def last_epoch(self) -> int:
        """The epoch that was reported last, from 0; 0: none was."""
        return self._epoch

    def _take_value(self, name: str, value: Any) -> Tensor | float:
        if hasattr(value, "detach"):  # the parts of all workers are added up
            if value.numel() != 1:
                raise ValueError(f"log: {name} is a tensor of the shape {tuple(value.shape)}: expected one value")
            shared: Tensor = value.detach().reshape(()) / self.world_size
            return shared
        return float(value)
