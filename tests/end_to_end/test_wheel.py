"""The wheel, installed into an environment that has its packages, and used from a folder that is no checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.processes import REPOSITORY, clean_environment

SOURCES = ("ray_jobs", "trainers", "ensemble")
FILES = ("pyproject.toml", "README.md", "LICENSE", "cluster.yaml", "requirements.txt")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `bin` folder of an environment that got the wheel; all other packages are those of the tests."""
    root = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, root / "source" / name, ignore=ignored, symlinks=True)
    for name in FILES:
        shutil.copy(REPOSITORY / name, root / "source")
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=root / "source", check=True, capture_output=True)
    (wheel,) = (root / "source" / "dist").glob("*.whl")
    venv.create(root / "venv", with_pip=True)
    pip = [root / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = (root / "venv" / "lib").glob("python*/site-packages")
    (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "venv" / "bin"


@pytest.fixture
def users(tmp_path):
    """An empty HOME, and in it a folder with packages whose names the project has, too."""
    folder = tmp_path / "home" / "work"
    for name in ("trainers", "ensemble"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('of the user')\n")
    return folder


def kfold(bin_folder: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [bin_folder / "kfold", *words],
        cwd=folder,
        env=clean_environment(HOME=str(folder.parent), COLUMNS="200"),
        text=True,
        capture_output=True,
        check=False,
        timeout=600,
    )


def test_its_command_answers_and_names_itself(installed, users):
    said = kfold(installed, users, "--version")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("ray-kfold 0.")
    assert "checkout" not in said.stdout
    shown = kfold(installed, users, "wandb-sync", "--help").stdout
    assert shown.startswith("usage: kfold wandb-sync RUN ")
    assert "    kfold wandb-sync auctions tracking.project=prices" in shown
    assert ".py" not in kfold(installed, users, "run", "--help").stdout.partition("Recipes")[0].partition("It is")[0]


def test_it_has_every_file_of_the_packages(installed):
    (site,) = installed.parent.glob("lib/python*/site-packages")
    for name in SOURCES:
        wanted = {path.relative_to(REPOSITORY) for path in (REPOSITORY / name).rglob("*") if path.is_file()}
        wanted = {path for path in wanted if "__pycache__" not in path.parts}
        assert {path for path in wanted if not (site / path).is_file()} == set()
        assert not [path for path in wanted if (site / path).is_symlink()]
    assert (site / "ray_jobs/deploy/cluster.yaml").read_bytes() == (REPOSITORY / "cluster.yaml").read_bytes()


def test_a_run_in_a_folder_with_packages_of_the_same_names_trains_and_leaves_the_folder_alone(installed, users):
    words = ("training.epochs=1", "data.max_rows=60", "folds.count=2", "tracking.tensorboard=true", "run.name=small")
    shown = kfold(installed, users, "run", "--dry-run", *words)
    assert shown.returncode == 0, shown.stderr
    assert "fold 1: 30 rows train, 30 validate" in shown.stdout
    done = kfold(installed, users, "run", *words, "tracking.wandb=disabled", "run.dashboard=false")
    assert done.returncode == 0, done.stdout + done.stderr
    run = users.parent / "ray_results" / "small"
    assert json.loads((run / "summary.json").read_text())["outcome"] == "complete"
    assert "`kfold submit` combines it anew" in (run / "README.md").read_text()
    assert json.loads((run / "provenance.json").read_text())["command"].startswith("kfold run training.epochs=1 ")
    assert (run / "tensorboard" / "fold_1" / "events.out.tfevents.0.kfold").is_file()
    assert sorted(path.name for path in users.iterdir()) == ["ensemble", "trainers"]
    status = kfold(installed, users, "status", "small")
    assert status.returncode == 0, status.stderr
    assert "no driver is at work" in status.stdout
