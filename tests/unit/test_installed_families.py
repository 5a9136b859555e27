"""Another installed package adds a family and a kind of predictions: entry points, as pip leaves them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.processes import REPOSITORY, clean_environment

FILES = {
    "__init__.py": "",
    "config.py": """
from dataclasses import dataclass
from typing import ClassVar

from trainers.unet_segmentation import config


@dataclass(frozen=True)
class Config(config.Config):
    PREDICTS: ClassVar = "lung_map"
""",
    "recipes.py": '''
from lungs.config import Config
from trainers.families import Recipe
from trainers.unet_segmentation.recipes import unet_segmentation_small


def lungs_small() -> Recipe:
    """Lungs on made-up pictures."""
    like = unet_segmentation_small()
    return Recipe(Config(**vars(like.trainer)), like.sections)


RECIPES = (lungs_small,)
''',
    "inventory.py": "from trainers.unet_segmentation.inventory import *",
    "train.py": "from trainers.unet_segmentation.train import *",
    "maps/__init__.py": "",
    "maps/figures.py": "",
    "maps/kind.py": """
from ensemble.maps.kind import KIND as MAPS


class LungMaps(type(MAPS)):
    name, title = "lung_map", "maps of lungs"


KIND = LungMaps()
""",
}


@pytest.fixture
def site(tmp_path):
    """What an installed package leaves on the path."""
    root, names = tmp_path / "site", {"METADATA": "Metadata-Version: 2.1\nName: lungs\nVersion: 1.0\n"}
    names["entry_points.txt"] = "[ray_kfold.families]\nlungs = lungs\n[ray_kfold.kinds]\nlungs = lungs.maps\n"
    for folder, files in (("lungs", FILES), ("lungs-1.0.dist-info", names)):
        for name, text in files.items():
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_text(text)
    return root


def run(folder, site, *command):
    environment = clean_environment(PYTHONPATH=str(site))
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_an_installed_family_is_trained_by_its_recipe_as_the_projects_own(tmp_path, site):
    done = run(tmp_path, site, REPOSITORY / "ray_jobs/kfold.py", "--config-name=lungs_small", "--dry-run")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout[: done.stdout.rindex("}") + 1])
    assert (config["family"], config["recipe"]) == ("lungs", "lungs_small")
    assert "fold 2: " in done.stdout


def test_an_installed_kind_is_one_of_all_kinds_and_loads_its_modules(tmp_path, site):
    code = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from ensemble.kinds import find_kinds
from trainers.families import find_families
print(list(find_kinds()), find_families())
find_kinds()["lung_map"].load_modules()
print("lungs.maps.figures" in sys.modules, "torch" in sys.modules)
"""
    done = run(tmp_path, site, "-c", code)
    assert done.returncode == 0, done.stderr
    kinds, loaded = done.stdout.splitlines()
    assert kinds.count("'lung_map'") == kinds.count("'lungs'") == 1
    assert all(repr(name) in kinds for name in ("number", "map", "classes", "clip_regression", "own_trainer"))
    assert loaded == "True False"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("lungs = lungs.nowhere", "family 'lungs', which is installed as lungs.nowhere, cannot be loaded"),
        ("unet_segmentation = lungs", "two families are called 'unet_segmentation': trainers.unet_segmentation and"),
    ],
)
def test_a_family_that_cannot_be_loaded_or_has_a_name_that_is_taken_is_named(tmp_path, site, entry, message):
    (site / "lungs-1.0.dist-info" / "entry_points.txt").write_text(f"[ray_kfold.families]\n{entry}\n")
    done = run(tmp_path, site, REPOSITORY / "ray_jobs/kfold.py", "--dry-run")
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
