"""A run folder that was written by an earlier layout of this project's code, and killed there
(`data/killed_run.tar.gz`).

It was made by the words below at commit e84332c: first fold 0 alone, then all folds, with SIGKILL to the driver while
fold 1 trained. Without its pictures, logs, figures and report, which nothing reads again."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from support.processes import REPOSITORY, clean_environment

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

KEPT = Path(__file__).with_name("data") / "killed_run.tar.gz"
WORDS = (
    "run.name=before", "data.max_rows=40", "data.train_pictures=", "data.test_pictures=", "data.text_columns=[]",
    "folds.count=2",
    "training.epochs=30", "training.batch_size=4", "model.hidden_dim=8", "run.dashboard=false",
    "tracking.wandb=disabled",
    "checkpoint.every_steps=1", "tracking.log_interval=1",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_of_earlier_code_goes_on_where_it_was_killed(tmp_path):
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    run = RunFolder(tmp_path / "before")
    finished = {path: path.read_bytes() for path in run.fold(0).root.glob("*/*/*.safetensors")}
    saved = [
        json.loads(path.read_text())["description"]["global_step"]
        for path in run.root.glob("folds/1/*/resume_*/*.json")
    ]
    done = subprocess.run(
        [sys.executable, "ray_jobs/kfold.py", f"run.storage={tmp_path}", *WORDS],
        cwd=REPOSITORY, env=clean_environment(HOME=str(tmp_path)), text=True, capture_output=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training fold 1\n" in done.stdout
    (start,) = [row for row in read_lines(run.events) if row["event"] == "FoldStarted" and row["attempt"] == 2]
    assert (start["fold"], start["step"]) == (1, max(saved))
    assert {path: path.read_bytes() for path in finished} == finished
    steps = [row["global_step"] for row in read_lines(run.fold_record(1)) if "fold_1/train/loss_step" in row]
    assert steps == list(range(1, 151))
    assert json.loads(run.summary.read_text())["outcome"] == "complete"
    rows = pd.read_csv(run.root / "made_data" / "test.csv")
    assert pd.read_csv(run.submission("mean"))["ID"].tolist() == rows["id"].tolist()
