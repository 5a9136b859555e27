"""A run on a machine that is not as it should be: without its screen or a home folder, among another user's files,
ended from outside."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.processes import REPOSITORY, clean_environment, find_processes

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

WORDS = ("run.name=a", "run.dashboard=false", "tracking.wandb=disabled", "data.max_rows=60", "folds.count=2")
SHORT, LONG = (*WORDS, "training.epochs=2"), (*WORDS, "training.epochs=2000")


def start_kfold(home: Path, words: tuple[str, ...], **options: Any) -> subprocess.Popen[str]:
    """The job in a session of its own, with its own HOME and temporary folder, from there."""
    environment = clean_environment(HOME=str(home), RAY_TMPDIR=str(home))
    command = [sys.executable, str(REPOSITORY / "ray_jobs" / "kfold.py"), *words]
    return subprocess.Popen(command, cwd=home, env=environment, text=True, start_new_session=True, **options)


def wait_until_it_trains(folder: RunFolder, driver: subprocess.Popen[str]) -> None:
    """Returns when each fold has validated."""
    while any(len(read_lines(folder.fold_record(fold))) < 20 for fold in range(2)):
        assert driver.poll() is None
        time.sleep(0.05)


def assert_nothing_is_left(home: Path) -> None:
    """Ray's processes notice a little later that theirs is over."""
    deadline = time.monotonic() + 30
    while find_processes(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert find_processes(home) == {}


@pytest.fixture
def home(tmp_path_factory):
    """A short one: Ray's sockets lie below."""
    return tmp_path_factory.mktemp("h")


def test_a_run_goes_on_without_its_screen_and_beside_packages_of_its_names(home):
    """`| head -1`, from a folder whose packages end whoever imports them."""
    for name in ("trainers", "ensemble", "ray_jobs"):
        (home / name).mkdir()
        (home / name / "__init__.py").write_text("raise SystemExit(f'{__file__} was imported')")
    with start_kfold(home, SHORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        assert driver.stdout.readline().startswith("run a: 60 rows")
        driver.stdout.close()
        said = driver.stderr.read()
    folder = RunFolder(home / "ray_results" / "a")
    assert (driver.returncode, said) == (0, "")
    assert json.loads(folder.summary.read_text())["outcome"] == "complete"
    assert "the screen takes nothing ([Errno 32] Broken pipe)" in folder.ray_log.read_text()


def test_a_terminal_that_is_gone_is_an_interrupt_and_the_folds_save(home):
    ours, theirs = pty.openpty()
    with start_kfold(home, LONG, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=_take_terminal) as driver:
        os.close(theirs)
        folder = RunFolder(home / "ray_results" / "a")
        wait_until_it_trains(folder, driver)
        os.close(ours)
        assert driver.wait(60) == 130
    assert [json.loads(folder.fold(fold).status.read_text())["state"] for fold in range(2)] == ["interrupted"] * 2
    assert_nothing_is_left(home)


def _take_terminal() -> None:
    """Makes standard input the terminal of this session, as a shell's is: its end is then told to the whole group."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_signal_to_all_processes_at_once_ends_a_run_at_once_and_quietly(home):
    """As `timeout`, systemd and batch systems send it: Ray is ended, too, and nobody is left to save."""
    with start_kfold(home, LONG, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_until_it_trains(RunFolder(home / "ray_results" / "a"), driver)
        began = time.monotonic()
        os.killpg(driver.pid, signal.SIGTERM)
        said = driver.stdout.read()
    assert driver.returncode == 130
    assert time.monotonic() - began < 15
    assert said.splitlines()[-1].startswith("interrupted: every fold goes on from its last checkpoint")
    assert "task_manager" not in said
    assert_nothing_is_left(home)
