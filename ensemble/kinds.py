"""What a prediction is: a family names its kind (`Config.PREDICTS`), and each kind is a folder of this package with a
`kind.py`, or a package with one that is installed as an entry point of the group `ray_kfold.kinds`.

A kind says what its predictions are worth, how several become one and what is submitted. What it cannot do it says
itself, by its `methods`, `scores` and `offers`; nobody asks for its name. docs/new-kind.md says how to add one.

Of each row so much is kept as every score of any rows needs: of its truth and of what a model predicts for it. These
are the arrays `target_N` and `prediction_N` everywhere: N rows, of each a number or, (N, S), several. A score of rows
follows from theirs alone, so the same code scores a fold, all folds, a drawn sample and a part of the rows, whatever is
predicted.

Shape suffixes: N rows, M models, C candidates, D draws; an array of rows may have one more axis.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ensemble.combination import Combination
from ensemble.config import EnsembleConfig
from ensemble.pictures import Picture
from ensemble.run import Combinable, Combiner, FoldFiles, Materials, Model, Run, Submission

if TYPE_CHECKING:
    import pyarrow as pa

    from ensemble.members.suspects import Suspects

# The group of entry points by which other packages add kinds.
INSTALLED = "ray_kfold.kinds"
# What jobs may do with predictions beyond scoring and combining those of fold models.
Offer = Literal["members", "external", "interval", "sweep", "leaderboard", "tuning", "threshold", "truth"]


@dataclass(frozen=True)
class Metric:
    """How the values of a metric are read.

    Attributes:
        name: as `ensemble.metric` has it, and the scores of a run.
        title: as people write it.
        higher_is_better: of its values.
        unit: of its values; `{target}` stands for the target's name; empty: none.
        most: its highest value, where higher is better and there is one: the error is what is missing to it.
    """

    name: str
    title: str
    higher_is_better: bool = False
    unit: str = ""
    most: float | None = None

    def of_target(self, target: str) -> Metric:
        """The metric with the target's name in its unit."""
        return replace(self, unit=self.unit.replace("{target}", target))

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def error_label(self) -> str:
        """Title and unit of the error, which is the value or, where higher values are better, what is missing to the
        highest or, where there is none, its negative."""
        if self.most is not None:
            return f"{self.most:g} - {self.label}"
        return f"minus {self.label}" if self.higher_is_better else self.label

    @property
    def error_name(self) -> str:
        """The error's name in records and tables."""
        return self.name if self.most is None else f"{self.name}_error"

    @property
    def better(self) -> str:
        """Which values are better, in a word."""
        return "higher" if self.higher_is_better else "lower"


@dataclass(frozen=True)
class FoldTargets:
    """The targets of a fold's rows."""

    trained_n: np.ndarray
    validated_n: np.ndarray


