"""What a prediction is: a family names its kind (`Config.PREDICTS`), and each kind is a folder of this package with a `kind.py`.

What a kind can do it says by what it offers; nobody asks for its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

# What jobs may do with predictions beyond scoring and combining those of fold models.
Offer = Literal["members", "external", "interval", "sweep", "leaderboard", "tuning", "threshold"]


@dataclass(frozen=True)
class Metric:
    """How the values of a metric are read.

    Attributes:
        name: as `ensemble.metric` has it, and the scores of a run.
        title: as people write it.
        higher_is_better: of its values.
        unit: of its values; `{target}` stands for the target's name; empty: none.
    """

    name: str
    title: str
    higher_is_better: bool = False
    unit: str = ""

    def of_target(self, target: str) -> Metric:
        """The metric with the target's name in its unit."""
        return replace(self, unit=self.unit.replace("{target}", target))

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def error_label(self) -> str:
        """Title and unit of the error, which is the value or, where higher values are better, its negative."""
        return f"minus {self.label}" if self.higher_is_better else self.label

    @property
    def better(self) -> str:
        """Which values are better, in a word."""
        return "higher" if self.higher_is_better else "lower"


class Kind(Protocol):
    """A kind of predictions.

    Attributes:
        name: what `Config.PREDICTS` says.
        title: what the predictions are, in a word: "this family predicts ...".
        methods: by which models may be combined.
        scores: the metrics that are measured whatever `ensemble.metric` is.
        offers: what else may be done with them.
        constant: what the predictor says that any model has to beat, in a few words.
        files: what files of a run hold, by their names as the table of all files has them, where it depends on the kind.
    """

    name: str
    title: str
    methods: Sequence[str]
    scores: Sequence[str]
    offers: frozenset[Offer]
    constant: str
    files: Mapping[str, str]

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray]) -> None:
        """Raises ValueError where models cannot be compared by a metric on rows with these targets, (N,)."""

    def can_weigh_by(self, name: str) -> bool:
        """Whether a model's weight can be one over its error by a metric: that is never negative."""

    def predict_constant(self, train_target_N: np.ndarray) -> float | None:
        """The constant that any model has to beat, from the training rows' targets; None: it is found otherwise."""

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a prediction file that hold what a trainer has given `save_predictions` in one piece."""


def load_kind(name: str) -> Kind:
    """The kind of that name.

    Raises:
        ValueError: there is none; the message names those that there are.
    """
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("*/kind.py"))
    kinds: dict[str, Kind] = {
        kind.name: kind for kind in (importlib.import_module(f"ensemble.{folder}.kind").KIND for folder in folders)
    }
    if name not in kinds:
        raise ValueError(f"PREDICTS={name!r}: expected one of {', '.join(kinds)}")
    return kinds[name]
