"""Measures the loss of new pictures by the models of a run, and by the mean of what they predict.

Shape suffixes: M models, B rows, S draws of a row, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from trainers.interface import DataError, TrainedModel
from trainers.learning.arithmetic import use_deterministic_algorithms
from trainers.pixel_diffusion.diffusion.denoising import denoise_rows
from trainers.pixel_diffusion.diffusion.fixed_noise import DRAWS, place_times
from trainers.pixel_diffusion.diffusion.sampler import Predict
from trainers.pixel_diffusion.fold.saved import load_models
from trainers.pixel_diffusion.new_rows import NewRows
from trainers.pixel_diffusion.rows.squares import read_square
from trainers.predictions import NewLosses
from trainers.reading.pictures import UnusableError


class Predictor:
    """All models of a run on a device.

    Args:
        models: what was saved of each.
        rows: that will be predicted.
        device: cpu or cuda:0.
        num_threads: of torch.

    Raises:
        DataError: the models cannot predict together.
    """

    def __init__(self, models: Sequence[TrainedModel], rows: NewRows, device: str, num_threads: int) -> None:
        use_deterministic_algorithms()
        torch.set_num_threads(num_threads)
        self.device, self.models = device, load_models(models, device)
        self.batch_rows = rows.batch_rows

    @torch.inference_mode()
    def predict(self, block: pa.Table) -> NewLosses:
        """The losses of the pictures of a block.

        Raises:
            DataError: a picture is not what it was when it was checked.
        """
        parts = [block.slice(start, self.batch_rows) for start in range(0, len(block), self.batch_rows)]
        found = [self._predict_part(part) for part in parts]
        return NewLosses(
            np.array(block["id"].to_pylist()),
            np.concatenate([losses_MBS for losses_MBS, _, _ in found], axis=1),
            np.concatenate([combined_BS for _, combined_BS, _ in found]),
            tuple(problem for _, _, problems in found for problem in problems),
        )

    def _predict_part(self, part: pa.Table) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
        first, ids, names = self.models[0], part["id"].to_pylist(), part["label"].to_pylist()
        pictures = np.stack([self._read(Path(path)) for path in part["picture"].to_pylist()])
        number_of = {name: number for number, name in enumerate(first.classes)}
        missing = first.network.num_classes if first.classes else 0
        label_B = np.array([number_of.get(name, missing) for name in names], np.int64)
        problems = [
            (row_id, f"class {name!r}")
            for row_id, name in zip(ids, names, strict=True)
            if first.classes and name and name not in number_of
        ]
        draws_BS = np.tile(np.arange(DRAWS), (len(ids), 1))

        def ask(models: Sequence[Predict]) -> np.ndarray:
            time_BS = place_times(ids, first.process)
            return denoise_rows(
                first.process, models, pictures, label_B, ids, draws_BS, time_BS, self.device
            ).loss_BS  # fmt: skip

        losses = np.stack([ask([model.predict_clean]) for model in self.models])
        every = [model.predict_clean for model in self.models]
        return losses, ask(every) if len(every) > 1 else losses[0], problems

    def _read(self, path: Path) -> np.ndarray:
        data = self.models[0].config.data
        try:
            return read_square(path.read_bytes(), data.size, data.picture_rules)
        except (UnusableError, OSError) as error:
            raise DataError(f"{path} was changed while it was to be predicted: it {error}") from None
