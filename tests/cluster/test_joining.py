"""A cluster that goes while a driver joins it."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.processes import REPOSITORY, clean_environment, find_processes, free_port, kill, start_node

# Each node is asked for its versions; here one that takes its time. What Ray does at an end in good order would wait, too.
SCRIPT = """
import os
from ray_jobs.cluster import start
from ray_jobs.errors import ClusterLostError

ask = start.run_on_each_node
start.run_on_each_node = lambda *_, **how: ask(os.system, "touch $HOME/asked; sleep 600", **how)
try:
    with start.connect(start.RayStart("a driver", dashboard=False)):
        print("joined", flush=True)
except ClusterLostError as error:
    print(error, flush=True)
    os._exit(3)
"""


# Waits for the end of the cluster before or after `ray.init`.
SCRIPT_OF_INIT = """
import os, sys, time
from ray_jobs.cluster import heartbeat, start
import ray

heartbeat.GONE_AFTER_S = 4.0
init = ray.init

def ask_and_wait():
    open(os.path.expanduser("~/asked"), "w").close()
    while not os.path.exists(os.path.expanduser("~/gone")):
        time.sleep(0.05)

def init_and_wait(**how):
    if sys.argv[1] == "before":
        ask_and_wait()
    context = init(**how)
    ask_and_wait()
    return context

ray.init = init_and_wait
with start.connect(start.RayStart("a driver", dashboard=False)):
    print("joined", flush=True)
"""


@pytest.fixture
def root():
    """A short path: Ray's sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="join_", dir="/tmp"))
    yield folder
    kill(find_processes(folder))
    shutil.rmtree(folder, ignore_errors=True)


def lose_cluster(root, *script):
    """Ends a cluster at a moment at which a driver that joins it says so; the driver's exit code and what it prints."""
    port, token = free_port(), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment = clean_environment(HOME=str(root), **token)
    words = ("--head", f"--port={port}", f"--temp-dir={root}", "--include-dashboard=false")
    head = start_node(root / "head.log", environment, *words)
    with subprocess.Popen(
        [sys.executable, "-c", *script], cwd=REPOSITORY, env=environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        try:
            while not (root / "asked").exists():
                assert driver.poll() is None, driver.communicate()
                time.sleep(0.05)
            kill(find_processes(root))
            head.wait()
            (root / "gone").touch()
            said = driver.communicate(timeout=60)
        finally:
            driver.kill()
    return driver.returncode, said


def test_a_driver_whose_cluster_goes_while_it_asks_each_node_ends_with_the_reason(root):
    """Ray itself waits for minutes."""
    code, said = lose_cluster(root, SCRIPT)
    assert code == 3, said
    assert said[0].startswith("the Ray node of this machine")


@pytest.mark.parametrize("moment", ["before", pytest.param("after", marks=pytest.mark.slow)])
def test_a_driver_whose_cluster_goes_while_it_calls_ray_init_ends_with_the_reason(root, moment):
    """Nothing interrupts this call, nor those right after it."""
    code, said = lose_cluster(root, SCRIPT_OF_INIT, moment)
    assert code == 1, said
    assert "went while it was joined: start it, and type the same command again" in said[1]
