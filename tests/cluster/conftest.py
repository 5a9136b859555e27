"""A real Ray cluster on this machine, with dashboard and token authentication, shared by the tests of this folder."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import REPOSITORY, clean_environment

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class LocalCluster:
    """How to reach the cluster: environment for drivers, address of the dashboard for jobs."""

    environment: dict[str, str]
    dashboard: str


@pytest.fixture(scope="session")
def cluster():
    """A head node with 2 CPUs that asks every caller for its token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    # A submitted job's `python` is the first on the head node's PATH, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment(**token, RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0", PATH=path)
    port, dashboard = free_port(), free_port()
    # Sockets below /tmp: their path may not be longer than 107 characters.
    folder = Path(f"/tmp/kfold_test_{os.getpid()}")
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={port}", f"--dashboard-port={dashboard}"]
    command += ["--include-dashboard=true", f"--temp-dir={folder}", "--disable-usage-stats"]
    # --block: ends with its own processes and leaves other clusters on this machine alone, as `ray stop` would not.
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        environment["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        try:
            wait_for_jobs_api(environment, f"http://127.0.0.1:{dashboard}")
            yield LocalCluster(environment, f"http://127.0.0.1:{dashboard}")
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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


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
