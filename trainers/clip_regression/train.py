"""Learns one fold of the CLIP regressor or classifier: epochs, validation, best and final checkpoints, predictions of
both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.data import Augmentation, Batch, Numbers, RowFeatures, RowTensors
from trainers.clip_regression.inputs.fold_inputs import FoldInputs, build_fold_inputs, read_tables
from trainers.clip_regression.inputs.targets import Target, fit_target
from trainers.clip_regression.network.model import ClipRegressor
from trainers.interface import (
    CheckpointName,
    FoldContext,
    RowsName,
    Split,
)
from trainers.learning.arithmetic import autocast, choose_precision, seed_fold, sum_over_ranks
from trainers.learning.batches import cut
from trainers.learning.learner import Learner
from trainers.learning.optimizer_state import without_compiler


def train_fold(config: Config, split: Split, context: FoldContext) -> None:
    """Trains, validates, saves and predicts one fold; called on every rank.

    Raises:
        DataError: a picture that its header promised cannot be decoded and `data.on_bad_row` is `error`.
    """
    torch.set_num_threads(context.num_threads)
    seed_fold(config.training.seed, split.fold)
    _Learner(_set_up(config, split, context)).learn()


def _set_up(config: Config, split: Split, context: FoldContext) -> _Fold:
    tables = context.retry_while_unavailable("reading the rows", partial(read_tables, config, context.inputs))
    rows = tables["train"].rows
    position = {row_id: index for index, row_id in enumerate(rows.ids.tolist())}
    train, validation, blend = (
        np.array([position[row_id] for row_id in ids.tolist()], int)
        for ids in (split.train_ids, split.validation_ids, split.blend_ids)
    )
    learned_from = rows.take(train)
    numbers = Numbers.fit(learned_from, config)
    target = fit_target(learned_from, config.loss)
    fold_inputs = build_fold_inputs(config, tables, numbers, split, context, num_outputs=math.prod(target.shape))
    if context.world_size > 1:  # the same initial weights on every rank, other dropout
        seed_fold(config.training.seed, split.fold, context.rank)
    to_inputs = fold_inputs.to_inputs
    return _Fold(
        config=config,
        split=split,
        context=context,
        fold_inputs=fold_inputs,
        model=fold_inputs.model.to(context.device),
        numbers=numbers,
        target=target,
        train=to_inputs("train", train),
        validation=to_inputs("train", validation),
        blend=to_inputs("train", blend) if len(blend) else None,
        test=to_inputs("test", np.arange(len(tables["test"].rows))) if "test" in tables else None,
        precision=choose_precision(config.training.precision, context.device),
    )


@dataclass
class _Fold:
    """What stays the same while a fold trains: its data, its model, and how to validate, save and predict."""

    config: Config
    split: Split
    context: FoldContext
    fold_inputs: FoldInputs
    model: ClipRegressor
    numbers: Numbers
    target: Target
    train: RowTensors | RowFeatures
    validation: RowTensors | RowFeatures
    blend: RowTensors | RowFeatures | None
    test: RowTensors | RowFeatures | None
    precision: torch.dtype
    shared: dict[str, str] | None = None

    @property
    def CHOSEN_BY(self) -> str:  # noqa: N802 named as in the other families, where it is a constant
        """The MSLE, of classes the log loss."""
        return self.target.chosen_by

    def trained_state(self) -> dict[str, Tensor]:
        """All of the model but frozen encoders."""
        return self.model.trained_state()

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `trained_state` gave."""
        missing, unexpected = self.model.load_state_dict(state, strict=False)
        assert not unexpected, unexpected
        assert set(missing) == set(self.model.frozen_state()), missing

    def score(self, metrics: Mapping[str, float]) -> float:
        """What it is chosen by."""
        return metrics[self.CHOSEN_BY]

    def forward(self, model: nn.Module, batch: Batch, tensors: RowTensors | RowFeatures) -> Tensor:
        inputs = tensors.to_device(batch, self.context.device)
        with autocast(self.context.device, self.precision):
            outputs_B: Tensor = model(*inputs).float()
            return outputs_B

    @torch.inference_mode()
    def predict(self, tensors: RowTensors | RowFeatures) -> np.ndarray:
        """The outputs of all rows, (B,) or (B, C) float64, the same on every rank; each rank computes its share."""
        self.model.eval()
        rank, world_size, total = self.context.rank, self.context.world_size, len(tensors.rows)
        mine = np.arange(rank, total, world_size)
        parts = []
        for batch in tensors.batches(cut(mine, self.config.training.eval_batch_size)):
            parts.append(self.forward(self.model, batch, tensors).double().cpu().numpy())
            self.context.touch()
        outputs = np.concatenate(parts) if parts else np.zeros((0, *self.target.shape))
        if world_size == 1:
            return outputs
        gathered: list[Any] = [None] * world_size
        dist.all_gather_object(gathered, outputs)
        whole = np.empty((total, *self.target.shape))
        for source, part in enumerate(gathered):
            whole[source::world_size] = part
        return whole

    def validate(self) -> dict[str, float]:
        """Loss and errors of the validation rows, and what the predictions are like."""
        outputs, target = self.predict(self.validation), self.validation.rows.target
        share_B = torch.full((len(target),), 1 / len(target), dtype=torch.float64)
        encoded = self.target.encode(target)
        loss = self.target.find_loss(torch.from_numpy(outputs), encoded, share_B, 1.0, lambda value: value)
        weights = {f"weights/{name}": float(weight) for name, weight in self.model.modality_weights().items()}
        return {
            "val/loss_epoch": float(loss),
            **self.target.measure(outputs, target),
            **weights,
        }

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint from which predictions can be made without this project's config or open_clip's
        registry."""
        if self.shared is None:
            self.shared = self._share_encoders()
        description = {
            "family": "clip_regression",
            "fold": self.split.fold,
            "epoch": epoch,
            "metrics": {key: metrics[key] for key in ("val/loss_epoch", self.CHOSEN_BY)},
            "model_summary": {
                f"{modality}_weight": metrics[f"weights/{modality}"] for modality in ("image", "text", "age")
            },
            "architecture": self.fold_inputs.architecture,
            "preprocessing": self.fold_inputs.preprocessing,
            "shared_tensors": self.shared,
            "config": asdict(self.config),
            "numbers": asdict(self.numbers),
            **self.target.describe(),
        }
        self.context.save_checkpoint(name, self.model.trained_state(), description)

    def _share_encoders(self) -> dict[str, str]:
        if self.fold_inputs.weights is not None:
            return self.context.share_file("frozen_encoders", *self.fold_inputs.weights)
        frozen = self.model.frozen_state()
        return self.context.share_tensors("frozen_encoders", frozen) if frozen else {}

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and writes their predictions of all rows that do not train."""
        names: tuple[CheckpointName, ...] = ("best", "final")
        for name in names:
            self.load_trained_state(self.context.load_checkpoint(name))
            tables: dict[RowsName, RowTensors | RowFeatures | None] = {
                "validation": self.validation,
                "blend": self.blend,
                "test": self.test,
            }
            for rows, tensors in tables.items():
                if tensors is not None:
                    outputs, ids, target = self.predict(tensors), tensors.rows.ids, tensors.rows.target
                    mine = slice(self.context.rank, None, self.context.world_size)
                    own = self.target.predict(ids[mine], outputs[mine], target[mine])
                    self.context.save_predictions(name, rows, ids, [own])


