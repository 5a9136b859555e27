"""What the runs of `soak.py` stand on, and may lose for a while: W&B's server, the object storage, room on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.object_server import BUCKET, Gate, serving_objects
from support.wandb_server import StandInServer

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_place
from ray_jobs.runs.remote.run_mirror import fetch_run

DISK_MIB = 2048


class Surroundings:
    """A W&B server, a disk of its own where that is possible, and an object storage where that is wanted.

    Args:
        root: all files go below it.
        in_bucket: the runs live in the object storage.
    """

    def __init__(self, root: Path, *, in_bucket: bool) -> None:
        self.disk, self.in_bucket = root / "disk", in_bucket
        self.disk.mkdir()
        self.ending = contextlib.ExitStack()
        self.server = self.ending.enter_context(StandInServer())
        self.has_disk = self._mount()
        self.gate: Gate | None = None
        self.environment = {"WANDB_BASE_URL": self.server.url, "WANDB_API_KEY": "0" * 40}
        if in_bucket:
            self.gate = Gate(self.ending.enter_context(serving_objects()))
            self.ending.callback(self.gate.close)
            self.environment |= self.gate.environment | {"TMPDIR": str(self.disk)}
            os.environ.update(self.gate.environment)  # for `bring`
            tempfile.tempdir = str(self.disk)
        self.storage = f"s3://{BUCKET}/runs" if in_bucket else str(self.disk / "runs")

    def _mount(self) -> bool:
        """Whether this process may have a small disk of its own."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "soak", str(self.disk)]
        try:
            is_there = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False
        if is_there:
            self.ending.callback(subprocess.run, ["umount", "--lazy", str(self.disk)], check=False)
        return is_there

    def list_losses(self) -> list[str]:
        """What can be taken away here."""
        return ["W&B away", *["disk full"] * self.has_disk, *["bucket away"] * self.in_bucket]

    @contextlib.contextmanager
    def losing(self, what: str) -> Iterator[None]:
        """Takes one of them away, and gives it back."""
        if what == "W&B away":
            self.server.die()
            yield
            self.server.start()
        elif what == "bucket away":
            assert self.gate is not None
            with self.gate.shut():
                yield
        else:
            filler = self.disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
            yield
            filler.unlink()

    def find(self, name: str) -> RunFolder:
        """The folder in which a run is worked on."""
        return RunFolder(find_place(self.storage, name))

    def bring(self, run: RunFolder) -> None:
        """Makes a folder of the objects of a run, and of nothing else."""
        if self.in_bucket:
            shutil.rmtree(run.root)
            fetch_run(f"{self.storage}/{run.root.name}", whole=True)

    def end(self) -> None:
        """Ends all of it."""
        self.ending.close()
