"""A fold of a user's own trainer without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from support.local_context import LocalFoldContext
from trainers.own_trainer.fold import Fold


def make_fold(context: LocalFoldContext, config=None) -> Fold:
    """40 rows that train, 8 that validate and 4 to predict: y is x."""
    x_N = np.random.default_rng(0).normal(size=52).astype(np.float32)
    frame = pd.DataFrame({"x": x_N, "y": x_N})
    rows = {
        "train": frame[:40], "validation": frame[40:48].reset_index(drop=True), "test": frame[48:][["x"]], "blend": None,
    }  # fmt: skip
    return Fold(
        context, rows, number=0, num_folds=2, target="y", classes=(), features=["x"], seed=7, config=config,
        data_folder=Path(),
    )  # fmt: skip
