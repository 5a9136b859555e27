"""Decides what runs where. The only package that imports ray, wandb and tyro.

For scripts: `from ray_jobs import cross_validate`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_jobs.api.cross_validate import cross_validate as cross_validate
    from ray_jobs.api.estimators import KFoldClassifier as KFoldClassifier
    from ray_jobs.api.estimators import KFoldRegressor as KFoldRegressor
    from ray_jobs.api.ray_train import get_fold as get_fold
    from ray_jobs.api.ray_train import save_predictions as save_predictions
    from ray_jobs.api.run import Run as Run

_OFFERED = {  # name: module of ray_jobs/api
    "cross_validate": "cross_validate",
    "Run": "run",
    "get_fold": "ray_train",
    "save_predictions": "ray_train",
    "KFoldRegressor": "estimators",
    "KFoldClassifier": "estimators",
}


def __getattr__(name: str) -> Any:
    """What scripts use, loaded when it is first asked for: every command imports this package."""
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api.{_OFFERED[name]}"), name)
