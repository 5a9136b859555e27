"""A run on object storage, on a machine that is lost in the middle of its training, and on another that goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.object_server import BUCKET, Gate, serving_objects
from support.processes import REPOSITORY, clean_environment, find_processes
from support.run_bits import describe_bits

from ray_jobs.runs.file_table import UNKNOWN, find_file
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.runs.remote.run_mirror import RunMirror

FIELDS = ("run.name=run", "folds.count=2", "data.max_rows=40", "training.epochs=8", "checkpoint.min_interval_s=0",
          "run.dashboard=false", "tracking.wandb=disabled")  # fmt: skip
STORAGE = f"run.storage=s3://{BUCKET}/experiments"
RUN = f"s3://{BUCKET}/experiments/run"


class Machine:
    """A user's machine: its own home and folder for temporary files, in which runs are worked on.

    Args:
        root: short, since Ray's sockets go below it.
        environment: how the object storage is found.
    """

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.environment = clean_environment(HOME=str(root), TMPDIR=str(root), **environment)
        self.output = root / "output"

    def start(self, *words: str, job: str = "kfold") -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, f"ray_jobs/{job}.py", *words],
                cwd=REPOSITORY, env=self.environment, stdout=output, stderr=output,
            )  # fmt: skip

    def do(self, *words: str, job: str = "kfold", returns: int = 0) -> str:
        """Runs a job to its end; what it printed."""
        begin = self.output.stat().st_size if self.output.exists() else 0
        code = self.start(*words, job=job).wait(timeout=300)
        said = self.output.read_bytes()[begin:].decode()
        assert code == returns, said
        return said

    def find_run(self) -> RunFolder:
        (config,) = self.root.glob("ray-kfold-*/*/run/config.json")
        return RunFolder(config.parent)

    def lose_disk(self) -> None:
        """Whatever was worked on here is gone; workers live a moment longer than their driver."""
        while find_processes(self.root):
            time.sleep(0.1)
        for path in self.root.glob("ray-kfold-*"):
            shutil.rmtree(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_objects() as server:
        yield server


@pytest.fixture
def machine(server):
    root = Path(tempfile.mkdtemp(prefix="s3_", dir="/tmp"))
    yield Machine(root, server.environment)
    shutil.rmtree(root, ignore_errors=True)


def await_that(is_so, machine: Machine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not is_so():
        assert process.poll() is None, machine.output.read_text()
        assert time.monotonic() < deadline, machine.output.read_text()
        time.sleep(0.05)


def test_a_lost_machine_costs_no_bit(server, machine, tmp_path, monkeypatch):
    driver = machine.start(STORAGE, *FIELDS)

    def has_point(fold: int) -> bool:
        points = {f"experiments/run/folds/{fold}/checkpoints/resume_{place}/checkpoint.json" for place in (0, 1)}
        return bool(points & set(server.list_keys("PUT")))

    await_that(lambda: has_point(0) and has_point(1), machine, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    machine.lose_disk()
    said = machine.do(STORAGE, *FIELDS)
    assert f"everything: {RUN} (" in said
    starts = [row for row in read_lines(machine.find_run().events) if row["event"] == "FoldStarted"]
    assert [row["attempt"] for row in starts] == [1, 1, 2, 2]
    assert all(row["step"] > 0 for row in starts[2:])
    run = RunFolder(tmp_path / "elsewhere")
    run.root.mkdir()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    run_mirror = RunMirror(run, RUN)
    run_mirror.pull_all()
    assert read_json(run.summary)["outcome"] == "complete"
    assert run.report.exists()
    assert [name for name in run_mirror.bucket.list() if find_file(name).file is UNKNOWN] == []
    machine.do(f"run.storage={tmp_path}", *FIELDS)
    assert describe_bits(run, 2) == describe_bits(RunFolder(tmp_path / "run"), 2)


@pytest.mark.slow
def test_an_outage_and_a_second_driver_cost_nothing(server, machine, tmp_path):
    fields = [*(field for field in FIELDS if not field.startswith(("run.name", "training"))), "training.epochs=60"]
    machine.do(f"run.storage={tmp_path}", "run.name=run", *fields)
    gate, name = Gate(server), "experiments/watched"
    machine.environment |= gate.environment
    driver = machine.start(STORAGE, "run.name=watched", *fields)
    points = {f"{name}/folds/{fold}/checkpoints/resume_0/checkpoint.json" for fold in (0, 1)}
    await_that(lambda: points <= set(server.list_keys("PUT")), machine, driver)
    second = Machine(Path(tempfile.mkdtemp(prefix="s3_", dir="/tmp")), server.environment)
    said = second.do(f"s3://{BUCKET}/{name}", job="submit", returns=2)
    assert f"another driver (process {driver.pid} on {os.uname().nodename}) works on s3://{BUCKET}/{name}" in said
    shutil.rmtree(second.root)
    with gate.shut():
        await_that(lambda: "the run's storage takes no files" in machine.output.read_text(), machine, driver)
        time.sleep(5)
    await_that(lambda: "the run's storage works again" in machine.output.read_text(), machine, driver)
    assert driver.wait(timeout=300) == 0, machine.output.read_text()
    gate.close()
    (config,) = machine.root.glob("ray-kfold-*/*/watched/config.json")
    assert describe_bits(RunFolder(config.parent), 2) == describe_bits(RunFolder(tmp_path / "run"), 2)
