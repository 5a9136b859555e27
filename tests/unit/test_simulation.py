"""Histories of simulated runs, by the seed; see `tests/simulation`."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys

import pytest
from support.processes import REPOSITORY

pytest.importorskip("greenlet", reason="the simulation's threads")

# When they did: each change of the simulation gives seeds other histories.
HAVE_FAILED = ("38", "64", "109", "121", "167", "179", "197", "218", "469", "669", "978")


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the simulation in a process of its own: it puts other functions in the place of Python's."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join([str(REPOSITORY), "tests"])}
    return subprocess.run(
        [sys.executable, "-m", "simulation.simulate", *words],
        cwd=REPOSITORY, env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip


def test_whatever_happens_a_run_ends_as_the_undisturbed_one():
    done = simulate("0", "17", *HAVE_FAILED)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_histories_of_today():
    first = 10_000 * datetime.date.today().toordinal()
    done = simulate(str(first), str(first + 10_000), "--seconds=25")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_is_one_history():
    first, second = simulate("7"), simulate("7")
    assert first.stdout == second.stdout, first.stderr
    assert "seed 7: holds" in first.stdout, first.stdout[-2000:] + first.stderr
