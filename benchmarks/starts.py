"""Does it always start? Starts the default run and a dry run, again and again, on a machine that is busy with other
work.

    python benchmarks/starts.py [--starts 40] [--load 8]

Beside each start so many processes compute, at the priority that Ray gives its own workers (15): of two that import at
the same time each may then be held up anywhere. A start is good when all folds train and W&B's client has started; it
is then interrupted and has to end with exit code 130. A dry run is good when it ends with 0. Whatever else happens is a
failure, shown with the end of its output. The exit code is 1 if there was one."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, read_status

NUM_FOLDS, PRIORITY_OF_WORKERS = 3, 15
TIMEOUT_S = 600.0
LOOK_INTERVAL_S = 0.1
INTERRUPTED = 130
NO_WANDB = "W&B's client does not start"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--starts", type=int, default=40)
    arguments.add_argument("--load", type=int, default=8, metavar="PROCESSES")
    given = arguments.parse_args()
    failures, seconds = 0, []
    with busy(given.load):
        for number in range(1, given.starts + 1):
            for kind, start in (("dry run", start_dry_run), ("run", start_run)):
                began = time.monotonic()
                problem = start()
                took_s = time.monotonic() - began
                print(f"{kind} {number} of {given.starts}: {problem or 'good'}, {took_s:.1f} s", flush=True)
                failures += problem is not None
                seconds += [took_s] * (kind == "run")
    print(
        f"{failures} failures in {given.starts} runs and {given.starts} dry runs beside {given.load} busy processes; "
        f"a run took {statistics.median(seconds):.1f} s until all folds trained and it was interrupted (median; most "
        f"{max(seconds):.1f} s)"
    )
    return 1 if failures else 0


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many processes that compute."""
    command = ["nice", "-n", str(PRIORITY_OF_WORKERS), sys.executable, "-c", "while True: sum(range(10_000))"]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start_dry_run() -> str | None:
    """What went wrong; None: nothing."""
    with tempfile.TemporaryDirectory(prefix="start_", dir="/tmp") as home:
        driver, log = _start(Path(home), "--dry-run")
        try:
            code = driver.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = _kill(driver)
        return None if code == 0 else f"exit code {code}\n{_read_end(log)}"


def start_run() -> str | None:
    """What went wrong; None: nothing."""
    with tempfile.TemporaryDirectory(prefix="start_", dir="/tmp") as home:
        driver, log = _start(Path(home), "run.name=start")
        folder, deadline = RunFolder(Path(home) / "ray_results" / "start"), time.monotonic() + TIMEOUT_S
        while driver.poll() is None and not _train_all(folder) and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL_S)
        is_started = driver.poll() is None and _train_all(folder)
        driver.send_signal(signal.SIGTERM)  # as SIGINT, which a shell has what runs in its background ignore
        try:
            code = driver.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = _kill(driver)
        output = _read_end(log)
        if is_started and code == INTERRUPTED and NO_WANDB not in output:
            return None
        what = "it had started, then" if is_started else "it has not started:"
        return f"{what} exit code {code}\n{output}\n{_read_end(folder.log / 'wandb.log')}"


def _train_all(folder: RunFolder) -> bool:
    states = [read_status(folder, fold).state for fold in range(NUM_FOLDS)]
    return all(state in (FoldState.TRAINING, FoldState.COMPLETED) for state in states)


def _start(home: Path, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = home / "output.txt"
    dropped = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "WANDB_BASE_URL")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    with log.open("wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "ray_jobs/kfold.py", *words],
            cwd=REPOSITORY,
            env=environment | {"HOME": str(home), "RAY_TMPDIR": str(home)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return driver, log


def _kill(driver: subprocess.Popen[bytes]) -> int:
    os.killpg(driver.pid, signal.SIGKILL)
    return driver.wait()


def _read_end(log: Path) -> str:
    return log.read_bytes()[-3000:].decode(errors="replace") if log.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
