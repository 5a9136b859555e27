"""A run that is killed again and again, in every way, ends with the bits of a run that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import REPOSITORY, clean_environment

from ray_jobs.run_folder import RunFolder
from ray_jobs.tracking.record import read_lines

WORDS = ("training.epochs=6", "checkpoint.every_steps=3", "run.dashboard=false", "tracking.wandb=disabled")
TIMINGS = ("time", "train/epoch_time", "train/samples_per_second")


def start(home: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "ray_jobs/kfold.py", f"run.name={name}", *WORDS],
        cwd=REPOSITORY,
        env=clean_environment(HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def left_alone(home):
    """The run that nothing happens to."""
    driver = start(home, "alone")
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    return RunFolder(home / "ray_results" / "alone")


def assert_same_bits(run: RunFolder, expected: RunFolder) -> None:
    assert run.submission("mean").read_bytes() == expected.submission("mean").read_bytes()
    for fold in range(3):
        for name in ("best", "final"):
            of_runs = [folder.fold(fold).checkpoint(name) for folder in (run, expected)]
            names = [sorted(path.name for path in folder.iterdir()) for folder in of_runs]
            assert names[0] == names[1]  # the tensors' file name holds their checksum
        rows = [
            [
                {name: value for name, value in row.items() if not name.endswith(TIMINGS)}
                for row in read_lines(folder.fold_record(fold))
            ]
            for folder in (run, expected)
        ]
        assert rows[0] == rows[1]
        assert not list(run.fold(fold).root.glob("checkpoints/resume_*"))


def await_training(run: RunFolder, driver: subprocess.Popen[str], attempt: int, num_rows: int = 1) -> None:
    """Waits until every fold has written rows in this attempt."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert driver.poll() is None, driver.communicate()
        started = {
            row["fold"]: row["time"]
            for row in read_lines(run.events)
            if row["event"] == "FoldStarted" and row["attempt"] == attempt
        }
        new = [sum(row["time"] > at for row in read_lines(run.fold_record(fold))) for fold, at in started.items()]
        if len(new) == 3 and min(new) >= num_rows:
            return
        time.sleep(0.1)
    raise AssertionError("the folds do not train")


def started_steps(run: RunFolder) -> list[int]:
    """The optimiser step at which each later attempt began."""
    return [row["step"] for row in read_lines(run.events) if row["event"] == "FoldStarted" and row["attempt"] > 1]


def find_workers() -> list[int]:
    """Process ids of Ray Train's workers on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::RayTrainWorker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_killed_drivers_and_an_interrupt_change_no_bit(home, left_alone):
    run, moments = RunFolder(home / "ray_results" / "killed"), random.Random(3)
    for attempt, how in enumerate((signal.SIGKILL, signal.SIGTERM), start=1):
        driver = start(home, "killed")
        await_training(run, driver, attempt)
        time.sleep(moments.uniform(0.5, 2))
        driver.send_signal(how)
        output, _ = driver.communicate(timeout=60)
        if how == signal.SIGTERM:
            assert driver.returncode == 130, output
            assert "every fold goes on from its last checkpoint. The same command continues run killed" in output
            assert not run.summary.exists()
            statuses = [json.loads(run.fold(fold).status.read_text()) for fold in range(3)]
            assert {status["state"] for status in statuses} <= {"interrupted", "completed"}
    driver = start(home, "killed")
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    steps = started_steps(run)
    assert sum(step > 0 for step in steps) >= 3  # they did go on, and did not begin anew
    assert_same_bits(run, left_alone)


def test_a_killed_worker_is_replaced_within_the_run_and_changes_no_bit(home, left_alone):
    run = RunFolder(home / "ray_results" / "worker")
    driver = start(home, "worker")
    await_training(run, driver, 1, num_rows=15)
    for worker in find_workers()[:2]:
        os.kill(worker, signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert "its process or node died" in output
    assert len(started_steps(run)) >= 1
    assert_same_bits(run, left_alone)
