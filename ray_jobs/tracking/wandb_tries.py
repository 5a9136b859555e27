"""The tries of a publisher: how often it has failed without coming further, and what a failed one leaves behind:
folders, and wandb-core processes. Loads no wandb."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
from pathlib import Path

from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder


class Tries:
    """What is known of the publishers that one job has started.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.starts: dict[str, int] = {}
        self.failures: dict[tuple[str | None, bool], tuple[int, int]] = {}
        self.before: set[Path] = set()

    def begin(self) -> None:
        """A publisher is about to start."""
        self.starts = {}
        self.before = self._list_folders()

    def note_start(self, part: str, first_step: int) -> None:
        """The publisher begins a W&B run with this row: those before it have arrived."""
        self.starts[part] = first_step

    def count_failure(self, part: str | None, held: int | None = None) -> int:
        """Takes in that the publisher has failed.

        Args:
            part: key of the W&B run at which it failed; None: nobody knows.
            held: where all was sent, rows that the server holds.

        Returns:
            How often in a row it has failed there without coming further.
        """
        where = (part, held is None)
        reached = held if held is not None else self.starts.get(part, -1) if part else sum(self.starts.values())
        number, before = self.failures.get(where, (0, -2))
        number = number + 1 if reached <= before else 1
        self.failures[where] = (number, max(reached, before))
        return number

    def remove_leftovers(self) -> None:
        """Removes the online folders of the publisher that has failed: the record holds their rows. Offline folders
        stay."""
        end_cores(self.folder)
        for path in self._list_folders() - self.before:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.wandb.iterdir():
            if path.is_symlink() and not path.exists():  # W&B's `latest-run`
                path.unlink(missing_ok=True)

    def _list_folders(self) -> set[Path]:
        return set(self.folder.wandb.glob("run-*"))


def note_cores(folder: RunFolder) -> None:
    """Writes down the wandb-core processes of this one: they are in a session of their own and may outlive it."""
    mine = {p: c for p, c in _list_commands().items() if "wandb-core" in c and f"--pid {os.getpid()} " in c + " "}
    write_json(folder.publisher_processes, {platform.node(): mine})


def end_cores(folder: RunFolder) -> None:
    """Ends those that were noted on this machine."""
    running = _list_commands()
    for process, command in read_json(folder.publisher_processes, default={}).get(platform.node(), {}).items():
        if running.get(process) == command:  # and not another program that has its number now
            os.kill(int(process), signal.SIGKILL)


def _list_commands() -> dict[str, str]:
    """The command of each process of this machine, by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            found[path.name] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found
