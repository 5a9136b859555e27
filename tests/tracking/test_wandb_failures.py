"""W&B's client that fails in the same way each time: real client, real processes, a server whose answer it cannot
read."""

from __future__ import annotations

import sys
import time

import pytest
from support.publishing import fill, sync

from ray_jobs.runs.record import MetricRecord
from ray_jobs.tracking.wandb_runs import list_wandb_runs
from ray_jobs.tracking.wandb_sink import WandbSink

REASON = "ValidationError: 1 validation error for ArtifactType"


@pytest.fixture
def run_with_table(server, make_run):
    """A run whose coordination has a table, and a server whose answer to it lacks `project`."""
    folder, config = make_run(20)
    record = MetricRecord(folder.metrics / "ensemble.jsonl")
    record.log(0, {"ensemble/fold_info": {"columns": ["fold", "size"], "data": [[0, 10], [1, 10]]}})
    record.close()
    server.malformed.add("ArtifactType")
    return folder, config


def stored_rows(server, folder, config):
    """{key: number of rows at the server}."""
    return {
        run.key: len(server.runs[run.id].steps()) for run in list_wandb_runs(folder, config) if run.id in server.runs
    }


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_table_that_the_client_cannot_send_is_left_out_and_all_other_rows_arrive(
    server, run_with_table, monkeypatch, is_mended
):
    """The end tries it once more: by then the server may be mended."""
    monkeypatch.setattr("ray_jobs.tracking.wandb_sink._RESTART_S", 0.05)
    folder, config = run_with_table
    said = []
    with WandbSink(folder, config, said.append) as sink:
        sink.start()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any("left out" in line for line in said):
            time.sleep(0.2)
        fill(folder.fold_record(0), 0, 40, keep=20)
        if is_mended:
            server.malformed.clear()
        assert sink.finish(60) == is_mended, said
    text = "\n".join(said)
    assert text.count(REASON) == 1, text
    assert "ensemble is left out there, all else goes on" in text
    missing = "1 of 61 rows are not known to be uploaded; nothing is lost: `python ray_jobs/wandb_sync.py"
    assert (missing in text) != is_mended
    rows = stored_rows(server, folder, config)
    assert (rows["fold_0"], rows["fold_1"], rows.get("ensemble", 0)) == (40, 20, int(is_mended))
    folders = [path.name for path in folder.wandb.glob("*run-*")]
    assert len(folders) <= 3, folders  # those of publishers that did not fail


def test_sync_ends_with_the_reason_and_what_is_missing(server, run_with_table):
    folder, config = run_with_table
    began = time.monotonic()
    done = sync(folder)
    assert time.monotonic() - began < 200
    assert done.returncode == 1, done.stderr
    words = " ".join(done.stdout.split())
    assert f"1 of 41 rows are not known to be uploaded (ensemble: {REASON}" in words
    assert words.count(REASON) == 1
    assert list(folder.wandb.glob("run-*-ensemble")) == []
    server.malformed.clear()
    assert sync(folder).returncode == 0
    assert stored_rows(server, folder, config) == {"fold_0": 20, "fold_1": 20, "ensemble": 1}


def test_a_client_that_is_always_killed_is_given_up_after_longer_and_longer_waits(server, make_run, monkeypatch):
    monkeypatch.setattr(
        "ray_jobs.tracking.wandb_sink.PUBLISHER", [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    )
    monkeypatch.setattr("ray_jobs.tracking.wandb_sink._RESTART_S", 0.001)
    pauses, pause = [], WandbSink._pause
    monkeypatch.setattr(WandbSink, "_pause", lambda sink, number: (pauses.append(number), pause(sink, number)))
    folder, config = make_run(10)
    said = []
    sink = WandbSink(folder, config, said.append)
    sink.start()
    sink.thread.join(60)
    assert not sink.thread.is_alive()
    assert pauses == [1, 2, 3, 4, 5, 6]
    assert [line for line in said if "SIGKILL" in line] == [
        "W&B's client has failed 7 times in the same way (ended by SIGKILL): the run goes on without W&B"
    ]
    assert not sink.finish(1)


@pytest.mark.parametrize("falls_back", [True, False])
def test_a_server_without_rows_that_it_has_taken_costs_no_folder_each_time(server, make_run, falls_back):
    """A lost upload: the server says that it has none of the rows, however often they are sent."""
    folder, config = make_run(10)
    server.forgets_rows = True
    said = []
    sink = WandbSink(folder, config, said.append, falls_back=falls_back)
    sink.start()
    assert not sink.finish(25)
    assert len(list(folder.wandb.glob("run-*"))) <= 2
    assert "20 of 20 rows are not known to be uploaded" in said[-1]
    if not falls_back:
        assert "(fold_0, fold_1: the server does not hold what it was sent)" in said[-1]
