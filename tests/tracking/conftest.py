"""A run's folder with records, and a W&B server that can be told to fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from wandb_server import StandInServer

from ray_jobs.config import RunConfig, TrackingConfig, to_dict
from ray_jobs.recipes import clip_multimodal_small
from ray_jobs.run_folder import RunFolder, read_json, write_json
from ray_jobs.tracking.record import MetricRecord


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
        recipe = clip_multimodal_small()
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


def find_cores(folder: RunFolder) -> list[int]:
    """Process ids of the wandb-core processes that the run's publisher has noted."""
    noted = read_json(folder.wandb / "publisher.json", default={})
    return [int(process) for of_node in noted.values() for process in of_node]


def fill(path: Path, fold: int, num_rows: int, keep: int = 0) -> None:
    """Writes rows as a trainer with these steps would, the same values each time."""
    record = MetricRecord(path, keep=keep)
    for step in range(keep, num_rows):
        record.log(step, {f"fold_{fold}/train/loss_step": step / 7, f"fold_{fold}/learning_rate": 1e-3})
    record.close()
