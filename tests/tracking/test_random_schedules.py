"""Random schedules of kills and server faults: in the end the server holds one row for every step, with its values."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time

import pytest
from support.processes import REPOSITORY, kill
from support.publishing import find_cores

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines
from ray_jobs.tracking.wandb_runs import list_wandb_runs
from ray_jobs.tracking.wandb_sink import PUBLISHER, WandbSink
from ray_jobs.wandb_sync import upload

SECONDS, NUM_ROWS = 4.0, 200
# A fold in training: rows at a steady rate, a checkpoint every 20 rows, the same values in every attempt.
FOLD = """
import sys, time
from pathlib import Path
from ray_jobs.runs.record import MetricRecord
path, fold, keep, num_rows = Path(sys.argv[1]), *map(int, sys.argv[2:])
record = MetricRecord(path, keep=keep)
for step in range(keep, num_rows):
    record.log(step, {f"fold_{fold}/train/loss_step": (fold + 1) * step / 7, f"fold_{fold}/text": "x" * (step % 50)})
    if step % 20 == 19:
        record.sync()
    time.sleep(0.012)
record.close()
"""


class Folds:
    """Two folds in training; `kill` kills one and starts it again at its last checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.processes = [self.start(fold, 0) for fold in (0, 1)]

    def start(self, fold: int, keep: int) -> subprocess.Popen:
        words = [str(self.folder.fold_record(fold)), str(fold), str(keep), str(NUM_ROWS)]
        return subprocess.Popen([sys.executable, "-c", FOLD, *words], cwd=REPOSITORY)

    def kill(self, fold: int) -> None:
        self.processes[fold].kill()
        self.processes[fold].wait()
        keep = count_lines(self.folder.fold_record(fold)) // 20 * 20
        self.processes[fold] = self.start(fold, keep)

    def wait(self) -> None:
        for process in self.processes:
            assert process.wait(60) == 0


def kill_publisher(sink: WandbSink) -> None:
    if sink.child is not None:
        sink.child.kill()


def kill_core(folder: RunFolder) -> None:
    kill(find_cores(folder))


def await_rows(server, folder, config, timeout_s: float) -> None:
    """Waits until the server holds every row, with nobody's help but the sink's."""
    ids = [run.id for run in list_wandb_runs(folder, config)[:2]]
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if all(run_id in server.runs and len(server.runs[run_id].steps()) == NUM_ROWS for run_id in ids):
            return
        time.sleep(0.5)
    raise AssertionError("the sink did not find its way back")


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
def test_a_random_schedule_of_kills_and_server_faults_ends_with_one_row_for_every_step(
    seed, server, make_run, monkeypatch
):
    """After every fifth schedule the sink has to bring everything by itself, after the others wandb_sync.py has to."""
    monkeypatch.setattr("ray_jobs.tracking.wandb_sink.RETRY_ONLINE_S", 2.0)
    monkeypatch.setattr("ray_jobs.tracking.wandb_sink.PUBLISHER", [*PUBLISHER, "--check-s=2"])
    moments, done = random.Random(seed), []
    folder, config = make_run()
    folds = Folds(folder)
    sink = WandbSink(folder, config, done.append)
    sink.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(moments.uniform(0.2, 1.0))
        what = moments.choice(
            ["fold 0", "fold 1", "publisher", "core", "driver", "500", "429", "401", "404", "hang", "dead"]
        )
        done.append(what)
        if what.startswith("fold"):
            folds.kill(int(what[-1]))
        elif what == "publisher":
            kill_publisher(sink)
        elif what == "core":
            kill_core(folder)
        elif what == "driver":  # and a new one at once
            sink.kill()
            sink = WandbSink(folder, config, done.append)
            sink.start()
        elif what == "dead":
            server.die()
            threading.Timer(moments.uniform(0.5, 2), server.start).run()
        else:
            server.fault = what
            time.sleep(moments.uniform(0.5, 2))
            server.fault = moments.choice([None, what])
    folds.wait()
    if seed % 5 == 0:
        server.fault = None
        await_rows(server, folder, config, 90)
    began = time.monotonic()
    sink.finish(moments.choice([0.5, 3.0]))
    assert time.monotonic() - began < 8
    server.fault = None

    assert upload(folder, config, 60, new_ids=False) == 0, done
    for fold in (0, 1):
        run = server.runs[list_wandb_runs(folder, config)[fold].id]
        rows = read_lines(folder.fold_record(fold))
        assert run.steps() == list(range(NUM_ROWS)), done
        name = f"fold_{fold}/train/loss_step"
        assert (
            [row[name] for row in run.rows()]
            == [row[name] for row in rows]
            == [(fold + 1) * s / 7 for s in range(NUM_ROWS)]
        )
