"""A run's folder with records, and a W&B server that can be told to fail."""

from __future__ import annotations

import dataclasses

import pytest
from support.publishing import fill
from support.wandb_server import StandInServer

from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import RunConfig, TrackingConfig, to_dict
from ray_jobs.runs.files import write_json
from ray_jobs.runs.folder import RunFolder


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A stand-in W&B server that the environment points to."""
    with StandInServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        yield server


@pytest.fixture
def make_run(tmp_path):
    """A function that makes a run's folder with the given tracking config and rows in the records."""

    def make(num_rows: int = 0, **tracking: object) -> tuple[RunFolder, RunConfig]:
        folder = RunFolder(tmp_path / "runs" / "exp")
        recipe = RECIPES["clip_multimodal_small"]()
        config = dataclasses.replace(
            recipe,
            run=dataclasses.replace(recipe.run, name="exp", storage=str(tmp_path / "runs")),
            folds=dataclasses.replace(recipe.folds, count=2),
            tracking=TrackingConfig(**tracking),
        )
        write_json(folder.config, to_dict(config))
        if num_rows:
            for fold in range(2):
                fill(folder.fold_record(fold), fold, num_rows)
        return folder, config

    return make
