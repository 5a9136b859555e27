"""Models as they were saved, ready to predict.

Shape suffixes: M models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainers.interface import DataError, TrainedModel
from trainers.learning.arithmetic import autocast, choose_precision
from trainers.learning.config_sections import read_sections
from trainers.pixel_diffusion.config import Config
from trainers.pixel_diffusion.network.model import Denoiser
from trainers.pixel_diffusion.network.shapes import Shape
from trainers.pixel_diffusion.process import Process


@dataclass(frozen=True)
class SavedModel:
    """A model of a run on a device.

    Attributes:
        process: that it was trained by.
        classes: names, by their numbers; empty: it has none.
    """

    network: Denoiser
    config: Config
    process: Process
    classes: tuple[str, ...]
    device: str
    precision: torch.dtype

    def predict_clean(self, noisy: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """What it takes for the clean pictures."""
        with autocast(self.device, self.precision):
            predicted: Tensor = self.network(noisy, time, label)
        return predicted.float()


def load_models(models: Sequence[TrainedModel], device: str) -> list[SavedModel]:
    """Models that predict together.

    Raises:
        DataError: they were trained by different processes, or for other sizes or classes, so that there is no mean of
            what they predict.
    """
    loaded = [_load(model, device) for model in models]
    first = loaded[0]
    for number, other in enumerate(loaded[1:], start=1):
        for what in ("process", "classes"):
            _refuse_other(number, what, getattr(first, what), getattr(other, what))
        _refuse_other(number, "data.size", first.network.size, other.network.size)
    return loaded


def _refuse_other(number: int, what: str, own: object, other: object) -> None:
    if own != other:
        raise DataError(
            f"model {number} has {what} {other}, and model 0 has {own}: expected the same, as the mean of what models "
            "predict is of the same noisy pictures; combine models that agree"
        )


def _load(model: TrainedModel, device: str) -> SavedModel:
    description: Mapping[str, Any] = model.description
    config, sizes = read_sections(Config, description["config"]), dict(description["architecture"])
    num_classes = sizes.pop("num_classes")
    network = Denoiser(Shape(**sizes), description["preprocessing"]["size"], num_classes)
    network.load_state_dict(dict(model.tensors))
    return SavedModel(
        network.to(device).eval(),
        config,
        Process(**description["process"]),
        tuple(description["preprocessing"]["classes"]),
        device,
        choose_precision(config.training.precision, device),
    )
