"""No family's name stands in `ray_jobs/`: not in code, texts or comments."""

from __future__ import annotations

import re

from support.processes import REPOSITORY

from ray_jobs.config.recipes import RECIPES
from trainers.families import find_families

# Which recipe is trained where none is named has to be said somewhere.
ALLOWED = {("ray_jobs/config/recipes.py", 'DEFAULT_RECIPE = "clip_multimodal_small"')}


SHORT = {"clip", "unet", "u-net"}  # what families are called for short


def test_no_family_s_name_stands_in_ray_jobs():
    names = re.compile("|".join({*find_families(), *RECIPES, *SHORT}), re.IGNORECASE)
    found = {
        (str(path.relative_to(REPOSITORY)), line.strip())
        for path in sorted((REPOSITORY / "ray_jobs").rglob("*.py"))
        for line in path.read_text().splitlines()
        if names.search(line)
    }
    assert found == ALLOWED
