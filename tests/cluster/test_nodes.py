"""Nodes that are taken away, announced or not. The cluster of this file is several Ray nodes on one machine."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.object_server import BUCKET, serving_objects
from support.processes import RAY, REPOSITORY, clean_environment, find_workers, free_port, list_descendants, start_node

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines
from trainers.clip_regression.rows.synthetic_data import make_data
from trainers.storage.row_blocks import BLOCK_ROWS


class Nodes:
    """A head node of 2 CPUs and the nodes that join it.

    Args:
        root: everything of the cluster goes below it; short, since sockets do.
        port: of the head node.
    """

    def __init__(self, root: Path, port: int) -> None:
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "PYTHONUNBUFFERED": "1"}
        settings |= {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        self.root, self.environment = root, clean_environment(HOME=str(root), **settings)
        self.address, self.started = f"127.0.0.1:{port}", []
        self.start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={root}")
        self.environment["RAY_ADDRESS"] = self.address

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts a node, by default one that joins; returns when it runs."""
        path = self.root / f"node_{len(self.started)}.log"
        words = words or (f"--address={self.address}",)
        self.started.append(start_node(path, self.environment, *words))
        return self.started[-1]

    def list_ids(self) -> list[str]:
        """Ids of the nodes that joined and are alive."""
        code = (
            "import logging, ray; ray.init(address='auto', logging_level=logging.ERROR)\n"
            "print('IDS', *(n['NodeID'] for n in ray.nodes() if n['Alive'] and 'node:__internal_head__' not "
            "in n['Resources']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.partition("IDS")[2].split()

    def announce_loss(self, node: str) -> None:
        """What a cloud's notice of a spot machine's end becomes in Ray."""
        words = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=120"]
        command = [RAY, "drain-node", f"--address={self.address}", f"--node-id={node}", *words]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """What a power cut does to a node."""
        for process in list_descendants(node.pid):
            os.kill(process, signal.SIGKILL)
        node.wait()

    def end(self) -> None:
        for node in reversed(self.started):
            node.terminate()
        for node in self.started:
            node.wait()


@pytest.fixture
def nodes():
    root = Path(tempfile.mkdtemp(prefix="nodes_", dir="/tmp"))
    nodes = Nodes(root, free_port())
    yield nodes
    nodes.end()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def objects(monkeypatch):
    """An S3 server that all processes of the test know."""
    with serving_objects() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.slow
def test_two_nodes_read_pictures_from_object_storage_and_fill_one_cache_together(objects, nodes, tmp_path):
    """600 rows in 5 blocks, 120 in 1; of pictures and texts, and of those that train two versions each."""
    objects.put_folder(make_data(tmp_path), "made")
    second, storage, log = nodes.start(), nodes.root / "ray_results", nodes.root / "driver.log"
    words = (f"data.root=s3://{BUCKET}/made", "folds.count=2", "resources.cpus_per_fold=2", "training.epochs=2")
    words += ("model.freeze=true", "model.allow_random_frozen=true", "tracking.wandb=disabled")

    def start(name):
        with log.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "ray_jobs/kfold.py", f"run.name={name}", *words],
                cwd=REPOSITORY, env=nodes.environment, stdout=output, stderr=output,
            )  # fmt: skip

    driver, places = start("together"), set()
    while driver.poll() is None:
        places |= {number for number, node in enumerate((nodes.started[0], second)) if find_workers(node)}
        time.sleep(0.2)
    assert driver.returncode == 0, log.read_text()
    assert places == {0, 1}
    assert "reading 600 objects of the data" in log.read_text()
    blocks = {path: path.stat().st_mtime_ns for path in storage.glob(".kfold_cache/features/*/*/*.arrow")}
    assert len(blocks) == 4 * -(-600 // BLOCK_ROWS) + 2 * -(-120 // BLOCK_ROWS)
    assert not list(storage.glob(".kfold_cache/**/.*.tmp"))
    pictures = [key for key in objects.list_read() if key.endswith(".jpg")]
    assert len(set(pictures)) == 720
    assert len(pictures) < 2 * 720  # both nodes read the copies that lie in the storage they share
    assert start("again").wait() == 0, log.read_text()
    assert {path: path.stat().st_mtime_ns for path in blocks} == blocks
    assert (storage / "again/submission_mean.csv").read_bytes() == (
        storage / "together/submission_mean.csv"
    ).read_bytes()


@pytest.mark.slow
def test_folds_leave_a_node_that_is_announced_to_go_and_survive_one_that_is_not(nodes):
    run, log = RunFolder(nodes.root / "ray_results" / "moving"), nodes.root / "driver.log"
    first = nodes.start()
    words = ("run.name=moving", "resources.cpus_per_fold=1", "training.epochs=60", "data.max_rows=300")
    words += ("checkpoint.every_steps=3", "tracking.wandb=disabled")
    with log.open("w") as output:
        driver = subprocess.Popen(
            [sys.executable, "ray_jobs/kfold.py", *words],
            cwd=REPOSITORY, env=nodes.environment, stdout=output, stderr=output,
        )  # fmt: skip

    def wait_for(happened):
        while not happened():
            assert driver.poll() is None, log.read_text()
            time.sleep(0.1)

    wait_for(lambda: all(count_lines(run.fold_record(fold)) > 5 for fold in range(3)))
    (going,), second = nodes.list_ids(), nodes.start()
    nodes.announce_loss(going)
    wait_for(lambda: "its node is being taken away" in log.read_text())
    wait_for(lambda: not find_workers(first))
    nodes.kill(first)
    wait_for(lambda: any(row["event"] == "FoldStarted" and row["attempt"] == 2 for row in read_lines(run.events)))
    wait_for(lambda: find_workers(second))
    time.sleep(1)
    nodes.kill(second)
    driver.wait(300)
    assert driver.returncode == 0, log.read_text()

    output = log.read_text()
    told = {int(fold) for fold in re.findall(r"fold (\d): its node is being taken away, and it has saved", output)}
    saved = r"asked to end: it has saved where it is, step (\d+)"
    logs = {fold: "".join(path.read_text() for path in run.fold_logs(fold).glob("training_*.log")) for fold in told}
    left = {fold: int(re.search(saved, text)[1]) for fold, text in logs.items()}
    starts = [row for row in read_lines(run.events) if row["event"] == "FoldStarted" and row["attempt"] == 2]
    assert left
    assert {row["fold"]: row["step"] for row in starts if row["fold"] in left} == left  # nothing was trained twice
    assert re.search(r"fold \d: its process or node died", output)
    for fold in range(3):
        steps = [
            row["global_step"] for row in read_lines(run.fold_record(fold)) if f"fold_{fold}/train/loss_step" in row
        ]
        assert steps == list(range(1, 241))
