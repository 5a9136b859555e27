"""The scripts of `examples/`, each once undisturbed and once killed in mid-run and continued by the same call.

Where KFOLD_PYTHON names the interpreter of an environment into which the wheel was installed, they run there. A script
whose framework is missing is skipped."""

from __future__ import annotations

import ast
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.processes import REPOSITORY
from support.users_scripts import WAIT_S, is_there, open_ray, start_script

EXAMPLES = REPOSITORY / "examples"
NEEDS = {
    "lightgbm_function": ("lightgbm",),
    "torch_loop": (),
    "ray_train_loop": (),
    "lightning_module": ("lightning",),
    "hugging_face_trainer": ("transformers", "accelerate"),
    "sklearn_pipeline": (),
}
SAVING = ("torch_loop", "ray_train_loop", "lightning_module", "hugging_face_trainer")  # where they are
MOST_LINES = 30


def count_lines(script: Path) -> int:
    """Lines of code, without the first docstring, comments and empty lines."""
    text = script.read_text()
    after = text.splitlines()[ast.parse(text).body[0].end_lineno :]
    return len([line for line in after if line.strip() and not line.strip().startswith("#")])


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with open_ray(tmp_path_factory.mktemp("node")) as address:
        yield address


class Home:
    """A user's home, with the scripts and their tables in a folder that is no checkout."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self.work, self.address = root, root / "work", address
        shutil.copytree(EXAMPLES, self.work)

    def start(self, name: str) -> subprocess.Popen[str]:
        return start_script(f"{name}.py", self.root, self.work, self.address)

    def finish(self, name: str) -> None:
        """Runs a script to its end."""
        assert self.start(name).wait(WAIT_S) == 0, self.output.read_text()

    @property
    def output(self) -> Path:
        return self.root / "output.txt"

    @property
    def run(self) -> Path:
        """The folder of the only run."""
        (summary,) = (self.root / "ray_results").glob("*/config.json")
        return summary.parent

    def list_finished(self) -> dict[str, bytes]:
        """The manifest of each fold that is finished."""
        found = (self.root / "ray_results").glob("*/folds/*/manifest.json")
        return {path.parent.name: path.read_bytes() for path in found}

    def list_saved(self) -> set[str]:
        """Folds that have saved where they are."""
        found = (self.root / "ray_results").glob("*/folds/*/checkpoints/resume_*/checkpoint.json")
        return {path.parents[2].name for path in found}

    def read_attempts(self) -> dict[str, int]:
        """How many attempts each fold has had."""
        return {
            path.parent.name: json.loads(path.read_text())["attempt"] for path in self.run.glob("folds/*/status.json")
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_a_script_that_is_killed_is_continued_by_the_same_call(name, address, tmp_path):
    if not is_there(*NEEDS[name]):
        pytest.skip(f"needs {' and '.join(NEEDS[name])}")
    whole, killed = Home(tmp_path / "whole", address), Home(tmp_path / "killed", address)
    driver = killed.start(name)
    deadline = time.monotonic() + WAIT_S
    while not killed.list_finished() or (name in SAVING and not killed.list_saved() - set(killed.list_finished())):
        assert driver.poll() is None, killed.output.read_text()
        assert time.monotonic() < deadline, killed.output.read_text()
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished, saved = killed.list_finished(), killed.list_saved()
    assert 1 <= len(finished) < 4, "it is killed in mid-run"
    killed.finish(name)
    # No finished fold is trained again; one that had saved goes on.
    assert finished.items() <= killed.list_finished().items()
    attempts = killed.read_attempts()
    assert {attempts[fold] for fold in finished} == {1}
    assert max(attempts.values()) == 2
    logs = "".join(path.read_text() for path in killed.run.glob("log/fold_*/*.log"))
    assert ("goes on at" in logs) == bool(saved - set(finished)), logs
    whole.finish(name)
    assert (killed.run / "oof.parquet").read_bytes() == (whole.run / "oof.parquet").read_bytes()


@pytest.mark.parametrize("name", NEEDS)
def test_a_script_is_short(name):
    assert count_lines(EXAMPLES / f"{name}.py") <= MOST_LINES
