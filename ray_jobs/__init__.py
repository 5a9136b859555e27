"""Decides what runs where. The only package that imports ray, wandb and tyro."""

import sys
from importlib import import_module
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])


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
