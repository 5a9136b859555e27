"""Processes that want to drive one run on object storage, for tests and benchmarks of its lease.

`python lease_processes.py race` takes the lease of each URI that it reads, and says who has it.
`python lease_processes.py drive URI SLOWER` wants the run for ever: takes it whenever it can, and writes until it has
lost it. The lease's times are those below, so many times as long.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(REPOSITORY)]

from ray_jobs.errors import RunBusyError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.remote import lease
from ray_jobs.runs.remote.bucket import Bucket
from ray_jobs.runs.remote.run_mirror import RunMirror
from trainers.storage.whole_files import write_whole

WRITTEN = ("config.json", "summary.json", "folds/0/status.json")
SILENCE_S, RENEW_S, LOOK_S = 0.4, 0.05, 0.03


class Driver:
    """Such a process as its parent has it."""

    def __init__(self, *words: str, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, *words]
        self.process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{words}\n".encode())

    def hear(self) -> list[str]:
        """The next line, in words."""
        assert self.process.stdout is not None
        words = self.process.stdout.readline().decode().split()
        assert words, "the process has ended"
        return words

    def send(self, number: int) -> None:
        self.process.send_signal(number)


@contextlib.contextmanager
def started(count: int, *words: str, environment: dict[str, str]) -> Iterator[list[Driver]]:
    """So many of them, which are gone afterwards."""
    drivers = [Driver(*words, environment=environment) for _ in range(count)]
    try:
        yield drivers
    finally:
        for driver in drivers:
            driver.process.kill()
            driver.process.communicate()


def run_races(drivers: Sequence[Driver], uris: Sequence[str]) -> list[int]:
    """How many drivers each run has that all of these want at the same moment."""
    winners = []
    for uri in uris:
        for driver in drivers:
            driver.tell(uri)
        winners.append([driver.hear()[0] for driver in drivers].count("won"))
        for driver in drivers:
            driver.tell("end")
    return winners


def take_over(drivers: Sequence[Driver], times: int, chance: random.Random, wait_s: float = 300.0) -> int:
    """Stops whoever has the run at a random moment, so many times, and lets it go on at a random moment after another
    has taken it.

    Returns:
        How often a driver lost the run that was not stopped, because the machine was too busy for it.

    Raises:
        TimeoutError: nobody has taken the run, or written to it, for `wait_s`: the server is too slow for the lease.
    """
    unasked = 0
    while times:
        holder = _await_word(drivers, "wrote", wait_s)
        others = [driver for driver in drivers if driver is not holder]
        time.sleep(chance.uniform(0, 0.1))
        if _find_ready(others, 0):
            unasked += 1
            continue
        holder.send(signal.SIGSTOP)
        _await_word(others, "took", wait_s)
        time.sleep(chance.uniform(0, 0.1))
        holder.send(signal.SIGCONT)
        times -= 1
    return unasked


def _await_word(drivers: Sequence[Driver], word: str, wait_s: float) -> Driver:
    """The first of these that says a word."""
    deadline = time.monotonic() + wait_s
    while True:
        ready = _find_ready(drivers, max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"nobody {word} the run in {wait_s:g} s")
        for driver in ready:
            if driver.hear()[0] == word:
                return driver


def _find_ready(drivers: Sequence[Driver], wait_s: float) -> list[Driver]:
    ready, _, _ = select.select([driver.process.stdout for driver in drivers], [], [], wait_s)
    return [driver for driver in drivers if driver.process.stdout in ready]


def find_late_writes(stored: Sequence[tuple[str, str]], run: str) -> tuple[int, int]:
    """Writes of drivers that had lost the run: those after a write of a later one to the same object; and those to
    another object, which the later one had not put yet, and put over them."""
    latest, of_object, late, replaced = 0, dict.fromkeys(WRITTEN, 0), 0, 0
    for key, content in stored:
        name = key.removeprefix(f"{run}/")
        if name in WRITTEN:
            fence = int(content.split()[0])
            late += fence < of_object[name]
            replaced += of_object[name] <= fence < latest
            of_object[name], latest = max(fence, of_object[name]), max(fence, latest)
    return late, replaced


def _race() -> None:
    # No process that is merely kept waiting by a busy machine is taken for dead.
    lease.SILENCE_S, lease.RENEW_S, lease.LOOK_S = 600.0, 0.1, 0.02
    for line in sys.stdin:
        if line.strip() == "end":
            continue
        mine = lease.Lease(Bucket(line.strip()))
        try:
            mine.take()
            print("won", flush=True)
            sys.stdin.readline()
        except RunBusyError:
            print("refused", flush=True)
        mine.release()


def _drive(uri: str, slower: float = 1.0) -> None:
    lease.SILENCE_S, lease.RENEW_S, lease.LOOK_S = (slower * one_s for one_s in (SILENCE_S, RENEW_S, LOOK_S))
    while True:
        # OSError: on a busy machine the server may not answer in time.
        with tempfile.TemporaryDirectory() as place, contextlib.suppress(RunBusyError, OSError):
            mirror = RunMirror(RunFolder(Path(place) / "run"), uri)
            mirror.lease.take()
            print("took", mirror.lease.fence, flush=True)
            mirror.pull_run(may_begin=True)
            try:
                _write(mirror)
            finally:
                mirror.lease.release()


def _write(mirror: RunMirror) -> None:
    number = 0
    while True:
        number += 1
        for name in WRITTEN:
            write_whole(mirror.root / name, f"{mirror.lease.fence} {number}".encode())
        mirror.push_run()
        if number == 1:
            print("wrote", mirror.lease.fence, flush=True)


if __name__ == "__main__":
    _race() if sys.argv[1] == "race" else _drive(sys.argv[2], *map(float, sys.argv[3:]))
