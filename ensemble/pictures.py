"""What a picture of a report is, and what it is drawn from. Draws nothing itself.

A picture whose data is missing is told in words: `MissingDataError` says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

Data = TypeVar("Data", bound=Sized)


class MissingDataError(Exception):
    """A picture cannot be drawn; the message says what is missing, as the end of a sentence."""


class Results(Protocol):
    """What a kind's pictures are drawn from; what is not there raises MissingDataError."""

    @property
    def root(self) -> Path:
        """The run's folder."""

    @property
    def target(self) -> str:
        """The target's name, short enough for an axis."""

    @property
    def is_ordered(self) -> bool:
        """Whether the folds follow each other in time."""

    @property
    def oof(self) -> pa.Table:
        """`oof.parquet`."""

    @property
    def submission(self) -> Mapping[str, Any]:
        """What the summary says of the submission."""

    @property
    def test_table(self) -> pa.Table:
        """`ensemble/test_predictions.parquet`."""

    @property
    def model_labels(self) -> list[str]:
        """A name for each model of the submission."""


@dataclass(frozen=True)
class Picture:
    """One picture of the report.

    Attributes:
        name: file name in `figures/`, without its ending. Stable: others refer to it.
        title: heading in the report.
        caption: how to read it, one line.
        draw: draws it from the run's results.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Any], Figure]


def require(value: Data | None, missing: str) -> Data:
    """The value, if there is anything in it.

    Raises:
        MissingDataError: it is None or empty.
    """
    if value is None or len(value) == 0:
        raise MissingDataError(missing)
    return value
