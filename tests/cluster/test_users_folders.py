"""A job whose files hold packages with the names of the project's: they come first on the path of the driver and of
every worker."""

from __future__ import annotations

import json
import subprocess

import pytest
from support.processes import RAY, REPOSITORY


@pytest.mark.slow
def test_a_submitted_folder_with_trainers_and_ensemble_of_its_own_trains(cluster, tmp_path):
    for name in ("trainers", "ensemble"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text("raise ImportError('of the user')\n")
    # As if the project were installed: behind the job's files.
    where = json.dumps({"env_vars": {"PYTHONPATH": str(REPOSITORY)}})
    words = ("run.name=own", "data.max_rows=60", "folds.count=2", "training.epochs=1", "tracking.wandb=disabled")
    done = subprocess.run(
        [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--runtime-env-json", where,
         "--", "python", "-m", "ray_jobs", "run", f"run.storage={tmp_path / 'runs'}", *words],
        cwd=tmp_path / "work", env=cluster.environment, text=True, capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "runs/own/summary.json").read_text())["outcome"] == "complete"
