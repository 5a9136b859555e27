"""Workers that stand still."""

import subprocess
import sys

from support.processes import REPOSITORY

from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.watchdog import keep_stacks

# Moves for a while, then waits for a lock that nobody opens.
WORKER = """
import sys, threading, time
from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.watchdog import Watchdog
stuck, seconds = sys.argv[2] == "stuck", float(sys.argv[3])
with Watchdog(RunFolder(sys.argv[1]), 0, 1, 0, seconds) as watchdog:
    for _ in range(20):
        time.sleep(seconds / 10)
        watchdog.touch()
    print("moved", flush=True)
    lock = threading.Lock()
    lock.acquire()
    def wait_for_ever():
        lock.acquire()
    if stuck:
        wait_for_ever()
"""


def work(folder, how, seconds=0.5):
    command = [sys.executable, "-c", WORKER, str(folder.root), how, str(seconds)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)


def test_a_worker_that_stands_still_leaves_its_stacks_and_ends(tmp_path):
    folder = RunFolder(tmp_path)
    done = work(folder, "stuck")
    assert (done.stdout, done.returncode) == ("moved\n", 1)  # not before it stood still
    (stacks,) = keep_stacks(folder, 0, 1)
    assert stacks == folder.fold_logs(0) / "stacks_attempt1_rank0.txt"
    assert "in wait_for_ever" in stacks.read_text()


def test_a_worker_that_moves_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    done = work(folder, "well")
    assert done.returncode == 0, done.stderr
    assert keep_stacks(folder, 0, 1) == []
    assert list(folder.fold_logs(0).iterdir()) == []
