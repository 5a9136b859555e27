"""Which families there are, and what each says of itself beside how it trains: recipes, metrics, packages, advice.

A family is a package in `trainers/` with a `recipes.py`. Nothing else lists them. Light: no torch, no pandas, no ray.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
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


def find_families() -> list[str]:
    """The names of all families, sorted."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/recipes.py"))


def load_recipes_module(family: str) -> Any:
    """The `recipes` module of a family: `RECIPES`, functions that return a `Recipe`; `ALIASES` by recipe, {flag:
    field}; `SMALLEST`. (No torch.)"""
    return importlib.import_module(f"trainers.{family}.recipes")


def load_metrics(family: str) -> tuple[Metrics, ...]:
    """The metrics that a family describes in its `metrics.py`, if it has one."""
    name = f"trainers.{family}.metrics"
    return importlib.import_module(name).METRICS if importlib.util.find_spec(name) else ()
