"""Elastic folds on a cluster whose autoscaler starts nodes: Ray's fake provider, which starts them on this machine."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.processes import RAY, REPOSITORY, clean_environment, find_processes, free_port, kill, start_node

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines

HEAD_ID = f"{'f' * 51}00000"  # by which the fake provider knows the head node
LISTS = (
    "initialization_commands setup_commands head_setup_commands worker_setup_commands head_start_ray_commands "
    "worker_start_ray_commands rsync_exclude rsync_filter cluster_synced_files"
)


class GrowingCluster:
    """A head node without CPUs, and nodes of one CPU that its autoscaler may start: at first none."""

    def __init__(self, root: Path) -> None:
        self.root, port = root, free_port()
        self.config = root / "ray_bootstrap_config.yaml"  # where `ray up` leaves it
        provider = {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        }
        provider |= {"gcs_address": f"127.0.0.1:{port}", "head_node_id": HEAD_ID, "launch_multiple": True}
        kinds = {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "one_cpu": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 3},
        }
        self.values = {"cluster_name": "growing", "provider": provider, "available_node_types": kinds}
        self.values |= {"head_node_type": "ray.head.default", "idle_timeout_minutes": 5, "upscaling_speed": 1.0}
        self.values |= {"auth": {}, "docker": {}, "file_mounts": {}, "file_mounts_sync_continuously": False}
        self.values |= {name: [] for name in LISTS.split()}
        self.allow(0)
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "PYTHONUNBUFFERED": "1"}
        settings |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        self.environment = clean_environment(HOME=str(root), **settings)
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
        fake |= {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
        words = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={root}", "--num-cpus=0")
        words += (f"--autoscaling-config={self.config}",)
        self.head = start_node(root / "head.log", self.environment | fake, *words)
        self.environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"

    def allow(self, nodes: int) -> None:
        """So many nodes may be started; the autoscaler reads its config again and again."""
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps({**self.values, "max_workers": nodes}))  # JSON is YAML
        new.replace(self.config)

    def drain(self, number: int) -> None:
        """What a cloud's notice of a spot machine's end becomes in Ray; nodes are numbered from 1 as they are
        started."""
        words = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=120"]
        command = [
            RAY,
            "drain-node",
            f"--address={self.environment['RAY_ADDRESS']}",
            f"--node-id={'f' * 51}{number:05d}",
            *words,
        ]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def end(self) -> None:
        """With the nodes that the autoscaler has started, which nobody else ends."""
        self.head.terminate()
        self.head.wait()
        kill(find_processes(self.root))


@pytest.fixture
def growing():
    root = Path(tempfile.mkdtemp(prefix="grow_", dir="/tmp"))
    cluster = GrowingCluster(root)
    yield cluster
    cluster.end()
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_a_fold_waits_for_nodes_grows_with_them_and_leaves_one_that_goes_without_losing_a_step(growing):
    run, log = RunFolder(growing.root / "ray_results" / "growing"), growing.root / "driver.log"
    words = ("run.name=growing", "folds.only=[0]", "training.epochs=150", "data.max_rows=60", "tracking.wandb=disabled")
    words += ("resources.workers_per_fold=[1,2]", "resources.cpus_per_fold=2", "resources.resize_interval_s=0")
    words += ("training.batch_size=16",)
    deadline = time.monotonic() + 250
    with log.open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, "ray_jobs/kfold.py", *words],
            cwd=REPOSITORY, env=growing.environment, stdout=output, stderr=output,
        )  # fmt: skip

    def wait_for(happened):
        while not (found := happened()):
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return found

    def find(event, **values):
        rows = read_lines(run.events)
        return [r for r in rows if r["event"] == event and all(r[name] == value for name, value in values.items())]

    try:
        wait_for(lambda: "not training yet: fold 0 (3" in log.read_text())  # 30 s and a little
        growing.allow(1)
        wait_for(lambda: count_lines(run.fold_record(0)) > 5)
        growing.allow(2)
        wait_for(lambda: find("FoldStarted", attempt=2))
        growing.drain(1)
        wait_for(lambda: "its node is being taken away" in log.read_text())
        wait_for(lambda: "took " in log.read_text())
        driver.wait(20)
    finally:
        driver.kill()
    said, launches, starts = log.read_text(), find("FoldLaunched"), find("FoldStarted")
    print(said, launches, starts)
    assert driver.returncode == 0
    assert "waiting for the autoscaler to start a node with 1 CPU and 0 GPU" in said
    assert re.search(
        r"not training yet: fold 0 \(3\d s\); 1 node\(s\) run; no room for 2 × {1 CPU}; no node is being started", said
    )
    assert "fold 0: there is room; it saves where it is and goes on with 2 instead of 1 workers" in said
    assert [row["num_workers"] for row in launches[:2]] == [1, 2]
    assert "not bit-repeatable" in said
    logs = "".join(path.read_text() for path in sorted(run.fold_logs(0).glob("training_*.log")))
    saved = [int(step) for step in re.findall(r"asked to end: it has saved where it is, step (\d+)", logs)]
    assert [row["step"] for row in starts[1:3]] == saved[:2]  # nothing was trained twice
    assert find("FoldResized")[0]["attempt"] == 1
    steps = [row["global_step"] for row in read_lines(run.fold_record(0)) if "fold_0/train/loss_step" in row]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) == 150 * 3
