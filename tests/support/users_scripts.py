"""Scripts of users, run by the interpreter of the tests beside the checkout or, where KFOLD_PYTHON names one, by that of
an environment into which the wheel was installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.processes import REPOSITORY, clean_environment, free_port, start_node

PYTHON = os.environ.get("KFOLD_PYTHON", sys.executable)
WAIT_S = 1800


def is_there(*packages: str) -> bool:
    """Whether the interpreter of the scripts has packages."""
    code = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in {packages!r}))"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode == 0


def environment(home: Path, **values: str) -> dict[str, str]:
    clean = clean_environment(HOME=str(home), WANDB_MODE="disabled", **values)
    if "KFOLD_PYTHON" not in os.environ:
        clean["PYTHONPATH"] += f"{os.pathsep}{REPOSITORY}"
    return clean


def start_patiently(*arguments: Any, ray: str) -> subprocess.Popen[bytes]:
    """Ray waits 30 s for its own processes, which is too short where many others are at work."""
    for _ in range(5):
        with suppress(AssertionError):
            return start_node(*arguments, ray=ray)
    return start_node(*arguments, ray=ray)


@contextmanager
def open_ray(root: Path) -> Iterator[str]:
    """The address of a Ray of two CPUs, which scripts join and leave."""
    address = f"127.0.0.1:{free_port()}"
    words = ("--head", f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="ray_", ignore_cleanup_errors=True) as short:  # Ray's sockets lie in it
        words = (*words, "--include-dashboard=false", f"--temp-dir={short}")
        node = start_patiently(root / "node.txt", environment(root), *words, ray=str(Path(PYTHON).with_name("ray")))
        try:
            yield address
        finally:
            node.terminate()
            node.wait()


def start_script(script: str, home: Path, folder: Path, address: str) -> subprocess.Popen[str]:
    """Starts a script in a folder; what it prints is added to `output.txt` in the user's home."""
    with (home / "output.txt").open("a") as output:
        return subprocess.Popen(
            [PYTHON, script],
            cwd=folder,
            env=environment(home, RAY_ADDRESS=address),
            text=True,
            stdout=output,
            stderr=output,
        )
