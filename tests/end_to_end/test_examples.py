"""The scripts of `examples/`, each once undisturbed and once killed in mid-run and continued by the same call.

KFOLD_PYTHON names the interpreter of an environment into which the wheel was installed; without it the scripts run in
that of the tests, beside the checkout. A script whose framework is missing there is skipped."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.processes import REPOSITORY, clean_environment, free_port, start_node

EXAMPLES = REPOSITORY / "examples"
PYTHON = os.environ.get("KFOLD_PYTHON", sys.executable)
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
WAIT_S = 1800


def is_there(*packages: str) -> bool:
    names = repr(packages)
    code = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(name) is None for name in {names}))"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode == 0


def count_lines(script: Path) -> int:
    """Lines of code, without the first docstring, comments and empty lines."""
    text = script.read_text()
    after = text.splitlines()[ast.parse(text).body[0].end_lineno :]
    return len([line for line in after if line.strip() and not line.strip().startswith("#")])


def environment(home: Path, **values: str) -> dict[str, str]:
    clean = clean_environment(HOME=str(home), WANDB_MODE="disabled", **values)
    if "KFOLD_PYTHON" not in os.environ:
        clean["PYTHONPATH"] += f"{os.pathsep}{REPOSITORY}"
    return clean


def start_patiently(*arguments: Any, ray: str) -> subprocess.Popen[bytes]:
    """Ray waits 30 s for its own processes, which is too short where many others are at work."""
    for _ in range(5):
        with suppress(AssertionError):
            return start_node(*arguments, ray=ray)
    return start_node(*arguments, ray=ray)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A Ray of two CPUs, which the scripts join and leave."""
    root, address = tmp_path_factory.mktemp("node"), f"127.0.0.1:{free_port()}"
    words = ("--head", f"--port={address.rpartition(':')[2]}", "--node-ip-address=127.0.0.1")
    words = (*words, "--include-dashboard=false", f"--temp-dir={root / 'ray'}")
    node = start_patiently(root / "node.txt", environment(root), *words, ray=str(Path(PYTHON).with_name("ray")))
    yield address
    node.terminate()
    node.wait()


class Home:
    """A user's home, with the scripts and their tables in a folder that is no checkout."""

    def __init__(self, root: Path, address: str) -> None:
        self.root, self.work, self.address = root, root / "work", address
        shutil.copytree(EXAMPLES, self.work)

    def start(self, name: str) -> subprocess.Popen[str]:
        with self.output.open("a") as output:
            return subprocess.Popen(
                [PYTHON, f"{name}.py"],
                cwd=self.work,
                env=environment(self.root, RAY_ADDRESS=self.address),
                text=True,
                stdout=output,
                stderr=output,
            )

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
