"""`sweep/sweep.json`: what a sweep has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """What a sweep has found, and what to believe of it.

    Attributes:
        metric, label: of the errors, and with its unit, for people.
        default, winner: the config's combination and the best one.
        improvement, improvement_low: of the winner's error, and a bound that holds for all combinations together.
        replaces: whether the winner is shown to be better.
        nested_error: of combinations that were chosen without the fold that scores them: `chosen_in_folds`.
        rows, columns: the best of all.
    """

    metric: str
    label: str = ""
    num_rows: int
    num_combinations: int
    num_trials: int
    seconds: float
    default: str
    default_error: float
    winner: str
    winner_error: float
    improvement: float
    improvement_low: float
    replaces: bool
    nested_error: float
    chosen_in_folds: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    columns: tuple[str, ...]

    @property
    def error_label(self) -> str:
        """The metric for people; of files from before there was a label its name."""
        return self.label or self.metric
