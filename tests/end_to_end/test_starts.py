"""A short form of `benchmarks/starts.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.processes import REPOSITORY


@pytest.mark.slow
def test_every_start_beside_busy_processes_is_good():
    command = [sys.executable, "benchmarks/starts.py", "--starts", "3", "--load", "8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures in 3 runs and 3 dry runs beside 8 busy processes" in done.stdout
