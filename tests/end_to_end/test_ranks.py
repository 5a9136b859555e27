"""A fold that two workers train together, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.processes import REPOSITORY, clean_environment
from support.run_bits import describe_bits

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines

WORDS = (
    "run.name=pair", "run.dashboard=false", "tracking.wandb=disabled", "folds.count=2", "data.max_rows=80",
    "training.epochs=20",
    "resources.workers_per_fold=2", "resources.cpus_per_fold=2", "resources.max_folds_at_once=1",
    "checkpoint.min_interval_s=0",
)  # fmt: skip


def start(home: Path) -> subprocess.Popen[bytes]:
    with (home / "driver.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "ray_jobs/kfold.py", *WORDS], cwd=REPOSITORY, env=clean_environment(HOME=str(home)),
            stdout=output, stderr=output,
        )  # fmt: skip


def find_workers(home: Path) -> list[int]:
    """Ids of the processes that train a fold of the run with this HOME."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_worker = (path / "cmdline").read_bytes().startswith(b"ray::RayTrainWorker")
            if is_worker and f"HOME={home}\0".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return sorted(found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    home = tmp_path_factory.mktemp("undisturbed")
    assert start(home).wait(300) == 0, (home / "driver.log").read_text()
    return describe_bits(RunFolder(home / "ray_results" / "pair"), 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_fold_goes_on_with_the_same_bits_when_one_of_its_workers_is_killed(undisturbed, tmp_path, number):
    run, driver = RunFolder(tmp_path / "ray_results" / "pair"), start(tmp_path)
    try:
        deadline = time.monotonic() + 120
        while count_lines(run.fold_record(0)) < 40:
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(find_workers(tmp_path)[number], signal.SIGKILL)
        assert driver.wait(300) == 0, (tmp_path / "driver.log").read_text()
    finally:
        driver.terminate()
        driver.wait(60)
    starts = [
        (row["fold"], row["attempt"], row["step"] > 0)
        for row in read_lines(run.events)
        if row["event"] == "FoldStarted"
    ]
    assert starts == [(0, 1, False), (0, 2, True), (1, 1, False)]
    assert describe_bits(run, 2) == undisturbed
