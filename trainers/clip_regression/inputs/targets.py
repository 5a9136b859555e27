"""What a model's outputs stand for: a number, or the logits of classes. The loss, the metrics of validation rows, and
predictions.

Shape suffixes: B rows of a batch, N rows, C classes; outputs are (B,) or (B, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainers.clip_regression.config import LossConfig
from trainers.clip_regression.network.loss import batch_loss
from trainers.clip_regression.rows.table import Rows
from trainers.predictions import ClassPredictions, Predictions


@dataclass(frozen=True)
class TargetStatistics:
    """Mean and standard deviation of log1p(target) over the fold's training rows."""

    mu: float
    sigma: float

    @staticmethod
    def fit(target: np.ndarray) -> TargetStatistics:
        """From the training rows' targets, (n,). A constant target gets sigma 1."""
        logs = np.log1p(np.asarray(target, np.float64))
        return TargetStatistics(float(logs.mean()), float(logs.std()) or 1.0)

    def standardise(self, target: np.ndarray) -> np.ndarray:
        """z of targets."""
        return (np.log1p(np.asarray(target, np.float64)) - self.mu) / self.sigma

    def restore(self, z: np.ndarray) -> np.ndarray:
        """Targets of z, clipped at 0. Beyond exp(700) float64 ends; no prediction is let there."""
        return np.maximum(np.expm1(np.minimum(np.asarray(z, np.float64) * self.sigma + self.mu, 700.0)), 0.0)


class Target(Protocol):
    """What is learned.

    Attributes:
        chosen_by: the metric by which the best epoch is chosen; lower is better.
        shape: of the outputs of a row.
    """

    chosen_by: ClassVar[str]

    @property
    def shape(self) -> tuple[int, ...]: ...
    def encode(self, target_N: np.ndarray) -> Tensor:
        """The targets of rows as the loss wants them."""

    def find_loss(
        self,
        outputs_B: Tensor,
        encoded_B: Tensor,
        share_B: Tensor,
        progress: float,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """This rank's part of the loss of the whole batch; arguments as in `loss.batch_loss`."""

    def measure(self, outputs_N: np.ndarray, target_N: np.ndarray) -> dict[str, float]:
        """The metrics of validation rows but for the loss."""

    def restore(self, outputs_N: np.ndarray) -> np.ndarray:
        """What is predicted: numbers in the target's unit, (N,), or probabilities, (N, C)."""

    def predict(self, ids_N: np.ndarray, outputs_N: np.ndarray, target_N: np.ndarray) -> Predictions | ClassPredictions:
        """What is saved of rows."""

    def describe(self) -> dict[str, Any]:
        """For a checkpoint: what `read_target` reads."""


def fit_target(rows: Rows, loss: LossConfig) -> Target:
    """From the training rows."""
    return ClassTarget(rows.classes) if rows.classes else NumberTarget(TargetStatistics.fit(rows.target), loss)


def read_target(description: Mapping[str, Any]) -> Target:
    """Of a checkpoint."""
    if classes := description.get("classes"):
        return ClassTarget(tuple(classes))
    return NumberTarget(TargetStatistics(**description["target_statistics"]), LossConfig())


@dataclass(frozen=True)
class NumberTarget:
    """The standardised log target, by its mean and standard deviation among the training rows."""

    chosen_by: ClassVar[str] = "val/msle"
    shape: ClassVar[tuple[int, ...]] = ()

    statistics: TargetStatistics
    loss: LossConfig

    def encode(self, target_N: np.ndarray) -> Tensor:
        """z, float64."""
        return torch.from_numpy(self.statistics.standardise(target_N))

    def find_loss(
        self,
        outputs_B: Tensor,
        encoded_B: Tensor,
        share_B: Tensor,
        progress: float,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """By the `loss` section."""
        return batch_loss(
            self.loss,
            outputs_B,
            encoded_B.to(outputs_B.dtype),
            mu=self.statistics.mu,
            sigma=self.statistics.sigma,
            progress=progress,
            share_B=share_B,
            sum_over_ranks=sum_over_ranks,
        )

    def measure(self, outputs_N: np.ndarray, target_N: np.ndarray) -> dict[str, float]:
        """Errors on the target's scale, and what the predictions are like."""
        prediction_N = self.restore(outputs_N)
        return {
            **score_on_target_scale(target_N, prediction_N),
            "predictions/mean": float(prediction_N.mean()),
            "predictions/std": float(prediction_N.std()),
            "targets/mean": float(target_N.mean()),
            "targets/std": float(target_N.std()),
        }

    def restore(self, outputs_N: np.ndarray) -> np.ndarray:
        """In the target's unit."""
        return self.statistics.restore(outputs_N)

    def predict(self, ids_N: np.ndarray, outputs_N: np.ndarray, target_N: np.ndarray) -> Predictions:
        """Numbers."""
        return Predictions(ids_N, self.restore(outputs_N), outputs_N, target_N)

    def describe(self) -> dict[str, Any]:
        """The statistics."""
        return {"target_statistics": asdict(self.statistics)}


@dataclass(frozen=True)
class ClassTarget:
    """Classes by their names; a target is a class's number, NaN where unknown."""

    chosen_by: ClassVar[str] = "val/log_loss"

    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """A logit of each class."""
        return (len(self.classes),)

    def encode(self, target_N: np.ndarray) -> Tensor:
        """Numbers of classes, int64."""
        return torch.from_numpy(np.asarray(target_N).astype(np.int64))

    def find_loss(
        self,
        outputs_B: Tensor,
        encoded_B: Tensor,
        share_B: Tensor,
        progress: float,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The cross-entropy."""
        return (share_B * cross_entropy(outputs_B, encoded_B, reduction="none")).sum()

    def measure(self, outputs_N: np.ndarray, target_N: np.ndarray) -> dict[str, float]:
        """Log loss, the share that is right, and how sure the model is on average."""
        outputs, encoded = torch.from_numpy(outputs_N), self.encode(target_N)
        sure_N, said_N = outputs.softmax(1).max(1)
        return {
            "val/log_loss": float(cross_entropy(outputs, encoded)),
            "val/accuracy": float((said_N == encoded).double().mean()),
            "predictions/confidence": float(sure_N.mean()),
        }

    def restore(self, outputs_N: np.ndarray) -> np.ndarray:
        """Probabilities, (N, C) float64."""
        probability_NC: np.ndarray = torch.from_numpy(outputs_N).double().softmax(1).numpy()
        return probability_NC

    def predict(self, ids_N: np.ndarray, outputs_N: np.ndarray, target_N: np.ndarray) -> ClassPredictions:
        """Probabilities."""
        number_N = np.where(np.isnan(target_N), -1, target_N).astype(np.int64)
        return ClassPredictions(ids_N, self.restore(outputs_N), number_N, self.classes)

    def describe(self) -> dict[str, Any]:
        """Their names."""
        return {"classes": list(self.classes)}


def score_on_target_scale(target: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """MSLE, MAE, MSE and RMSE of predictions in the target's unit (scikit-learn's definitions)."""
    error = prediction - target
    log_error = np.log1p(prediction) - np.log1p(target)
    mse = float(np.mean(error**2))
    return {
        "val/msle": float(np.mean(log_error**2)),
        "val/mae": float(np.mean(np.abs(error))),
        "val/mse": mse,
        "val/rmse": math.sqrt(mse),
    }
