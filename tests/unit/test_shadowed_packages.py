"""A user's own `trainers/` or `ensemble/` comes before the project's on the path."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.processes import REPOSITORY, clean_environment


@pytest.fixture
def users(tmp_path):
    """A folder with packages of these names, and a script beside them."""
    for name in ("trainers", "ensemble"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def run(folder, *words, path=()):
    environment = clean_environment(PYTHONPATH=":".join(map(str, [*path, REPOSITORY])))
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )


def test_a_script_beside_them_has_the_projects_packages_and_its_own_path(users):
    (users / "script.py").write_text(
        "import sys\nbefore = list(sys.path)\nfrom ray_jobs.config.recipes import RECIPES\nassert sys.path == before\n"
        "import ensemble, trainers\nprint(len(RECIPES), trainers.__file__, ensemble.__file__)\n"
    )
    done = run(users, "script.py", path=[users])
    assert done.returncode == 0, done.stderr
    _, *files = done.stdout.split()
    assert files == [str(REPOSITORY / name / "__init__.py") for name in ("trainers", "ensemble")]


def test_a_package_that_was_imported_before_is_named(users):
    (users / "script.py").write_text("import trainers\nassert trainers.MINE\nimport ray_jobs\n")
    done = run(users, "script.py")
    assert done.returncode == 1
    found = users / "trainers" / "__init__.py"
    assert f"`import trainers` found {found} before ray_jobs was imported" in done.stderr.splitlines()[-1]
    assert "rename yours" in done.stderr


def test_a_module_run_from_their_folder_shows_its_plan(users):
    done = run(users, "-m", "ray_jobs", "run", "--dry-run", path=[users])
    assert done.returncode == 0, done.stderr
    assert "fold 2: 400 rows train, 200 validate" in done.stdout
