"""Storage that misbehaves for real: a small tmpfs which only the processes of one shell see, in a mount namespace of
its own, so that nothing stays mounted whatever a test does."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import REPOSITORY, clean_environment

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]


class PrivateStorage:
    """A tmpfs at `path` and the shell that sees it.

    Args:
        path: an empty folder; outside the shell's namespace it stays empty.
        size: of the file system, as mount writes it.
    """

    def __init__(self, path: Path, size: str) -> None:
        self.path = path
        path.mkdir()
        self.shell = subprocess.Popen(
            [*UNSHARE, "bash"],
            cwd=REPOSITORY,
            env=clean_environment(HOME=str(path.parent)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.inside = Path(f"/proc/{self.shell.pid}/root{path}")  # what the shell sees, seen from here
        self.do(f"mount -t tmpfs -o size={size} tmpfs {path}")

    def do(self, command: str) -> str:
        """Runs a command in the namespace; returns what it said."""
        self.shell.stdin.write(f"{command}\necho ended $?\n")
        self.shell.stdin.flush()
        said = []
        for line in self.shell.stdout:
            if line.startswith("ended "):
                assert line == "ended 0\n", (command, said)
                return "".join(said)
            said.append(line)
        raise AssertionError((command, said))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is free."""
        path = self.inside / "filling"
        with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            yield
        finally:
            path.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Files are there, none can be opened for writing."""
        path = self.path
        self.do(f"mount --bind {path} {path} && mount -o remount,bind,ro {path}")
        try:
            yield
        finally:
            self.do(f"umount --lazy {path}")

    @contextmanager
    def away(self) -> Iterator[None]:
        """The mount point is an empty folder on another disk. At the end nothing may stand there, but for a checkpoint
        and a file that were being written when the storage went away."""
        self.do(f"mount -t tmpfs tmpfs {self.path}")
        try:
            yield
            written = [
                str(path) for path in self.inside.rglob("*") if path.is_file() and "/checkpoints/" not in str(path)
            ]
            assert len(written) <= 1, written
        finally:
            self.do(f"umount --lazy {self.path}")

    def start(self, output: Path, *command: str) -> int:
        """Starts a process in the namespace; returns its id."""
        output.touch()  # the shell opens it only when it has answered
        return int(self.do(f"{shlex.join(command)} > {output} 2>&1 & echo $!").splitlines()[-1])

    def wait(self, process: int, timeout_s: float) -> int:
        """The exit code of a process that `start` started."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(FileNotFoundError):  # the shell has heard of its end
            while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < deadline, "it does not end"
                time.sleep(0.1)
        return int(self.do(f"wait {process}; echo $?").splitlines()[-1])

    def close(self) -> None:
        """Ends the shell and what it still runs."""
        with contextlib.suppress(AssertionError, OSError):
            for process in self.do("jobs -p").split():
                os.kill(int(process), signal.SIGKILL)
        self.shell.communicate(timeout=30)


@contextmanager
def private_storage(path: Path, size: str) -> Iterator[PrivateStorage]:
    """As the class; the test is skipped where a process may not have a mount namespace."""
    allowed = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False, capture_output=True)
    if allowed.returncode:
        pytest.skip(f"no mount namespace may be made here: {allowed.stderr.decode().strip()}")
    storage = PrivateStorage(path, size)
    try:
        yield storage
    finally:
        storage.close()
