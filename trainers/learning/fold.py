"""What a `Learner` is given of a fold, and the best that it has found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainers.interface import CheckpointName, FoldContext, Split
from trainers.learning.model import Model


class Fold(Protocol):
    """What stays the same while a fold trains: its data, its model, and how to validate, save and predict.

    Attributes:
        config: the family's `Config`, with the sections of `config_sections.py`.
        precision: of forward passes; with float16 gradients are scaled.
    """

    config: Any
    split: Split
    context: FoldContext
    precision: torch.dtype

    @property
    def CHOSEN_BY(self) -> str:  # noqa: N802 of most families a constant
        """The metric by which best is chosen, such as `val/msle`."""

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
    """The best evaluation so far.

    Attributes:
        epoch: of it, or under way.
        value: of the metric that it was chosen by.
        score: the lower, the better.
        step: of the stage.
    """

    epoch: int = -1
    val_loss: float = math.inf
    value: float = math.nan
    score: float = math.inf
    step: int = -1