class Kind(ABC):
    """A kind of predictions.

    Attributes:
        name: what `Config.PREDICTS` says.
        title: what the predictions are, in a word: "this family predicts ...".
        methods: by which models may be combined.
        refused: further methods that users may ask for, and why they are not among these.
        scores: the metrics that are measured whatever `ensemble.metric` is.
        offers: what else may be done with them.
        constant: what the predictor says that any model has to beat, in a few words.
        files: what files of a run hold, by their names as the table of all files has them, where it depends on the
            kind.
        records: what is recorded of a submission: moment (as `trainers.families.Metrics` has it), then meanings by
            name.
        row_files: of new rows, the folders that get a file of each row, and the files' ending; none: a table holds all.
        most_rows_of_a_block: new rows that are predicted together.
        records_scores: whether the out-of-fold scores of the run's own recipe are recorded with the submission.
    """

    name: str
    title: str
    methods: Sequence[str]
    refused: Mapping[str, str] = {}
    scores: Sequence[str]
    offers: frozenset[Offer] = frozenset()
    constant: str
    files: Mapping[str, str] = {}
    records: Sequence[tuple[str, Mapping[str, str]]] = ()
    row_files: Mapping[str, str] = {}
    most_rows_of_a_block: int = 1024
    records_scores: bool = False

    def load_modules(self) -> None:
        """Imports every module that the kind's functions import: before threads call them, which must import
        nothing."""
        for package in (type(self).__module__.rpartition(".")[0], "ensemble.members"):
            for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
                importlib.import_module(found.name)
        for library in ("scipy.stats", "sklearn.linear_model", "sklearn.metrics"):
            importlib.import_module(library)

    @abstractmethod
    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""

    @abstractmethod
    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray] | None = None) -> None:
        """Raises ValueError where models cannot be compared by a metric, on rows with these targets, (N,), if any are
        given."""

    def can_weigh_by(self, name: str) -> bool:
        """Whether a model's weight can be one over its error by a metric: that is never negative."""
        return True

    def check_run(self, run: Run) -> None:  # noqa: B027 nothing of most kinds
        """Raises ValueError (PredictionError of files) where what a run wants cannot be had from its rows, folds and
        files."""

    def predict_constant(self, train_target_N: np.ndarray, target_N: np.ndarray | None = None) -> Any:
        """The constant that any model has to beat, a number or a list of them; None: `score_constant` finds it
        otherwise.

        Args:
            train_target_N: of the training rows.
            target_N: of all rows, whose constants have to be of one length; None: of these.
        """
        return None

    def note_targets(
        self, name: str, target_N: np.ndarray, folds: Sequence[FoldTargets], classes: Sequence[str]
    ) -> list[str]:
        """Sentences for the user on targets and on a division that are no mistake, but worth knowing.

        Args:
            name: of the target.
            target_N: of all rows.
            folds: the targets of each fold's rows.
            classes: names of classes, where these are predicted.

        Raises:
            ValueError: there is nothing to learn; the message says what to do.
        """
        return []

    @abstractmethod
    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a prediction file that hold what a trainer has given `save_predictions` in one piece."""

    @abstractmethod
    def measure(self, path: Path, ensemble: EnsembleConfig) -> pa.Table:
        """A line for each row of a prediction file, as `oof.parquet` has it: `id`, `member`, `fold` and what this kind
        keeps.

        Raises:
            PredictionError: it is no such file.
        """

    @abstractmethod
    def split(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """What is kept of the truth and of the prediction of each line of `measure`, or of a table of `join`.

        Raises:
            PredictionError: it lacks the columns, as of an earlier version.
        """

    @abstractmethod
    def join(self, target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, pa.Array]:
        """What is kept, as columns."""

    def explain_difference(self, target: Any, other: Any) -> str | None:
        """Why two models cannot be compared on a row, of whose truth they keep different things; None: their rows are
        only not the same, and nothing more is to be said."""
        return None

    @abstractmethod
    def score(self, target_N: np.ndarray, prediction_N: np.ndarray, metric: str) -> dict[str, float | None]:
        """The values of `scores` and of another metric; None where one is not defined for these rows."""

    def describe_out_of_fold(self, lines: pa.Table, *, is_ordered: bool) -> dict[str, Any]:
        """What else `scores` of the summary says of a member's out-of-fold predictions, by its name.

        Args:
            lines: of `oof.parquet`.
            is_ordered: whether the folds follow each other in time.
        """
        return {}

    def find_suspects(self, lines: pa.Table) -> Suspects | None:
        """How likely the truth of each row is wrong; None: this kind does not say.

        Args:
            lines: of `oof.parquet`, of a member.
        """
        return None

    @abstractmethod
    def score_constant(
        self, target_N: np.ndarray, constant_N: np.ndarray | None, metric: str
    ) -> dict[str, float | None]:
        """The scores of the constant predictor.

        Args:
            target_N: of the rows.
            constant_N: what `predict_constant` said of each row's fold, (N,) or (N, S); None: it said nothing.
            metric: that counts.
        """

    @abstractmethod
    def measure_error(self, metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
        """The error by a metric; lower is better.

        Raises:
            ValueError: the metric is not defined for them.
        """

    @abstractmethod
    def draw_errors(
        self,
        metric: str,
        target_N: np.ndarray,
        predictions_CN: np.ndarray,
        unit_N: np.ndarray | None = None,
        num_draws: int | None = None,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors on all rows, (C,), and on bootstrap samples of the units, (D, C); every candidate on the same samples.

        Raises:
            ValueError: values that do not fit together, or for which the metric is not defined; fewer than two units.
        """

    def read_combination(self, ensemble: EnsembleConfig) -> Combination:
        """How models become one by a config."""
        return Combination.from_config(ensemble)

    @abstractmethod
    def list_combinations(self, ensemble: EnsembleConfig, *, for_sweep: bool) -> list[Combination]:
        """Every way to combine models by the config's metric: those that a report compares with the config's, or all
        that a sweep tries."""

    def find_columns(self, run: Run) -> Combinable | None:
        """What scores combinations in the summary: members out of fold, fold models on a blend set; None: nothing is
        fitted or compared so."""
        return run.read_unseen(self.read_columns)

    @abstractmethod
    def read_columns(self, run: Run, checkpoint: str) -> Combinable:
        """What a sweep tries combinations on: the members' out-of-fold predictions or, of one member, the blend set's
        by its fold models.

        Raises:
            PredictionError: there are no such rows, or files do not belong together.
        """

    @abstractmethod
    def submit(
        self,
        run: Run,
        columns: Combinable | None,
        read_scores: Callable[[], Mapping[str, Any]],
        models: Sequence[Model],
        materials: Materials,
    ) -> Submission:
        """Combines the test predictions of the members or, with one member, of its fold models.

        Args:
            run: all folds of what is combined are finished.
            columns: of `find_columns`.
            read_scores: gives the scores of each member, by its name.
            models: what is combined.
            materials: for what is to be looked at.

        Raises:
            NoSubmissionError: there are no test rows.
            PredictionError: files do not belong together.
        """

    @abstractmethod
    def build_combiner(self, run: Run, read_scores: Callable[[], Mapping[str, Any]]) -> Combiner:
        """The combination that the run's submission has, for new rows; arguments as in `submit`."""

    def draw_out_of_fold(  # noqa: B027 nothing of most kinds
        self, ensemble: EnsembleConfig, folds: Sequence[FoldFiles], lines: pa.Table, materials: Materials
    ) -> None:
        """Writes what is to be seen of a member's out-of-fold predictions.

        Args:
            ensemble: the run's.
            folds: all of the member.
            lines: of `oof.parquet`, of the folds that are finished.
            materials: for what is to be looked at.
        """

    def write_evaluation(
        self, tables: Mapping[str, pa.Table], rows: str, write: Callable[[str, bytes], None]
    ) -> tuple[list[str], list[list[str]], dict[str, Any]]:
        """Writes what models are worth on rows whose truth is known; returns header and lines of a table of it, and the
        same as metrics by name.

        Args:
            tables: of `tabulate`, by whose predictions they are: `fold_0`, and others of a family's own.
            rows: what they are, in a word.
            write: puts a file of this content at a path.

        Raises:
            ValueError: this kind has no such evaluation.
        """
        raise ValueError(f"{self.title} have no evaluation of their own; the report scores them")

    def describe_scale(self, facts: Mapping[str, Any]) -> str:
        """Where models become one, for the end of a sentence; facts are a submission's."""
        return ""

    @abstractmethod
    def load_pictures(self) -> Sequence[str | Picture]:
        """The pictures of a report, in their order; one that all kinds have is named."""


@lru_cache
def _find_packages() -> list[str]:
    """The packages of all kinds, the project's own first."""
    own = [f"ensemble.{path.parent.name}" for path in sorted(Path(__file__).parent.glob("*/kind.py"))]
    return own + sorted({found.value for found in entry_points(group=INSTALLED)})


def find_kinds() -> dict[str, Kind]:
    """Every kind, by its name.

    Raises:
        ValueError: two kinds have the same name.
    """
    kinds: dict[str, Kind] = {}
    for package in _find_packages():
        kind: Kind = importlib.import_module(f"{package}.kind").KIND
        if kinds.setdefault(kind.name, kind) is not kind:
            raise ValueError(
                f"two kinds of predictions are called {kind.name!r}; uninstall or rename the one of {package}, an "
                f"entry point of {INSTALLED}"
            )
    return kinds


def load_kind(name: str) -> Kind:
    """The kind of that name.

    Raises:
        ValueError: there is none; the message names those that there are.
    """
    kinds = find_kinds()
    if name not in kinds:
        raise ValueError(f"PREDICTS={name!r}: expected one of {', '.join(kinds)}")
    return kinds[name]
