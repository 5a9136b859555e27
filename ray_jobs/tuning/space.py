"""The fields that are tuned and the values they may have. Every bound and choice is tried on the recipe before anything
is launched.

A value is text, as on the command line: what a trial is made of is what a user could have typed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray_jobs.config.overrides import override
from ray_jobs.config.run import RunConfig, flatten, to_dict
from ray_jobs.config.words import suggest_field
from ray_jobs.errors import RunError
from trainers.values import suggest

RANGES = ("uniform", "loguniform", "randint", "lograndint")
KINDS = (*RANGES, "choice")
_DIGITS = 4  # of a drawn number: more would be noise in every name and table
_FORM = (
    "expected `field kind values`, such as `optimizer.lr loguniform 1e-5 1e-2` or `model.dropout choice 0.0 0.1 0.3`"
)


@dataclass(frozen=True)
class Dimension:
    """A field and what it may be: low and high of a range, or the choices."""

    field: str
    kind: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.field, self.kind, *self.values))

    @property
    def is_log(self) -> bool:
        """Whether small values are as likely as large ones."""
        return self.kind.startswith("log")

    def as_domain(self) -> Any:
        """Ray Tune's form of it."""
        from ray import tune

        if self.kind == "choice":
            return tune.choice(list(self.values))
        as_number = int if self.kind.endswith("randint") else float
        return getattr(tune, self.kind)(*map(as_number, self.values))

    def write(self, value: Any) -> str:
        """A value that was drawn, as one would type it."""
        if self.kind == "choice":
            return str(value)
        if self.kind.endswith("randint"):
            return str(int(value))
        low, high = map(float, self.values)
        return repr(min(max(float(f"{value:.{_DIGITS}g}"), low), high))

    def read(self, text: str) -> Any:
        """A value as Tune's domain has it; None: it lies outside, as the recipe's own may."""
        if self.kind == "choice":
            return text if text in self.values else None
        value, (low, high) = float(text), map(float, self.values)
        if self.kind.endswith("randint"):
            return int(value) if low <= value < high else None
        return value if low <= value <= high else None

    def list_extremes(self) -> list[str]:
        """Values that all have to be possible: each choice, or both ends of a range and what lies between."""
        if self.kind == "choice":
            return list(self.values)
        low, high = map(float, self.values)
        if self.kind.endswith("randint"):
            return [str(int(low)), str(int(high) - 1)]
        between = math.sqrt(low * high) if self.is_log else (low + high) / 2
        return [repr(low), repr(high), self.write(between)]


def parse_space(lines: Sequence[str], config: RunConfig) -> list[Dimension]:
    """Reads `tune.space`.

    Args:
        lines: as the user wrote them.
        config: the recipe, on which every bound and choice is tried.

    Raises:
        RunError: the message names the line, and the fields or kinds that come near.
    """
    if not lines:
        raise RunError(f"tune.space is empty: {_FORM}")
    dimensions: list[Dimension] = []
    for line in lines:
        dimension = _parse_dimension(line)
        _refuse_field(dimension.field, config)
        if any(dimension.field == other.field for other in dimensions):
            raise RunError(f"tune.space: {dimension.field} is given twice: expected each field once; remove one line")
        dimensions.append(_try_values(dimension, config))
    return dimensions


def read_space(lines: Sequence[str]) -> list[Dimension]:
    """A space that was checked when its tuning began."""
    return [_parse_dimension(line) for line in lines]


def with_fields(config: RunConfig, fields: Mapping[str, str]) -> RunConfig:
    """The config with these values, read as the command line reads them.

    Raises:
        RunError: a value that is not allowed, alone or together with the others.
    """
    words = [f"{name}={value}" for name, value in fields.items()]
    try:
        return override(config, words, sections=[section.name for section in dataclasses.fields(config.trainer)])
    except RunError as error:
        raise RunError(f"tune.space: {' '.join(words)}: {error}") from None


