"""`summary.json`: what a run has come to. Written last, so a run that has one is finished.

What depends on the kind of predictions stays a mapping: scores by the metric's name, facts of a submission.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ray_jobs.config.json_fields import IF_ANY, INLINE
from ray_jobs.config.run import MAIN
from ray_jobs.runs.files import find_record, read_record, write_record
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState
from trainers.interface import CheckpointName, EndReason

WeightsFrom = Literal["other_folds", "earlier_folds", "other_parts"]
ByMetric = Mapping[str, float | None]  # None: the metric is not defined for these rows


@dataclass(frozen=True, kw_only=True)
class RowScores:
    """Scores of the validation rows of a fold, or of all folds.

    Attributes:
        fold: whose; None: all out-of-fold rows.
        checkpoint: that counts, of all out-of-fold rows.
        best, final: of the predictions by these checkpoints.
        constant: of the constant predictor, which a model has to beat.
    """

    fold: int | None = field(default=None, metadata=IF_ANY)
    checkpoint: CheckpointName | None = field(default=None, metadata=IF_ANY)
    num_rows: int
    best: ByMetric
    final: ByMetric
    constant: ByMetric

    @property
    def name(self) -> str:
        """Of the rows, in a table."""
        return "out of fold" if self.fold is None else f"fold {self.fold}"

    @property
    def by_column(self) -> dict[str, ByMetric]:
        """By what a table has a column of: best, final, constant."""
        return {"best": self.best, "final": self.final, "constant": self.constant}


@dataclass(frozen=True)
class Scores:
    """Scores of a member: of each finished fold, and of all their rows together; and what else its kind says of
    them."""

    folds: tuple[RowScores, ...]
    out_of_fold: RowScores
    facts: Mapping[str, Any] = field(default_factory=dict, metadata=INLINE)

    @property
    def rows(self) -> tuple[RowScores, ...]:
        """Those of the folds, then those of all rows."""
        return (*self.folds, self.out_of_fold)

    @property
    def chosen(self) -> ByMetric:
        """Of all rows, by the checkpoint that counts."""
        return self.out_of_fold.by_column[self.out_of_fold.checkpoint or "best"]


@dataclass(frozen=True)
class Compared:
    """A member or a combination with its error on rows that it has not seen, and minus the best member's; each with the
    ends of its 95 % interval.

    Attributes:
        seed_errors: of its trainings with one seed each, if there are several.
    """

    name: str
    kind: Literal["member", "combination"]
    submitted: bool
    error: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    seed_errors: tuple[float, ...] = field(default=(), metadata=IF_ANY)

    @property
    def seed_std(self) -> float:
        """Standard deviation of the errors over the seeds."""
        return statistics.stdev(self.seed_errors)


@dataclass(frozen=True, kw_only=True)
class Combinations:
    """What is combined and every way to combine it, by their errors.

    Attributes:
        metric, label: by which, and with its unit, for people.
        best_member: from which differences are taken.
        scored_on: whose rows: of the folds, or of the blend set.
        weights_from: the rows to which weights are fitted that score the others.
        fold_kind: of the run.
        diversity: how much the models differ, if the kind says it.
    """

    metric: str
    label: str = ""
    best_member: str
    num_rows: int
    scored_on: Literal["out_of_fold", "blend"]
    weights_from: WeightsFrom = "other_folds"
    fold_kind: str | None = field(default=None, metadata=IF_ANY)
    rows: tuple[Compared, ...]
    diversity: Mapping[str, Any] | None = field(default=None, metadata=IF_ANY)

    @property
    def error_label(self) -> str:
        """The metric for people; of files from before there was a label its name."""
        return self.label or self.metric

    @property
    def num_seeds(self) -> int:
        """With how many seeds each member was trained."""
        return max([1, *(len(row.seed_errors) for row in self.rows)])

    @property
    def submitted(self) -> Compared:
        """What is submitted."""
        return next(row for row in self.rows if row.submitted)


@dataclass(frozen=True)
class ScoredModel:
    """A model or a combination of all with its scores on rows that no model has seen."""

    kind: Literal["model", "combination", "submitted"]
    name: str
    num_rows: int
    scores: ByMetric = field(default_factory=dict, metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class NewRowsError:
    """What the error on new rows is, as the metric's own value, with the ends of its 95 % interval.

    Attributes:
        what: whose error.
        label: of the metric, for people.
        num_units: rows, or groups of rows (`are_groups`), that were drawn.
        widening: of the bootstrap's interval.
        is_chosen: whether the checkpoints were chosen on the rows.
        is_ordered: whether the folds follow each other in time.
    """

    what: str
    label: str
    value: float
    low: float
    high: float
    num_units: int
    are_groups: bool = False
    widening: float = 1.0
    is_chosen: bool = False
    is_ordered: bool = False


@dataclass(frozen=True, kw_only=True)
class SubmissionRecord:
    """The submission, or why there is none; and what was combined and how, as its kind says it."""

    created: bool = False
    reason: str | None = field(default=None, metadata=IF_ANY)
    path: str | None = field(default=None, metadata=IF_ANY)
    facts: Mapping[str, Any] = field(default_factory=dict, metadata=INLINE)

    @property
    def file(self) -> str:
        """Name of the submission's file."""
        return Path(self.path or "").name


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What the ensemble stage has found.

    Attributes:
        scores: of the run's own recipe; None: no fold is finished.
        scored_folds: those that are finished, by member.
        members: the scores of each, where there are several.
        combinations: on rows that score them; None: nothing is fitted to these rows.
        new_rows: the error on new rows; None: it is not known.
        compared: by part of the rows (blend, test), where nothing is fitted to them.
    """

    scores: Scores | None = None
    scored_folds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    members: Mapping[str, Scores] | None = field(default=None, metadata=IF_ANY)
    combinations: Combinations | None = field(default=None, metadata=IF_ANY)
    compared: Mapping[str, tuple[ScoredModel, ...]] | None = field(default=None, metadata=IF_ANY)
    new_rows: NewRowsError | None = field(default=None, metadata=IF_ANY)
    submission: SubmissionRecord = SubmissionRecord(reason="none was made")


@dataclass(frozen=True, kw_only=True)
class FoldOutcome:
    """How a fold has ended.

    Attributes:
        workers: of each attempt that has trained it as it is now.
        seconds: of its last attempt.
        epochs: that were trained.
        ended_by: why it has ended before all of them.
    """

    member: str = MAIN
    fold: int
    state: FoldState
    attempts: int = 0
    workers: tuple[int, ...] = ()
    best_epoch: int | None = None
    seconds: float | None = None
    error: str | None = None
    epochs: int = 0
    ended_by: EndReason | None = field(default=None, metadata=IF_ANY)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run has come to.

    Attributes:
        outcome: complete, partial, failed or interrupted.
        stage: scores, combinations and the submission.
        leaks, notes: of the provenance.
        ensemble: the section of the config by which folds were combined.
        bit_repeatable: whether each fold had the same number of workers throughout.
        seconds: wall time by phase.
        trial: of a tuning's trial how it has ended.
    """

    run: str = ""
    recipe: str = ""
    outcome: str = ""
    stage: StageResult = field(default_factory=StageResult, metadata=INLINE)
    leaks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ensemble: Mapping[str, Any] = field(default_factory=dict)
    bit_repeatable: bool = True
    folds: tuple[FoldOutcome, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    finished: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    trial: Mapping[str, Any] | None = field(default=None, metadata=IF_ANY)


def write_summary(folder: RunFolder, summary: Summary) -> None:
    """Writes `summary.json`."""
    write_record(folder.summary, summary)


def read_summary(folder: RunFolder) -> Summary:
    """Reads `summary.json`; errors as in `read_record`."""
    return read_record(folder.summary, Summary)


def find_summary(folder: RunFolder) -> Summary | None:
    """As `read_summary`; None: it is missing or damaged."""
    return find_record(folder.summary, Summary)
