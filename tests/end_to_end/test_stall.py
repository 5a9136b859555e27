"""A fold that stands still, because the storage of a picture does not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from support.processes import REPOSITORY, clean_environment

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import read_status
from ray_jobs.runs.record import read_lines


def start_kfold(home: Path, *words: str) -> subprocess.Popen[str]:
    """The job with its own HOME, and all that it says in one stream."""
    return subprocess.Popen(
        [sys.executable, "ray_jobs/kfold.py", *words],
        cwd=REPOSITORY,
        env=clean_environment(HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_fold_that_stands_still_says_where_and_goes_on_in_another_attempt(tmp_path, small_frame, write_data):
    """Opening a pipe waits for ever. The test pictures are opened when the training is over."""
    root = write_data(small_frame, small_frame.drop(columns="views").head(5))
    picture = root / "test" / "v03.jpg"
    content = picture.read_bytes()
    folder = RunFolder(tmp_path / "ray_results" / "stalled")
    words = ("run.name=stalled", "run.stall_timeout_s=10", "run.dashboard=false", f"data.root={root}", "folds.count=2")
    words += ("training.epochs=40", "training.batch_size=4", "checkpoint.min_interval_s=0", "tracking.wandb=disabled")
    words += ("training.picture_cache_gib=0",)  # which would read all pictures before the training
    with start_kfold(tmp_path, *words) as driver:
        while all(len(read_lines(folder.fold_record(fold))) < 5 for fold in range(2)):
            assert driver.poll() is None
            time.sleep(0.05)
        picture.unlink()  # after the driver has checked the data
        os.mkfifo(picture)
        while not (stacks := list(folder.log.glob("fold_*/stacks_attempt1_rank0.txt"))):
            assert driver.poll() is None
            time.sleep(0.05)
        picture.unlink()
        picture.write_bytes(content)
        output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert f"made no progress for 10 s; where it stood: {stacks[0]}; it goes on in another attempt" in output
    assert "trainers/clip_regression/inputs/data.py" in stacks[0].read_text()
    again = [row for row in read_lines(folder.events) if row["event"] == "FoldStarted" and row["attempt"] == 2]
    assert again
    assert all(row["step"] == 120 for row in again)  # nothing was trained twice
    assert len(pd.read_csv(folder.submission("mean"))) == 5


@pytest.mark.slow
def test_a_process_that_is_stopped_is_killed_and_its_fold_goes_on(tmp_path):
    """Its own watchdog is stopped with it."""
    folder = RunFolder(tmp_path / "ray_results" / "frozen")
    words = ("run.name=frozen", "run.stall_timeout_s=20", "run.dashboard=false", "folds.count=2", "data.max_rows=120")
    words += ("training.epochs=12", "checkpoint.min_interval_s=0", "tracking.wandb=disabled")
    with start_kfold(tmp_path, *words) as driver:
        while len(read_lines(folder.fold_record(0))) < 5:
            assert driver.poll() is None
            time.sleep(0.05)
        os.kill(read_status(folder, 0).pid, signal.SIGSTOP)
        output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    assert "fold 0: its process or node died (killed, out of memory, or lost); it goes on in another attempt" in output
    steps = [row["global_step"] for row in read_lines(folder.fold_record(0)) if "fold_0/train/loss_step" in row]
    assert steps == list(range(1, len(steps) + 1))
