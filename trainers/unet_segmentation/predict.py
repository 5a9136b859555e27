"""Predicts new pictures with the models of a run.

Shape suffixes: M models, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from trainers.interface import DataError, TrainedModel
from trainers.learning.arithmetic import choose_precision, use_deterministic_algorithms
from trainers.learning.config_sections import read_sections
from trainers.predictions import NewMap
from trainers.reading.pictures import UnusableError
from trainers.unet_segmentation.config import Config, DataConfig
from trainers.unet_segmentation.inputs.data import Normalisation
from trainers.unet_segmentation.network.evaluation import enlarge, predict_logits
from trainers.unet_segmentation.network.model import UNet, to_probability
from trainers.unet_segmentation.new_rows import NewRows
from trainers.unet_segmentation.rows.pictures import (
    decode_mask,
    decode_picture,
    read_file,
    scale_picture,
    to_classes,
)
from trainers.unet_segmentation.rows.rows_file import to_screen


@dataclass(frozen=True)
class _Model:
    unet: UNet
    normalisation: Normalisation
    config: Config
    precision: torch.dtype


class Predictor:
    """All models of a run on a device.

    Args:
        models: what was saved of each.
        rows: that will be predicted.
        device: cpu or cuda:0.
        num_threads: of torch.
    """

    def __init__(self, models: Sequence[TrainedModel], rows: NewRows, device: str, num_threads: int) -> None:
        use_deterministic_algorithms()
        torch.set_num_threads(num_threads)
        self.device, self.models = device, [_build(model, device) for model in models]
        self.views = {model.config.data for model in self.models}  # members may read pictures at another scale
        self.data = self.models[0].config.data

    @torch.inference_mode()
    def predict(self, block: pa.Table) -> Iterator[NewMap]:
        """What the models say of each picture of a block, as large as its file is.

        Raises:
            DataError: a picture is not what it was when it was checked.
        """
        for row in block.to_pylist():
            try:
                content, rules = read_file(Path(row["picture"])), self.data.picture_rules
                shown_CHW = decode_picture(content, 3, rules).values_CHW
                scaled = {data: self._scale(content, data) for data in self.views}
            except (UnusableError, OSError) as error:
                raise DataError(f"{row['picture']} was changed while it was to be predicted: it {error}") from None
            size = shown_CHW.shape[1:]
            probability_MCHW = np.stack([self._predict(one, scaled[one.config.data], size) for one in self.models])
            target_HW, problem = self._read_mask(row["mask"], size)
            yield NewMap(row["id"], probability_MCHW, target_HW, to_screen(shown_CHW), problem)

    def _scale(self, content: bytes, data: DataConfig) -> np.ndarray:
        return scale_picture(decode_picture(content, data.channels, data.picture_rules).values_CHW, data)

    def _predict(self, model: _Model, scaled_CHW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        picture = model.normalisation.apply(scaled_CHW).to(self.device)
        logits_CHW = predict_logits(model.unet, picture, model.config, model.precision)
        return enlarge(to_probability(logits_CHW[None])[0], *size).cpu().numpy()

    def _read_mask(self, mask: str | None, size: tuple[int, int]) -> tuple[np.ndarray | None, str]:
        """A true mask, or what is wrong with it."""
        if mask is None:
            return None, ""
        try:
            target_HW = to_classes(decode_mask(read_file(Path(mask)), self.data), self.data)
        except (UnusableError, OSError) as error:
            return None, f"its mask {Path(mask).name} {error}"
        if target_HW.shape != size:
            return (
                None,
                f"its mask {Path(mask).name} is {target_HW.shape[1]} x {target_HW.shape[0]}, the picture "
                f"{size[1]} x {size[0]}",
            )
        return target_HW, ""


def _build(model: TrainedModel, device: str) -> _Model:
    description, config = model.description, read_sections(Config, model.description["config"])
    architecture, learned = description["architecture"], description["preprocessing"]
    unet = UNet(architecture["channels"], architecture["outputs"], architecture["features"])
    unet.load_state_dict(dict(model.tensors))
    normalisation = Normalisation(tuple(learned["mean"]), tuple(learned["std"]))
    return _Model(unet.to(device).eval(), normalisation, config, choose_precision(config.training.precision, device))
