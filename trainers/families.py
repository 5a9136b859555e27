"""Which families there are, and what each says of itself beside how it trains: recipes, metrics, packages, advice.

A family is a package in `trainers/` with a `recipes.py`, or one with the same files that an installed package names as
an entry point of the group `ray_kfold.families`. Nothing else lists them. Light: no torch, no pandas, no ray.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

# When a family records metrics: `Metrics.moment`.
START, STEP, EPOCH, BEST, END = (
    "at the start",
    "each optimiser step",
    "each epoch",
    "after the last epoch",
    "at the end",
)
SUBMITTED, REPORTED = "submission written", "report written"
# The group of entry points by which other packages add families.
INSTALLED = "ray_kfold.families"


@dataclass(frozen=True)
class Recipe:
    """A complete config by name: what a function in a family's `recipes.py` returns.

    Attributes:
        trainer: the family's `Config`.
        sections: what differs from the defaults in the run's other sections, {"folds": {"kind": "grouped"}}.
        members: trained beside it on the same folds, each as `name [recipe] [field=value ...]`.
    """

    trainer: Any
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """Metrics that are recorded together.

    Attributes:
        run: whose record and W&B run they are in.
        moment: when a row with all of them is written.
        meanings: what each one means, by its exact name; `{i}` stands for a fold's or a model's number from 0.
        family: the model family that records them; None: every family.
        kind: what a family predicts that records them (`Config.PREDICTS`); None: anything.
    """

    run: Literal["fold", "ensemble", "submission", "trial"]
    moment: str
    meanings: Mapping[str, str]
    family: str | None = None
    kind: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The exact names."""
        return tuple(self.meanings)


@dataclass(frozen=True)
class Advice:
    """What a user can do, in words that begin a sentence or follow a colon; they name options of the family.

    Attributes:
        memory: the device's memory is full.
        loss: the training loss is not finite.
    """

    memory: str
    loss: str


@lru_cache
def _find_packages() -> dict[str, str]:
    """The package of each family, by the family's name.

    Raises:
        ValueError: two families have the same name.
    """
    packages = {path.parent.name: f"trainers.{path.parent.name}" for path in Path(__file__).parent.glob("*/recipes.py")}
    for found in sorted(entry_points(group=INSTALLED)):
        if packages.setdefault(found.name, found.value) != found.value:
            raise ValueError(
                f"two families are called {found.name!r}: {packages[found.name]} and {found.value}, an entry point of "
                f"{INSTALLED}; uninstall or rename one"
            )
    return packages


def find_families() -> list[str]:
    """The names of all families, sorted."""
    return sorted(_find_packages())


def name_package(family: str) -> str:
    """The package that holds a family's modules."""
    return _find_packages().get(family, f"trainers.{family}")


def load_recipes_module(family: str) -> Any:
    """The `recipes` module of a family: `RECIPES`, functions that return a `Recipe`; `ALIASES` by recipe, {flag:
    field}; `SMALLEST`. (No torch.)

    Raises:
        ImportError: another package's family cannot be loaded.
    """
    package = name_package(family)
    try:
        return importlib.import_module(f"{package}.recipes")
    except Exception as error:
        if package.startswith("trainers."):
            raise
        raise ImportError(
            f"family {family!r}, which is installed as {package}, cannot be loaded ({type(error).__name__}: {error}); "
            "mend or uninstall its package"
        ) from error


def load_metrics(family: str) -> tuple[Metrics, ...]:
    """The metrics that a family describes in its `metrics.py`, if it has one."""
    name = f"{name_package(family)}.metrics"
    return importlib.import_module(name).METRICS if importlib.util.find_spec(name) else ()
