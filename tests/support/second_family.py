"""The family of tests/support/ridge as one more of the project: in this process, or in a copy of the project."""

from __future__ import annotations

import shutil
from pathlib import Path

import trainers
from ray_jobs.config.recipes import RECIPES, _collect
from support.processes import REPOSITORY

SUPPORT = Path(__file__).parent


def add_family(monkeypatch) -> None:
    """Makes it known to this process, for a test."""
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(SUPPORT)])
    monkeypatch.setitem(RECIPES, "ridge", _collect(["ridge"])[0]["ridge"])


def copy_project(root: Path) -> Path:
    """A copy of the project with one family more; its folder."""
    for name in ("ray_jobs", "ensemble", "trainers"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SUPPORT / "ridge", root / "trainers" / "ridge")
    return root
