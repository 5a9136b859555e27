"""No family's name stands in `ray_jobs/`, in code, texts or comments, and no kind of predictions is asked for by its
name."""

from __future__ import annotations

import re

from support.processes import REPOSITORY

from ensemble.kinds import find_kinds
from ray_jobs.config.recipes import RECIPES
from trainers.families import find_families

# Which recipe is trained where none is named has to be said somewhere.
ALLOWED = {("ray_jobs/config/recipes.py", 'DEFAULT_RECIPE = "clip_multimodal_small"')}


SCRIPTS = "ray_jobs/api/"  # what scripts call is about the family of their own trainers
SHORT = {"clip", "unet", "u-net"}  # what families are called for short


def test_no_family_s_name_stands_in_ray_jobs():
    names = re.compile("|".join({*find_families(), *RECIPES, *SHORT}), re.IGNORECASE)
    found = {(path, line) for path, line in list_lines(names) if not path.startswith(SCRIPTS)}
    assert found == ALLOWED


def list_lines(pattern: re.Pattern[str]) -> set[tuple[str, str]]:
    """File and line of what is found in `ray_jobs/`."""
    return {
        (str(path.relative_to(REPOSITORY)), line.strip())
        for path in sorted((REPOSITORY / "ray_jobs").rglob("*.py"))
        for line in path.read_text().splitlines()
        if pattern.search(line)
    }


def test_nothing_in_ray_jobs_depends_on_which_kind_is_predicted():
    """Neither a name that a family predicts, nor a module or a class of a kind."""
    kinds = find_kinds().values()
    folders = "|".join(type(kind).__module__.split(".")[1] for kind in kinds)
    names = "|".join(kind.name for kind in kinds)
    parts = (
        rf"(==|!=|\bin) [(\[{{]?[\"']({names})[\"']",
        r"load_kind\([\"']|kind\.name\b.*[\"']|predicts_|PREDICTS\b.*==",
        rf"ensemble\.({folders})\b|from ensemble import|import_module\(.*ensemble",
        r"isinstance\([^)]*(Combiner|Columns|Combinable|Kind)\b",
    )
    pattern = re.compile("|".join(parts))
    assert list_lines(pattern) == set()


def test_what_only_one_kind_writes_is_not_looked_for_in_ray_jobs():
    """Names of scores and columns by which one could tell the kinds apart; a number's `prediction` is the schema's."""
    own = {name for kind in find_kinds().values() for name in (*kind.scores, *kind.row_files)}
    columns = own | {"foreground", "prediction_z", "probability_CHW", "places"}
    pattern = re.compile("|".join(rf"[\"']{name}[\"']" for name in sorted(columns)))
    allowed = {"ray_jobs/predict.py", "ray_jobs/prediction/job.py", "ray_jobs/runs/folder.py"}  # --masks, and paths
    assert {path for path, _ in list_lines(pattern)} <= allowed
