"""Predicts new rows with trained models, from their checkpoints alone: texts, ages and numbers become inputs by what
was learned from the training rows, and nothing is learned from the new ones.

Models share what they can: a row is read and its picture decoded once for all that read it alike, and encoded once for
all with the same frozen encoders.

Shape suffixes: M models, N rows of a block, B rows of a batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.data import Numbers, RowTensors
from trainers.clip_regression.inputs.numbers import NumberEncoder
from trainers.clip_regression.inputs.picture_reader import PictureReader
from trainers.clip_regression.inputs.targets import read_target
from trainers.clip_regression.network.clip_library import open_clip
from trainers.clip_regression.network.encoders import build_clip
from trainers.clip_regression.network.model import ClipRegressor
from trainers.clip_regression.new_rows import NewRows
from trainers.clip_regression.rows.table import Rows, read_block
from trainers.interface import TrainedModel
from trainers.learning.arithmetic import autocast, choose_precision, use_deterministic_algorithms
from trainers.learning.batches import cut
from trainers.learning.config_sections import read_sections, with_tuples
from trainers.predictions import BlockPredictions
from trainers.reading.picture_files import PictureFolder

if TYPE_CHECKING:
    from trainers.clip_regression.network.model import Clip

_NO_NUMBERS = Numbers(None, ())  # each model encodes them by its own statistics


class Predictor:
    """Several trained models on one device.

    Args:
        models: what was saved of each.
        rows: where the rows come from.
        device: cpu or cuda:0.
        num_threads: of torch, and threads that decode pictures.
    """

    def __init__(self, models: Sequence[TrainedModel], rows: NewRows, device: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        use_deterministic_algorithms()
        self.num_models, folders = len(models), rows.open_folders()
        self.views: dict[str, _View] = {}
        encoders: dict[str, Clip | None] = {}
        for number, model in enumerate(models):
            config = read_sections(Config, model.description["config"])
            config = replace(config, data=replace(config.data, root=str(rows.path.parent), test_table=rows.path.name))
            key = _describe_view(config, model.description)
            if key not in self.views:
                pictures = folders[config.data.test_pictures] if config.data.train_pictures else None
                preprocessing = with_tuples(model.description["preprocessing"])
                self.views[key] = _View(config, preprocessing, pictures, device, num_threads)
            self.views[key].models[number] = _Model(config, model, encoders, device)

    @torch.inference_mode()
    def predict(self, block: pa.Table) -> BlockPredictions:
        """Predicts a block that `NewRows.read` gave. What cannot be used of a row (a picture, a date, a number) is
        replaced by what stands for it (the mean colour, the training rows' median) and listed."""
        frame = block.to_pandas().astype(object)
        predictions: list[Any] = [None] * self.num_models
        problems: dict[tuple[str, str], None] = {}
        for view in self.views.values():
            rows = read_block(frame, view.config.data, view.pictures)
            problems |= {(row["id"], row["problem"]): None for row in rows.bad_rows}
            for number, prediction_N in view.predict(rows, problems):
                predictions[number] = prediction_N
        return BlockPredictions(rows.ids, np.stack(predictions), tuple(problems))


class _Model:
    """One model, and what was learned of its training rows' numbers and targets."""

    def __init__(self, config: Config, saved: TrainedModel, encoders: dict[str, Clip | None], device: str) -> None:
        known = saved.description
        fitted = tuple(NumberEncoder(**with_tuples(values)) for values in known["numbers"]["encoders"])
        self.numbers = Numbers(known["numbers"]["reference_s"], fitted)
        self.target = read_target(known)
        self.precision = choose_precision(config.training.precision, device)
        name = known["shared_tensors"].get("sha256") or f"its own {len(encoders)}"
        if name not in encoders:
            encoders[name] = build_clip(known["architecture"]) if known["architecture"] else None
        self.encoders = (name, self.precision)
        self.regressor = ClipRegressor(
            encoders[name],
            known["architecture"],
            config.model,
            has_image=bool(config.data.train_pictures),
            has_text=bool(config.data.text_columns),
            age_width=self.numbers.width,
            num_outputs=math.prod(self.target.shape),
        )
        self.regressor.load_state_dict({**saved.tensors, **saved.shared})
        self.regressor.to(device).eval()


class _View:
    """Models that read rows alike."""

    def __init__(
        self,
        config: Config,
        preprocessing: dict[str, Any],
        pictures: PictureFolder | None,
        device: str,
        num_threads: int,
    ) -> None:
        self.config, self.pictures = config, pictures
        self.reader = PictureReader(preprocessing, config.data.picture_rules) if config.data.train_pictures else None
        self.device, self.num_threads = device, num_threads
        self.tokenizer = open_clip.get_tokenizer(config.model.clip) if config.data.text_columns else None
        self.models: dict[int, _Model] = {}

    def predict(self, rows: Rows, problems: dict[tuple[str, str], None]) -> list[tuple[int, np.ndarray]]:
        """Each model's number and predictions, numbers in the target's unit, (N,) float64, or class probabilities,
        (N, C); adds pictures that do not decode to the problems."""

        def note(row: int, problem: str) -> None:
            problems[str(rows.ids[row]), problem] = None

        tensors = RowTensors(rows, _NO_NUMBERS, self.config, self.reader, self.tokenizer, self.num_threads, note)
        numbers = {number: torch.from_numpy(model.numbers.encode(rows)) for number, model in self.models.items()}
        outputs_N = {number: np.empty((len(rows), *model.target.shape)) for number, model in self.models.items()}
        for batch in tensors.batches(cut(np.arange(len(rows)), self.config.training.eval_batch_size)):
            images, tokens, _ = tensors.to_device(batch, self.device)
            features: dict[Any, dict[str, Tensor]] = {}
            for number, model in self.models.items():
                numbers_BN = numbers[number][torch.from_numpy(batch.positions_B)].to(self.device)
                with autocast(self.device, model.precision):
                    if model.encoders not in features:
                        features[model.encoders] = model.regressor.encode(images, tokens)
                    outputs_B = model.regressor.mix(features[model.encoders], numbers_BN).float()
                outputs_N[number][batch.positions_B] = outputs_B.double().cpu().numpy()
        return [(number, model.target.restore(outputs_N[number])) for number, model in self.models.items()]


def _describe_view(config: Config, description: Mapping[str, Any]) -> str:
    """Equal for models that read rows alike, in batches of the same size."""
    seen = [asdict(config.data), description["preprocessing"], config.model.clip, config.training.eval_batch_size]
    return json.dumps(seen, sort_keys=True)
