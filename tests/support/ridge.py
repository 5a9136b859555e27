"""A user's own trainer: ridge regression of log1p of the target on the digits of the date and the length of the title."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np


@dataclass
class My:
    strength: float = 1.0
    """Of the ridge."""
    pause_s: float = 0.0
    """Before the last step."""


def train_fold(fold, my: My):
    def find_numbers(rows):
        columns = [rows["date"].str.replace("-", "").astype(float) / 1e7, rows["title"].str.len() / 10]
        return np.column_stack([*columns, np.ones(len(rows))])

    x, z = find_numbers(fold.train), np.log1p(fold.train[fold.target].to_numpy())
    weights = np.linalg.solve(x.T @ x + my.strength * np.eye(3), x.T @ z)
    time.sleep(my.pause_s)

    def predict(rows):
        return np.expm1((find_numbers(rows) * weights).sum(axis=1)).clip(0)

    fold.keep_model(predict)
    return predict(fold.validation), None if fold.test is None else predict(fold.test)
