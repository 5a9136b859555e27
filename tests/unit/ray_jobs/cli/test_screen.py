"""Whatever becomes of the screen, a command goes on; and what is not meant for a user does not reach it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import REPOSITORY, clean_environment

from ray_jobs.cli.console import redirect_output
from ray_jobs.cli.screen import LossyFile

COMMAND = """
import sys, warnings
from pathlib import Path
from ray_jobs.cli.console import redirect_output, open_console
from ray_jobs.cli.entry import main_with_errors

def main(argv):
    console = open_console()
    print("first")
    with redirect_output(Path(argv[0], "ray.log")):
        for number in range(1000):
            console.print(f"line {number} × 2")
    warnings.warn("of a library")
    Path(argv[0], "done").touch()
    return 0

main_with_errors(main)
"""


def run(folder: Path, redirected: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command above in a shell, its output redirected there."""
    words = [sys.executable, "-c", COMMAND, str(folder)]
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirected}', "bash", *words],
        cwd=REPOSITORY,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirected", "log"),
    [
        ("| head -1; exit ${PIPESTATUS[0]}", "the screen takes nothing ([Errno 32] Broken pipe)"),
        (">/dev/full", "the screen takes nothing ([Errno 28] No space left on device)"),
        (">/dev/full 2>&1", ""),
        (">&-", ""),
        (">&- 2>&- <&-", ""),
    ],
)
def test_a_command_goes_on_whatever_becomes_of_its_screen(tmp_path, redirected, log):
    done = run(tmp_path, redirected)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr.replace(log, "")
    assert (tmp_path / "done").exists()
    if log:
        assert log in (tmp_path / "ray.log").read_text() + done.stderr


def test_a_character_that_the_screen_has_not_is_shown_as_a_question_mark(tmp_path):
    done = run(tmp_path, PYTHONIOENCODING="ascii", LANG="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert "line 999 ? 2\n" in done.stdout


def test_what_a_library_warns_of_is_shown_to_whoever_asks(tmp_path):
    assert run(tmp_path).stderr == ""
    assert "UserWarning: of a library" in run(tmp_path, PYTHONWARNINGS="default").stderr


def test_what_is_not_written_in_python_goes_to_the_log_too(tmp_path, capfd):
    with redirect_output(tmp_path / "log" / "ray.log"):
        os.write(2, b"E0000 task_manager.cc: of Ray's core\n")
        print("of a library")
        print("of another", file=sys.stderr)
    os.write(2, b"of the driver\n")
    lines = (tmp_path / "log" / "ray.log").read_text().splitlines()
    assert sorted(lines) == ["E0000 task_manager.cc: of Ray's core", "of a library", "of another"]
    assert capfd.readouterr() == ("", "of the driver\n")


def test_a_log_on_a_full_disk_costs_nobody_anything():
    with LossyFile("/dev/full", "a") as file:
        assert file.write(b"what a library prints") == 21
