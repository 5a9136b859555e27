"""Every named recipe of every family: a function that returns a complete config. `--config-name=NAME` picks one.

The recipes stand in the families' own folders. Imports neither torch nor ray, so that `--help` and `--dry-run` answer
at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps

from ray_jobs.config.run import RunConfig
from ray_jobs.errors import RunError
from trainers.families import Recipe, find_families, load_recipes_module
from trainers.values import suggest

DEFAULT_RECIPE = "clip_multimodal_small"


def _collect(families: list[str]) -> tuple[dict[str, Callable[[], RunConfig]], dict[str, dict[str, str]]]:
    """The recipes of all families by name, and the flags that users of some know.

    Raises:
        ValueError: two families have a recipe of the same name.
    """
    recipes: dict[str, Callable[[], RunConfig]] = {}
    aliases: dict[str, dict[str, str]] = {}
    for family in families:
        module = load_recipes_module(family)
        own = {recipe.__name__: _complete(family, recipe) for recipe in module.RECIPES}
        if shared := sorted(own.keys() & recipes.keys()):
            raise ValueError(f"trainers/{family}/recipes.py: another family has a recipe {shared[0]!r}: rename it")
        recipes |= own
        aliases |= getattr(module, "ALIASES", {})
    return recipes, aliases


def _complete(family: str, recipe: Callable[[], Recipe]) -> Callable[[], RunConfig]:
    """A function that returns a family's recipe as the config of a run."""

    @wraps(recipe)
    def build() -> RunConfig:
        made = recipe()
        config = RunConfig(recipe=recipe.__name__, family=family, trainer=made.trainer)
        sections = {name: replace(getattr(config, name), **fields) for name, fields in made.sections.items()}
        return replace(config, members=made.members, **sections)

    return build


# ALIASES: flags that a recipe's users know, and the fields they mean.
RECIPES, ALIASES = _collect(find_families())


def find_recipe(name: str) -> Callable[[], RunConfig]:
    """The recipe of a name.

    Raises:
        RunError: there is none; the message lists all.
    """
    if name not in RECIPES:
        raise RunError(f"no recipe {name!r}: expected one of {', '.join(RECIPES)}{suggest(name, RECIPES)}")
    return RECIPES[name]
