"""Decides what runs where. The only package that imports ray, wandb and tyro.

For scripts: `from ray_jobs import cross_validate`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_jobs.api.cross_validate import cross_validate as cross_validate
    from ray_jobs.api.estimators import KFoldClassifier as KFoldClassifier
    from ray_jobs.api.estimators import KFoldRegressor as KFoldRegressor
    from ray_jobs.api.ray_train import get_fold as get_fold
    from ray_jobs.api.ray_train import save_predictions as save_predictions
    from ray_jobs.api.run import Run as Run

_ROOT = str(Path(__file__).resolve().parents[1])
# By its name, the module of `ray_jobs/api/` that holds it.
_OFFERED = {
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
    return getattr(import_module(f"{__name__}.api.{_OFFERED[name]}"), name)


def _take_own(name: str) -> None:
    """Imports the package of that name that lies beside this one, whatever folder of that name comes first on the
    path: in the working directory, beside a user's script, in a job's files.

    Raises:
        ImportError: another one was imported before.
    """
    sys.path.insert(0, _ROOT)
    try:
        module = import_module(name)
    finally:
        sys.path.remove(_ROOT)
    found = getattr(module, "__file__", None) or next(iter(module.__path__))
    if Path(found).resolve() != Path(_ROOT, name, "__init__.py"):
        raise ImportError(
            f"`import {name}` found {found} before ray_jobs was imported, which brings a package {name} of its own: "
            f"rename yours, or import ray_jobs first and do not import yours"
        )


for _name in ("trainers", "ensemble"):
    _take_own(_name)
