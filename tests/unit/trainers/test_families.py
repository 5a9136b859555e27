"""Which families there are, and that nothing has to be told of a new one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from support.processes import REPOSITORY

from ray_jobs.config.recipes import _collect
from trainers.families import find_families

RECIPES_OF_A_NEW_FAMILY = '''
from trainers.families import Recipe
from trainers.new_family.config import Config

def brand_new() -> Recipe:
    """Never seen before."""
    return Recipe(Config(), {"ensemble": {"metric": "dice"}})

RECIPES = (brand_new,)
ALIASES = {"brand_new": {"rate": "optimizer.lr"}}
'''


@pytest.fixture(scope="module")
def with_new_family(tmp_path_factory):
    """A copy of the project with one more folder in `trainers/`, and nothing else."""
    root = tmp_path_factory.mktemp("project")
    for name in ("ray_jobs", "ensemble", "trainers", "docs"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = root / "trainers" / "new_family"
    shutil.copytree(root / "trainers" / "unet_segmentation", folder)
    for path in folder.rglob("*.py"):
        path.write_text(path.read_text().replace("unet_segmentation", "new_family"))
    config = folder / "config.py"
    config.write_text(re.sub(r"PACKAGES: ClassVar = .*", 'PACKAGES: ClassVar = ("packaging",)', config.read_text()))
    (folder / "recipes.py").write_text(RECIPES_OF_A_NEW_FAMILY)
    return root


def test_a_family_is_a_folder_with_recipes():
    assert find_families() == ["clip_regression", "gpt_pretraining", "own_trainer", "unet_segmentation"]


def test_a_new_family_is_one_new_folder(with_new_family):
    code = """
from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.cluster.versions import list_all_packages, list_packages
from ray_jobs.config.run import find_differences
from docs.catalogue import list_metrics
config = parse_kfold(["--config-name=brand_new", "--rate", "0.5"]).config
other = parse_kfold(["--config-name=brand_new", "--rate", "0.5", "training.eval_batch_size=3"]).config
assert (config.family, config.trainer.optimizer.lr, config.ensemble.metric) == ("new_family", 0.5, "dice")
assert "packaging" in list_packages(config.trainer) and "timm" not in list_packages(config.trainer)
assert "packaging" in list_all_packages() and "timm" in list_all_packages()
assert find_differences(config, other)[0] == {}
assert any(one.family == "new_family" for one in list_metrics("new_family", "map"))
parse_kfold(["--help"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=with_new_family, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(with_new_family)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Never seen before." in done.stdout


def test_two_recipes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="another family has a recipe 'unet_segmentation'"):
        _collect(["unet_segmentation", "unet_segmentation"])
