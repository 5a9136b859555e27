"""The smallest trainer that uses all that a fold offers: linear regression by gradient descent, with options of its
own, that goes on to the same bits when it is killed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from trainers.own_trainer.fold import Fold


@dataclass(frozen=True)
class Options:
    """Own options of the example; with another function, of that one."""

    epochs: int = 20
    """Passes over the training rows."""
    batch_size: int = 32
    """Rows of one step."""
    lr: float = 0.1
    """Size of a step."""


@dataclass
class Line:
    """A weight for each number and an intercept, and what they are scaled by."""

    names: list[str]
    mean_F: np.ndarray
    std_F: np.ndarray
    unit: float
    weights_F: np.ndarray
    intercept: float = 0.0

    def scale(self, rows: pd.DataFrame) -> np.ndarray:
        """The rows' numbers as the line wants them, (N, F); a missing one is the mean."""
        scaled_NF: np.ndarray = (rows[self.names].to_numpy(np.float64) - self.mean_F) / self.std_F
        filled_NF: np.ndarray = np.nan_to_num(scaled_NF)
        return filled_NF

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        """(N,)."""
        z_N: np.ndarray = (self.scale(rows) * self.weights_F).sum(axis=1) + self.intercept
        return z_N * self.unit


def train_fold(fold: Fold, my: Options) -> Any:
    """Trains one fold; called by a worker of its own."""
    if fold.classes:
        return _classify(fold)
    names = [name for name in fold.features if fold.train[name].dtype.kind in "if"]
    numbers_NF, price_N = fold.train[names].to_numpy(np.float64), fold.train[fold.target].to_numpy(np.float64)
    std_F = np.nanstd(numbers_NF, axis=0)
    line = Line(
        names, np.nanmean(numbers_NF, axis=0), np.where(std_F > 0, std_F, 1), price_N.std() or 1, np.zeros(len(names))
    )
    x_NF, y_N = line.scale(fold.train), price_N / line.unit
    batches_per_epoch = -(-len(y_N) // my.batch_size)
    done, total = 0, 0.0
    # Of an attempt that was killed: where it was.
    if state := fold.load():
        line.weights_F[:], line.intercept = state["weights_F"], state["intercept"]
        done, total = state["done"], state["total"]
    for epoch in range(done // batches_per_epoch, my.epochs):
        if fold.is_time_up():
            break
        order_N = np.random.default_rng([fold.seed, epoch]).permutation(len(y_N))
        for start in range(done % batches_per_epoch * my.batch_size, len(y_N), my.batch_size):
            rows = order_N[start : start + my.batch_size]
            error_B = (x_NF[rows] * line.weights_F).sum(axis=1) + line.intercept - y_N[rows]
            line.weights_F = line.weights_F - my.lr * (error_B[:, None] * x_NF[rows]).mean(axis=0)
            line.intercept -= my.lr * float(error_B.mean())
            done, total = done + 1, total + float((error_B**2).sum())
            fold.log(loss=float((error_B**2).mean()))
            if done % batches_per_epoch:
                fold.save(_describe(line, done, total))
        miss_N = (line.predict(fold.validation) - fold.validation[fold.target]) / line.unit
        loss = float((miss_N**2).mean())
        fold.report_epoch(epoch, my.epochs, train_loss=total / len(y_N), val_loss=loss, score=loss)
        total = 0.0
        fold.save(_describe(line, done, total))
    fold.keep_model(line)
    test = None if fold.test is None else line.predict(fold.test)
    return line.predict(fold.validation), test


def _describe(line: Line, done: int, total: float) -> dict[str, Any]:
    """All that changes while it trains."""
    return {"weights_F": line.weights_F, "intercept": line.intercept, "done": done, "total": total}


def _classify(fold: Fold) -> Any:
    """Logistic regression, of a target that is no number."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = [name for name in fold.features if fold.train[name].dtype.kind in "if"]
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    return model.fit(fold.train[names], fold.train[fold.target])