def count_combinations(space: Sequence[Dimension]) -> float:
    """How many different trials there are; infinite where a number is drawn."""
    sizes = [len(set(dimension.values)) if dimension.kind == "choice" else math.inf for dimension in space]
    return math.prod(sizes)


def list_combinations(space: Sequence[Dimension]) -> list[dict[str, str]]:
    """Every trial of a space of choices."""
    names = [dimension.field for dimension in space]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(dimension.values for dimension in space))
    ]


def read_fields(space: Sequence[Dimension], config: RunConfig) -> dict[str, str]:
    """The values that a config has in the fields of a space, as one would type them."""
    values = flatten(to_dict(config))
    return {dimension.field: _write_value(values[dimension.field]) for dimension in space}


def _write_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _parse_dimension(line: str) -> Dimension:
    words = line.split()
    if len(words) < 3:
        raise RunError(f"tune.space: {line!r}: {_FORM}")
    name, kind, *values = words
    if kind not in KINDS:
        raise RunError(f"tune.space: {line!r}: kind {kind!r}: expected one of {', '.join(KINDS)}{suggest(kind, KINDS)}")
    if kind == "choice":
        return Dimension(name, kind, tuple(values))
    if len(values) != 2:
        raise RunError(
            f"tune.space: {line!r}: {len(values)} value{'s' * (len(values) != 1)}: expected low and high for {kind}"
        )
    try:
        low, high = map(int if kind.endswith("randint") else float, values)
    except ValueError:
        what = "whole numbers" if kind.endswith("randint") else "numbers"
        raise RunError(f"tune.space: {line!r}: expected {what} for {kind}; choice takes any values") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise RunError(f"tune.space: {line!r}: expected two finite numbers, the lower one first")
    if kind.startswith("log") and low <= 0:
        raise RunError(f"tune.space: {line!r}: expected low above 0 for {kind}")
    return Dimension(name, kind, tuple(values))


def _try_values(dimension: Dimension, config: RunConfig) -> Dimension:
    """The dimension with its choices as the config has them: 1e-1 and 0.10 are both 0.1.

    Raises:
        RunError: a value that is not allowed, or is there twice.
    """
    tried = [with_fields(config, {dimension.field: value}) for value in dimension.list_extremes()]
    if dimension.kind != "choice":
        return dimension
    values = tuple(read_fields([dimension], one)[dimension.field] for one in tried)
    if len(set(values)) < len(values):
        raise RunError(f"tune.space: {str(dimension)!r}: a choice is given twice: expected each once")
    return replace(dimension, values=values)


def _refuse_field(name: str, config: RunConfig) -> None:
    """Fields that a trial must not change: those that are not there, that decide which rows are learned or what scores
    are of, or only how."""
    sections = {section.name: getattr(config.trainer, section.name) for section in dataclasses.fields(config.trainer)}
    offered = flatten({section: dataclasses.asdict(value) for section, value in sections.items()})
    tasks = set(getattr(config.trainer, "DECIDES_TASK", ()))
    places = {f"data.{field}" for field in config.trainer.data.ROWS_FROM} | tasks
    known = [field for field in offered if field not in places]
    if name in known:
        return
    if name in tasks:
        raise RunError(
            f"tune.space: {name} decides what task scores are of: expected a field that does not, so that trials can "
            "be compared; a lower score would be an easier task"
        )
    if name in offered or name.startswith("folds."):
        raise RunError(
            f"tune.space: {name} decides which rows are trained on and scored: expected a field that does not, so that "
            "trials can be compared"
        )
    if name in flatten(to_dict(config)):
        advice = "; sweep.py tries ensembles without training" if name.startswith("ensemble.") else ""
        raise RunError(
            f"tune.space: {name} does not change what is trained: expected a field of {', '.join(sections)}{advice}"
        )
    raise RunError(f"tune.space: no field {name!r}{suggest_field(name, known) or '; kfold.py --help lists them all'}")
