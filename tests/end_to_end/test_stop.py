"""A run that is asked to stop on a W&B page, with `tracking.on_stop=stop`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.processes import REPOSITORY, clean_environment
from support.wandb_server import StandInServer

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.tracking.wandb_runs import list_wandb_runs


@pytest.mark.slow
def test_stop_in_wandb_ends_the_folds_after_the_epoch_that_is_under_way(tmp_path):
    words = (
        "run.name=stopped",
        "run.dashboard=false",
        "training.epochs=400",
        "tracking.on_stop=stop",
        "data.max_rows=120",
    )
    folder = RunFolder(tmp_path / "ray_results" / "stopped")
    with StandInServer() as server:
        with subprocess.Popen(
            [sys.executable, "ray_jobs/kfold.py", *words],
            cwd=REPOSITORY,
            env=clean_environment(HOME=str(tmp_path), WANDB_BASE_URL=server.url, WANDB_API_KEY="0" * 40),
            stdout=subprocess.PIPE,
            text=True,
        ) as driver:
            for line in driver.stdout:
                if "training: epoch 3/" in line:
                    server.stop_run(list_wandb_runs(folder, folder.read_config())[1].id)
                    break
            output, _ = driver.communicate(timeout=200)
        assert driver.returncode == 130, output
        assert '"Stop" was pressed in W&B on stopped_fold1: the folds end after the epochs' in output
        assert "the run was asked to stop; the same command continues it" in output
        summary = json.loads(folder.summary.read_text())
        assert summary["outcome"] == "interrupted"
        assert [fold["state"] for fold in summary["folds"]] == ["interrupted"] * 3
        for fold in range(3):
            rows = read_lines(folder.fold_record(fold))
            last = rows[-1]
            assert f"fold_{fold}/epoch" in last  # nothing was cut off in the middle of an epoch
            assert last[f"fold_{fold}/epoch"] < 399
            run = list_wandb_runs(folder, folder.read_config())[fold]
            assert server.runs[run.id].steps() == [row["step"] for row in rows]
