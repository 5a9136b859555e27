"""A short form of `benchmarks/soak.py`: every kind of kill once."""

from __future__ import annotations

import subprocess
import sys

from processes import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))
from soak import PROCESSES


def test_runs_that_are_killed_in_every_way_lose_nothing_and_end_with_the_bits_of_one_that_was_left_alone():
    words = ("training.epochs=8", "checkpoint.every_steps=3", "data.max_rows=300", "checkpoint.min_interval_s=0")
    command = [sys.executable, "benchmarks/soak.py", "--kills", "10", "--seed", "5", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in (*PROCESSES, "driver\n", "all of Ray", "driver and a file"):
        assert f"SIGKILL: {kind}" in done.stdout
    assert "SIGINT" in done.stdout
    assert "SIGTERM" in done.stdout
