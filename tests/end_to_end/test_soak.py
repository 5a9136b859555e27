"""Short forms of `benchmarks/soak.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.processes import REPOSITORY

sys.path.append(str(REPOSITORY / "benchmarks"))
from soak import KINDS

# With few starts of the driver, which take longest.
FEW = ("coordinator", "worker", "driver and a file")


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [FEW, KINDS], ids=["few", "all"])
def test_runs_that_are_killed_lose_nothing_and_end_with_the_bits_of_one_that_was_left_alone(kinds):
    words = ("training.epochs=6", "checkpoint.every_steps=3", "data.max_rows=300", "checkpoint.min_interval_s=0")
    words += ("folds.count=2", "members=[words training.epochs=8 data.train_pictures= data.test_pictures=]")
    how = ("--kills", str(len(kinds)), "--kinds", ",".join(kinds), "--seed", "5")
    command = [sys.executable, "benchmarks/soak.py", *how, *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{len(kinds)} of {len(kinds)} kills" in done.stdout
