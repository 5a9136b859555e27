"""`kfold`: every command as a sub-command."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import yaml
from support.processes import REPOSITORY, clean_environment

from ray_jobs.__main__ import COMMANDS

FILES = {path.stem for path in (REPOSITORY / "ray_jobs").glob("*.py")} - {"__init__", "__main__", "errors"}
SLOW = {"torch", "ray", "pandas", "numpy", "pyarrow", "tyro", "rich", "wandb"}


def kfold(*words, cwd=REPOSITORY):
    return subprocess.run(
        [sys.executable, "-m", "ray_jobs", *words],
        cwd=cwd,
        env=clean_environment(PYTHONPATH=str(REPOSITORY), COLUMNS="300"),
        text=True,
        capture_output=True,
        check=False,
    )


def test_every_command_is_one():
    assert set(COMMANDS.values()) == FILES
    assert set(COMMANDS) == {"run" if name == "kfold" else name.replace("_", "-") for name in FILES}


def test_help_has_a_line_for_each_and_loads_nothing_that_takes_long():
    code = (
        "import runpy, sys\nsys.argv = ['kfold', '--help']\nrunpy.run_module('ray_jobs', run_name='__main__')\n"
        f"print(sorted({SLOW!r} & set(sys.modules)))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    named = [line.split()[0] for line in lines if line.startswith("    ")]
    assert named == [*COMMANDS, "deploy-files"]
    assert max(map(len, lines)) <= 80
    # Of the processor: on a busy machine the clock says nothing.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert kfold().stdout.splitlines() == lines


def test_a_sub_command_has_the_help_and_the_exit_code_of_its_file():
    asked = kfold("status", "--help")
    own = subprocess.run(
        [sys.executable, "ray_jobs/status.py", "--help"],
        cwd=REPOSITORY, env=clean_environment(COLUMNS="300"), text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert (asked.returncode, asked.stdout) == (0, own.stdout)
    refused = kfold("submit", "--unheard-of")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: no flag --unheard-of")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["leader-board"], "error: no command 'leader-board'; nearest: leaderboard"),
        (["--run"], "error: no command '--run'; nearest: run"),
        (["deploy-files"], "error: usage: kfold deploy-files FOLDER"),
        (["deploy-files", "docs"], "error: docs exists; name a new folder"),
    ],
)
def test_what_is_no_command_is_refused(words, message):
    done = kfold(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(message)


def test_the_version_is_the_projects():
    assert kfold("--version").stdout.startswith("ray-kfold 0.")


def test_the_files_for_clusters_name_each_other_in_their_new_folder(tmp_path):
    folder = tmp_path / "cluster"
    assert kfold("deploy-files", str(folder)).stdout == f"written: {folder}\n"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"cluster.yaml", "on_premise.yaml", "rayjob.yaml", "sky.yaml", "Dockerfile", "requirements.txt"}
    for name in ("cluster.yaml", "on_premise.yaml"):
        mounts = yaml.safe_load((folder / name).read_text())["file_mounts"]
        assert all((folder / local).is_file() for local in mounts.values() if local[0] != "~")
