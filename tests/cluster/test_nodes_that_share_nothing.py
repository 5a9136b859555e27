"""A run on object storage that is submitted to two Ray nodes, each with a disk of its own for what it works on."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.object_server import BUCKET, serving_objects
from support.private_storage import UNSHARE
from support.processes import clean_environment, find_workers, free_port, start_node, submit
from support.run_bits import describe_bits

from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines
from ray_jobs.runs.remote.run_mirror import RunMirror

OWN_DISK = 'mkdir -p "$0" && mount -t tmpfs tmpfs "$0" && exec "$@"'
FIELDS = ("resources.cpus_per_fold=1", "data.max_rows=60", "training.epochs=20", "checkpoint.min_interval_s=0",
          "tracking.wandb=disabled")  # fmt: skip
URI = f"s3://{BUCKET}/nodes/run"


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_objects() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def nodes(server):
    """The head node, and another that sees an empty disk where runs are worked on."""
    if subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace may be made here")
    root = Path(tempfile.mkdtemp(prefix="apart_", dir="/tmp"))  # short, since sockets go below it
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(HOME=str(root), TMPDIR=str(root), PATH=path, **token, **server.environment)
    port, dashboard, agent = free_port(), free_port(), free_port()
    words = ("--include-dashboard=true", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}")
    head = start_node(root / "head.log", environment, "--head", f"--port={port}", f"--temp-dir={root}", *words)
    work = root / f"ray-kfold-{os.getuid()}"
    within = (*UNSHARE, "sh", "-c", OWN_DISK, str(work))
    # A folder of its own: Ray unpacks a job's files anew on each node, and removes what lies there.
    words = (f"--address=127.0.0.1:{port}", f"--temp-dir={root}/other")
    other = start_node(root / "other.log", environment, *words, within=within)
    environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
    yield SimpleNamespace(
        root=root, environment=environment, dashboard=f"http://127.0.0.1:{dashboard}", other=other,
        here=work, there=Path(f"/proc/{other.pid}/root{work}"),
    )  # fmt: skip
    for node in (other, head):
        node.terminate()
        node.wait()
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_two_machines_that_share_nothing_train_a_submitted_run(server, nodes, tmp_path):
    words = (*FIELDS, "run.name=run")
    done = submit(nodes, f"run.storage={nodes.root}/shared", *words)  # a folder that both see: what must come out
    assert done.returncode == 0, done.stdout + done.stderr
    job = submit(nodes, f"run.storage=s3://{BUCKET}/nodes", *words, options=("--no-wait", "--submission-id=apart"))
    assert job.returncode == 0, job.stdout + job.stderr
    deadline = time.monotonic() + 400

    def wait_for(happened):
        while not happened():
            assert time.monotonic() < deadline, read_logs(nodes)
            time.sleep(0.1)

    points = [f"nodes/run/folds/{fold}/checkpoints/resume_0/checkpoint.json" for fold in range(3)]
    wait_for(lambda: set(points) <= set(server.list_keys("PUT")))
    run = RunFolder(next(nodes.here.glob("*/run")))
    apart = [fold for fold in range(3) if not run.fold(fold).checkpoint("best").exists()]
    assert apart, "every fold trains on the driver's machine"
    assert all(next(nodes.there.glob("*/run/folds")).joinpath(str(fold)).exists() for fold in apart)
    wait_for(lambda: all(count_lines(run.fold_record(fold)) > 3 for fold in apart))  # the driver follows
    assert not run.summary.exists()
    for worker in find_workers(nodes.other):
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: "nodes/run/summary.json" in server.list_keys("PUT"))
    wait_for(lambda: "succeeded" in read_logs(nodes, "status"))
    third = RunFolder(tmp_path / "third")
    third.root.mkdir()
    RunMirror(third, URI).pull_all()
    assert read_json(third.summary)["outcome"] == "complete"
    assert describe_bits(third) == describe_bits(RunFolder(nodes.root / "shared" / "run"))
    again = [row["fold"] for row in read_lines(third.events) if row["event"] == "FoldStarted" and row["attempt"] == 2]
    assert sorted(again) == apart


@pytest.mark.slow
def test_a_fold_whose_workers_share_nothing_predicts_with_one_checkpoint(server, nodes, tmp_path):
    """Each worker wants a whole machine, so a fold has one on both."""
    words = (
        "resources.workers_per_fold=2",
        "resources.cpus_per_fold=4",
        "folds.count=2",
        "training.epochs=4",
        "run.name=wide",
    )
    for storage in (f"{nodes.root}/shared", f"s3://{BUCKET}/nodes"):
        done = submit(nodes, f"run.storage={storage}", "data.max_rows=60", "tracking.wandb=disabled", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    third = RunFolder(tmp_path / "third")
    third.root.mkdir()
    RunMirror(third, f"s3://{BUCKET}/nodes/wide").pull_all()
    assert describe_bits(third, 2) == describe_bits(RunFolder(nodes.root / "shared" / "wide"), 2)
    assert next(
        nodes.there.glob("*/wide/folds/0/checkpoints/best")
    ).is_dir()  # the other machine has brought what it reads


def read_logs(nodes, what: str = "logs") -> str:
    """What Ray says of the job."""
    command = [str(Path(sys.executable).with_name("ray")), "job", what, "--address", nodes.dashboard, "apart"]
    done = subprocess.run(command, env=nodes.environment, text=True, capture_output=True, check=False)
    return json.dumps(done.stdout + done.stderr) if what == "status" else done.stdout + done.stderr
