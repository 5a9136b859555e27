"""Starting the project's jobs as processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


def clean_environment(**values: str) -> dict[str, str]:
    """This process's environment without what would point Ray elsewhere, and with these values. Imports in threads are
    noted."""
    dropped = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "NETRC")
    kept = {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("WANDB_")}
    return kept | {"PYTHONPATH": str(Path(__file__).parent.with_name("thread_imports"))} | values


def is_fold(title: str) -> bool:
    """Whether a process, by its command line, trains a fold."""
    return re.match(r"ray::(RayTrainWorker|.*fold \d+ \(attempt \d+\))", title) is not None


def submit(
    cluster: Any, *words: str, options: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Submits the K-fold job to the test cluster through Ray's job API and waits for it."""
    command = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", *options]
    return subprocess.run(
        [*command, "--", "python", "ray_jobs/kfold.py", *words],
        cwd=REPOSITORY,
        env=cluster.environment if environment is None else environment,
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_node(
    log: Path, environment: dict[str, str], *words: str, within: tuple[str, ...] = (), ray: str = RAY
) -> subprocess.Popen[bytes]:
    """Starts a Ray node of 2 CPUs (`--head`, or `--address=...` of one to join); returns when it runs.

    Args:
        log: what it prints; replaced.
        environment: its variables.
        words: further words of `ray start`.
        within: a command that runs it, such as one that gives it disks of its own.
        ray: the command of Ray.
    """
    command = [*within, ray, "start", "--block", "--num-cpus=2", "--disable-usage-stats", *words]
    settings = {"PYTHONUNBUFFERED": "1", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    with log.open("wb") as output:
        node = subprocess.Popen(command, env=environment | settings, stdout=output, stderr=output)
    while b"Ray runtime started" not in log.read_bytes():
        assert node.poll() is None, f"Ray does not start: {log.read_text()}"
        time.sleep(0.1)
    return node


def find_processes(folder: Path) -> dict[int, str]:
    """{process id: command line} of processes that name a folder in their command line or whose output goes below it,
    as the output of all of Ray's processes goes below its temporary folder."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if command and (str(folder) in command or os.readlink(path / "fd" / "1").startswith(f"{folder}/")):
                found[int(path.name)] = command
        except OSError:  # it has just ended
            continue
    return found


def kill(processes: Iterable[int]) -> None:
    """SIGKILL to those that still live; 0 is none."""
    for process in processes:
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def list_descendants(process: int) -> list[int]:
    """A process and all that it has started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def find_workers(node: subprocess.Popen[bytes]) -> list[int]:
    """Processes that train folds on a node."""
    titles = {}
    for process in list_descendants(node.pid):
        with contextlib.suppress(OSError):
            titles[process] = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    return [process for process, title in titles.items() if is_fold(title)]
