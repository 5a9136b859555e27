"""Predicts new rows with the models that folds have kept. This runs the code that their checkpoints hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from trainers.interface import DataError, TrainedModel
from trainers.own_trainer.inventory import ROW_ID
from trainers.own_trainer.kept import KeptModel
from trainers.own_trainer.users_code.packed_objects import from_tensor
from trainers.own_trainer.users_code.returned import ReturnedError, check_numbers, check_probabilities
from trainers.predictions import BlockPredictions
from trainers.values import describe_missing

NO_MODEL = (
    "the run's folds have kept no model, so new rows cannot be predicted: their function returned predictions only. "
    "Call fold.keep_model(model) in it, or return the model as a third item, and train a new run (another run.name)"
)


class Predictor:
    """The models of all folds on one device.

    Args:
        models: what was saved of each.
        rows: where the rows come from.
        device: cpu or cuda:0.
        num_threads: of torch, BLAS and OpenMP.

    Raises:
        DataError: no model was kept, or one needs a package that is not installed.
    """

    def __init__(self, models: Sequence[TrainedModel], rows: Any, device: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self.num_threads = num_threads
        self.models = [_unpack(model, device) for model in models]

    def predict(self, block: pa.Table) -> BlockPredictions:
        """Predicts a block that `NewRows.read` gave.

        Raises:
            DataError: rows lack a column, or a model's predictions are not of these rows.
        """
        frame = block.to_pandas()
        ids_N, rows = frame[ROW_ID].to_numpy(str), frame.drop(columns=ROW_ID)
        with threadpool_limits(self.num_threads):
            predicted = [_predict(model, rows) for model in self.models]
        return BlockPredictions(ids_N, np.stack(predicted), ())


def _unpack(model: TrainedModel, device: str) -> KeptModel:
    if "model" not in model.tensors:
        raise DataError(NO_MODEL)
    try:
        kept: KeptModel = from_tensor(model.tensors["model"], device)
    except ImportError as error:
        raise DataError(f"a model needs what is not installed here: {error}") from None
    return kept


def _predict(model: KeptModel, rows: Any) -> np.ndarray:
    if missing := [(name, "a feature of the models") for name in model.features or () if name not in rows]:
        raise DataError(f"the new rows: {describe_missing(missing, rows)}")
    try:
        predicted = model.predict(model.cast(rows))
        if model.classes:
            return check_probabilities(predicted, "test", len(rows), model.classes)
        return check_numbers(predicted, "test", len(rows))
    except ReturnedError as error:
        raise DataError(f"a model cannot predict the new rows: {error}") from None