class _Learner(Learner):
    """Batches of rows, by AdamW; with a moving average of the weights if the config asks for one."""

    fold: _Fold

    def __init__(self, fold: _Fold) -> None:
        config, model = fold.config, fold.model
        groups = _group_parameters(model, config.optimizer.weight_decay)
        adam = without_compiler(torch.optim.AdamW)(groups, lr=config.optimizer.lr, fused=True)
        super().__init__(fold, adam, len(fold.train.rows), ema_decay=config.training.ema_decay)
        self.encoded = fold.target.encode(fold.train.rows.target)

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[Batch]:
        """Rows, augmented as the epoch says."""
        fold = self.fold
        num_tokens = 0 if fold.train.tokens is None else fold.train.tokens.shape[1]
        return fold.train.batches(
            portions, Augmentation(self.config, fold.split.fold, epoch, self.num_rows, num_tokens)
        )

    def find_loss(self, batch: Batch, share_B: np.ndarray) -> Tensor:
        """Of the standardised log target, or as the config says; of classes the cross-entropy."""
        fold = self.fold
        outputs_B = fold.forward(self.parallel, batch, fold.train)
        return fold.target.find_loss(
            outputs_B,
            self.encoded[torch.from_numpy(batch.positions_B)].to(outputs_B.device),
            torch.from_numpy(share_B).to(outputs_B.device),
            self.step / self.num_steps,
            sum_over_ranks,
        )


def _group_parameters(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
