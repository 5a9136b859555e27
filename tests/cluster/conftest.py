"""A real Ray cluster on this machine, with dashboard and token authentication, shared by the tests of this folder."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.processes import RAY, REPOSITORY, clean_environment, free_port, submit

from ray_jobs.runs.record import count_lines


@dataclass(frozen=True)
class LocalCluster:
    """How to reach the cluster: environment for drivers, address of the dashboard for jobs, its folder below /tmp, the
    process that all of its processes descend from."""

    environment: dict[str, str]
    dashboard: str
    folder: Path
    pid: int

    @property
    def targets(self) -> Path:
        """The file that names the metrics endpoints to Prometheus."""
        return self.folder / "prom_metrics_service_discovery.json"

    def ask(self, path: str) -> Any:
        """What the dashboard's API answers to the bearer of the token."""
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        with urllib.request.urlopen(urllib.request.Request(self.dashboard + path, headers=headers), timeout=30) as page:
            return json.load(page)


@dataclass(frozen=True)
class SubmittedRun:
    """A finished run that was submitted through the job API: its folder, the fields that were given, what the job
    printed, and the values of its gauges afterwards ({gauge: {fold: value}})."""

    root: Path
    fields: tuple[str, ...]
    output: str
    gauges: dict[str, dict[str, float]]


_heads: list[subprocess.Popen[bytes]] = []


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """The cluster ends with the last test of this folder, not with the session: its daemons take a fifth of a core."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        for head in _heads:
            head.terminate()


@pytest.fixture(scope="session")
def cluster():
    """A head node with 2 CPUs, and 5 GB for those who reserve memory, that asks every caller for its token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    # A submitted job's `python` is the first on the head node's PATH, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    wandb = {"WANDB_API_KEY": secrets.token_hex(20), "WANDB_MODE": "offline"}
    times = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    environment = clean_environment(**token, **wandb, **times, PATH=path)
    port, dashboard, agent = free_port(), free_port(), free_port()
    # Sockets below /tmp: their path may not be longer than 107 characters.
    folder = Path(f"/tmp/kfold_test_{os.getpid()}")
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += ["--include-dashboard=true", f"--temp-dir={folder}", "--disable-usage-stats", "--memory=5000000000"]
    command += [f"--dashboard-agent-listen-port={agent}"]  # the usual one may be another cluster's on this machine
    # --block: ends with its own processes and leaves other clusters on this machine alone, as `ray stop` would not.
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        _heads.append(head)
        environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        try:
            wait_for_jobs_api(environment, f"http://127.0.0.1:{dashboard}")
            yield LocalCluster(environment, f"http://127.0.0.1:{dashboard}", folder, head.pid)
        finally:
            head.terminate()
    shutil.rmtree(folder, ignore_errors=True)


def wait_for_jobs_api(environment: dict[str, str], dashboard: str) -> None:
    """Returns when jobs can be submitted."""
    for _ in range(60):
        listing = subprocess.run(
            [RAY, "job", "list", "--address", dashboard], env=environment, check=False, capture_output=True
        )
        if listing.returncode == 0:
            return
        time.sleep(1)
    raise TimeoutError(listing.stderr.decode())


@pytest.fixture
def run_job(cluster):
    """A function that runs a job file as a driver that joins the cluster; returns the finished process."""

    def run(job: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, f"ray_jobs/{job}.py", *words],
            cwd=REPOSITORY,
            env=cluster.environment | environment,
            text=True,
            capture_output=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def prometheus(cluster, tmp_path_factory):
    """Address of a Prometheus server that scrapes what Ray's service discovery names; None where none is installed."""
    if shutil.which("prometheus") is None:
        yield None
        return
    folder, address = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}"
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "ray", "file_sd_configs": [{"files": [str(cluster.targets)]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command.append(f"--web.listen-address={address}")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"http://{address}"
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def submitted_run(cluster, prometheus, tmp_path_factory):
    """One small run, submitted while Prometheus scrapes, stopped by `ray job stop` and submitted again."""
    root = tmp_path_factory.mktemp("submitted") / "submitted"
    fields = ("training.epochs=12", "data.max_rows=120", "checkpoint.every_steps=2")  # long enough to be stopped
    words = (f"run.storage={root.parent}", f"run.name={root.name}", *fields)
    stopped = submit(cluster, *words, options=("--submission-id=stopped", "--no-wait"))
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    while any(count_lines(root / "metrics" / f"fold_{fold}.jsonl") < 6 for fold in range(3)):
        time.sleep(0.1)
    stop = [RAY, "job", "stop", "--address", cluster.dashboard, "stopped"]
    subprocess.run(stop, env=cluster.environment, check=True, capture_output=True)
    name = ("--submission-id=job_of_submitted", "--metadata-json", json.dumps({"job_name": root.name}))
    done = submit(cluster, *words, options=name)
    assert done.returncode == 0, done.stdout + done.stderr
    # The last values stay for two export intervals (20 s) after the driver's end.
    for _ in range(20):
        gauges = scrape_gauges(cluster, root.name)
        if set(gauges.get("ray_kfold_fold_state", {}).values()) == {2}:
            break
        time.sleep(0.5)
    return SubmittedRun(root, fields, done.stdout, gauges)


def scrape_gauges(cluster: LocalCluster, run: str) -> dict[str, dict[str, float]]:
    """{gauge: {fold: value}} of a run, from all metrics endpoints of the cluster, as Prometheus would read them."""
    found: dict[str, dict[str, float]] = {}
    for target in json.loads(cluster.targets.read_text())[0]["targets"]:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        for line in lines:
            if line.startswith("ray_kfold_") and f'run="{run}"' in line:
                fold = re.search(r'fold="(\d+)"', line)[1]
                found.setdefault(line.partition("{")[0], {})[fold] = float(line.rpartition(" ")[2])
    return found
