"""A run whose storage is full, read-only and away in turn, whose driver is killed and whose files are damaged: it ends
with the bits of a run that was left alone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.private_storage import private_storage
from support.run_bits import describe_bits

from ray_jobs.runs.checkpoints import open_checkpoint
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

FOLDS = range(3)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    with private_storage(tmp_path_factory.mktemp("home") / "storage", "600m") as storage:
        yield storage


def start(storage, output: Path) -> int:
    return storage.start(
        output, sys.executable, "ray_jobs/kfold.py", "run.name=run", f"run.storage={storage.path}", "data.max_rows=60",
        "training.epochs=60", "checkpoint.min_interval_s=0", "run.dashboard=false", "tracking.wandb=disabled",
    )  # fmt: skip


def await_that(what: str, is_so: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + 180
    while not is_so():
        said = output.read_text()
        assert "Traceback" not in said, said
        assert time.monotonic() < deadline, f"{what}\n{said}"
        time.sleep(0.05)


def num_rows(run: RunFolder) -> list[int]:
    return [len(read_lines(run.fold_record(fold))) for fold in FOLDS]


def num_epochs(run: RunFolder) -> list[int]:
    """Epochs that each fold has recorded."""
    return [sum(f"fold_{fold}/score" in row for row in read_lines(run.fold_record(fold))) for fold in FOLDS]


def list_points(run: RunFolder) -> list[Path]:
    """The tensors of fold 0's resume points."""
    return list(run.fold(0).root.glob("checkpoints/resume_*/model-*.safetensors"))


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_outages_a_kill_and_torn_files_cost_no_bit(storage, tmp_path):
    run, output = RunFolder(storage.inside / "run"), tmp_path / "first"
    driver = start(storage, output)
    await_that("the folds train", lambda: min(num_rows(run)) > 0, output)
    for number, outage in enumerate((storage.full, storage.read_only, storage.away), start=1):
        with outage():
            await_that("the outage is said", lambda n=number: output.read_text().count("takes no files") == n, output)
            time.sleep(2)
        await_that("its end is said", lambda n=number: output.read_text().count("works again") == n, output)
        epochs = sum(num_epochs(run))
        await_that("the folds go on", lambda n=epochs: sum(num_epochs(run)) > n, output)
    await_that("each fold has a point to go on from", lambda: min(num_epochs(run)) > 2, output)
    await_that("one has two", lambda: len(list_points(run)) == 2, output)  # they are at least 2 s apart
    os.kill(driver, signal.SIGKILL)
    assert storage.wait(driver, 10) == 128 + signal.SIGKILL
    logs = "".join(path.read_text() for path in run.log.rglob("training_*.log"))
    for word in ("No space left on device", "Read-only file system", "folder is gone", "works again after"):
        assert word in logs
    time.sleep(3)  # whatever outlives the driver

    attempts = [row["attempt"] for row in read_lines(run.events) if row["event"] == "FoldStarted"]
    assert attempts == [1, 1, 1]  # waiting was enough
    run.fold(0).status.write_bytes(run.fold(0).status.read_bytes()[:40])
    flip_bit(run.fold_plan)
    points = list_points(run)
    assert len(points) == 2
    flip_bit(max(points, key=lambda path: path.stat().st_mtime))
    best = run.fold(1).checkpoint("best")
    flip_bit(best / open_checkpoint(best).tensors.name)  # an older one may still lie beside it
    (run.fold(2).root / ".half.tmp").write_bytes(b"half")
    output = tmp_path / "second"
    assert storage.wait(start(storage, output), 300) == 0, output.read_text()
    said = output.read_text()
    assert "status.json is damaged: it is made anew" in said
    assert "fold_plan.parquet is damaged: it is written anew" in said
    steps = {row["fold"]: row["step"] for row in read_lines(run.events) if row["event"] == "FoldStarted"}
    assert steps[0] > 0
    assert steps[1] == 0
    assert steps[2] > 0
    assert "a resume point of fold 0 is damaged, the one before counts" in run.newest_fold_log(0).read_text()
    assert "fold 1 starts over" in run.newest_fold_log(1).read_text()
    assert not list(run.root.rglob("*.tmp"))
    assert not list(run.root.rglob("resume_*"))
    assert not run.train_scratch.exists()


@pytest.mark.slow
def test_damaged_folds_are_refused_by_submit_and_trained_again_with_the_same_bits(storage, tmp_path):
    run = RunFolder(storage.inside / "run")
    disturbed = describe_bits(run)
    flip_bit(next(run.fold(0).checkpoint("best").glob("*.safetensors")))
    flip_bit(run.fold(1).predictions("test", "best"))
    run.fold(2).manifest.write_bytes(run.fold(2).manifest.read_bytes()[:-5])
    output = tmp_path / "submit"
    submit = storage.start(output, sys.executable, "ray_jobs/submit.py", str(storage.path / "run"))
    assert storage.wait(submit, 60) == 2
    assert "test_best.parquet is missing or damaged; `python ray_jobs/kfold.py run.name=run" in output.read_text()
    output = tmp_path / "third"
    assert storage.wait(start(storage, output), 300) == 0, output.read_text()
    said = output.read_text()
    for fold, name in enumerate(("best/model-", "test_best.parquet", "manifest.json")):
        (line,) = [line for line in said.splitlines() if f"fold {fold} has to be trained again" in line]
        assert name in line
    assert [fold["attempts"] for fold in json.loads(run.summary.read_text())["folds"]] == [3, 3, 3]
    assert describe_bits(run) == disturbed
