"""`importance.csv`: by how much the error of a run's out-of-fold rows grows when an input is shuffled among them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from ray_jobs.config.run import RunConfig
from ray_jobs.runs.files import write_csv
from ray_jobs.runs.folder import RunFolder

COLUMNS = ("input", "importance", "low", "high", "metric", "error", "rows", "repeats")
NUM_REPEATS = 5


@dataclass(frozen=True)
class Importance:
    """By how much the error grows without an input, and the ends of a 95 % interval over rows and repeats.

    Attributes:
        name: of the input.
        error: of all rows as they are.
    """

    name: str
    importance: float
    low: float
    high: float
    error: float


def write_importance(folder: RunFolder, config: RunConfig, found: Sequence[Importance], num_rows: int) -> None:
    """Writes `importance.csv`."""
    facts = (config.error_name, num_rows, NUM_REPEATS)
    rows = [(one.name, one.importance, one.low, one.high, facts[0], one.error, facts[1], facts[2]) for one in found]
    write_csv(folder.importance, COLUMNS, rows)


def read_importance(folder: RunFolder) -> list[dict[str, str]]:
    """The rows of `importance.csv`; none where it was not made."""
    if not folder.importance.is_file():
        return []
    with folder.importance.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
