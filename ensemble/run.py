"""What a kind of predictions is told of a run, and what it gives back. Nothing here knows what is predicted.

Shape suffixes: N rows, M models; an array of rows may have one more axis (see `ensemble.kinds`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np

from ensemble.combination import Combination
from ensemble.config import EnsembleConfig

if TYPE_CHECKING:
    import pyarrow as pa

AnyColumns = TypeVar("AnyColumns")
_PARTS = 5
_BLEND = -2  # of the fold plan: rows that are held out of every fold


class FoldFiles(Protocol):
    """The files of a fold."""

    def predictions(self, rows: str, checkpoint: str) -> Path:
        """The prediction file of some rows (validation, blend, test) by a checkpoint (best, final)."""


@dataclass(frozen=True)
class Run:
    """What a kind is told of a run.

    Attributes:
        ensemble: how its models are combined.
        members: the files of every fold of each member that is combined, by the member's name.
        num_folds: of each member, that are combined.
        names: of all members of the run.
        plan: its fold plan: `id`, `fold` and, where groups are kept together, `group`.
        target: the target's name.
        fold_kind, seed: how rows were divided (`folds.kind`, `folds.seed`).
        is_blind: whether all members have the same division, which was made without a look at what rows share, all of
            its folds are combined, and no validation row has decided when a training ends.
        fold_numbers: (num_folds,) of the folds that are combined, in order; empty: of each.
    """

    ensemble: EnsembleConfig
    members: Mapping[str, Sequence[FoldFiles]]
    num_folds: int
    names: tuple[str, ...]
    plan: pa.Table
    target: str = ""
    fold_kind: str = "random"
    seed: int = 0
    is_blind: bool = True
    fold_numbers: tuple[int, ...] = ()

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds that are combined, in order."""
        return self.fold_numbers or tuple(range(self.num_folds))

    @property
    def combines_folds(self) -> bool:
        """Whether fold models are combined rather than members: there is one."""
        return combines_folds(self.ensemble, len(self.members))

    @property
    def has_blend_set(self) -> bool:
        """Whether rows were held out of every fold."""
        return has_blend_set(self.plan)

    def find_blend_models(self) -> Sequence[FoldFiles]:
        """The fold models of the only member, which are combined on the blend set.

        Raises:
            PredictionError: there is no blend set.
        """
        if not self.has_blend_set:
            from ensemble.predictions import PredictionError  # loads pyarrow

            raise PredictionError(
                "with one member, combinations of its fold models can only be scored on rows that all of them predict "
                "unseen: add members, or train a run with folds.blend_fraction=0.1"
            )
        (folds,) = self.members.values()
        return folds

    def read_unseen(self, read_columns: Callable[[Run, str], AnyColumns]) -> AnyColumns | None:
        """What is combined, by the checkpoint that counts, on rows that all of it predicts unseen; None: no such rows.

        Args:
            read_columns: of the run and a checkpoint, as `Kind.read_columns`.
        """
        if self.combines_folds and not self.has_blend_set:
            return None
        return read_columns(self, self.ensemble.checkpoint)

    @property
    def model_names(self) -> tuple[str, ...]:
        """Of the run's own models that are combined: its members or, of one, the fold models."""
        return tuple(f"fold_{fold}" for fold in self.folds) if self.combines_folds else tuple(self.members)

    def find_units(self, ids_N: np.ndarray) -> np.ndarray | None:
        """The group of each row, where groups were kept together."""
        return find_units(self.plan, ids_N)

    @property
    def is_ordered(self) -> bool:
        """Whether the folds follow each other in time."""
        return self.fold_kind == "time"

    def divide(self, ids_N: np.ndarray) -> np.ndarray:
        """Rows that no model was trained on, in parts from 0, groups kept together: fitted weights are scored on a part
        that they were not fitted to."""
        units_N = self.find_units(ids_N)
        numbers_N = np.arange(len(ids_N)) if units_N is None else np.unique(units_N, return_inverse=True)[1]
        num_units = int(numbers_N.max()) + 1
        num_parts = max(2, min(_PARTS, num_units // 2))
        part_N: np.ndarray = (np.random.default_rng(self.seed).permutation(num_units) % num_parts)[numbers_N]
        return part_N


def combines_folds(ensemble: EnsembleConfig, num_members: int) -> bool:
    """Whether fold models are combined rather than members: of the run there is one, and none from elsewhere."""
    return num_members == 1 and ensemble.external is None


def find_units(plan: pa.Table, ids_N: Sequence[str] | np.ndarray) -> np.ndarray | None:
    """The group of each row of a fold plan, where groups were kept together."""
    if "group" not in plan.column_names:
        return None
    group_of = dict(zip(plan["id"].to_pylist(), plan["group"].to_pylist(), strict=True))
    return np.array([group_of[row_id] for row_id in ids_N])


def has_blend_set(plan: pa.Table) -> bool:
    """Whether a fold plan has rows that are held out of every fold."""
    return bool((plan["fold"].to_numpy() == _BLEND).any())


@dataclass(frozen=True)
class Columns:
    """What M models predict of rows that none of them has seen.

    Attributes:
        names: (M,) of the models.
        ids_N: str.
        fold_N: the fold that validated each row, from 0; of a blend set the part in which it is.
        target_N: the true values.
        oof_MN: predictions.
        unit_N: rows of one unit (a group that no fold divides) are drawn together when a score's interval is estimated;
            None: each row is one.
        is_ordered: the folds follow each other in time: nothing is learned from later ones.
    """

    names: tuple[str, ...]
    ids_N: np.ndarray
    fold_N: np.ndarray
    target_N: np.ndarray
    oof_MN: np.ndarray
    unit_N: np.ndarray | None = None
    is_ordered: bool = False

    def keep(self, rows_N: np.ndarray) -> Self:
        """Those of some rows."""
        return replace(
            self,
            ids_N=self.ids_N[rows_N],
            fold_N=self.fold_N[rows_N],
            target_N=self.target_N[rows_N],
            oof_MN=self.oof_MN[:, rows_N],
            unit_N=None if self.unit_N is None else self.unit_N[rows_N],
        )

    def others(self, fold: int) -> np.ndarray:
        """(N,) bool: from which rows may be learned what is scored on a fold; none before the first of folds in
        time."""
        return self.fold_N < fold if self.is_ordered else self.fold_N != fold


@dataclass(frozen=True)
class Evaluation:
    """What one candidate comes to.

    Attributes:
        cross_fitted_N: each row's prediction by weights that were fitted without the row's fold.
        inner_F: for each fold the error on all other rows (of folds in time: earlier ones), by weights fitted without
            it: what the choice inside a fold sees. NaN where there are none.
    """

    cross_fitted_N: np.ndarray
    inner_F: np.ndarray


class Combinable(Columns, ABC):
    """Columns whose models can be combined. Picklable."""

    @abstractmethod
    def take(self, names: Sequence[str]) -> Self:
        """Those of some models."""

    @abstractmethod
    def predict_cross_fitted(self, hows: Sequence[Combination]) -> list[np.ndarray]:
        """Of each combination the prediction of each row, (N,), by weights that were fitted on the other folds' rows if
        any are; of folds in time on the earlier ones, and for the first the models weigh the same."""

    @abstractmethod
    def evaluate(self, candidates: Sequence[tuple[Sequence[str], Combination]]) -> list[Evaluation]:
        """What each combination of some of the models comes to."""

    @abstractmethod
    def sum_up(self) -> str:
        """A checksum of what the evaluation of any candidate depends on."""

    def describe_diversity(self, ensemble: EnsembleConfig) -> dict[str, Any] | None:
        """How much the models differ, and what each adds, as `summary.json` has it; None: this kind does not say."""
        return None


@dataclass(frozen=True)
class Model:
    """One of the models that are combined.

    Attributes:
        label: `{"fold": 0}` or `{"member": "wide"}`, and what else is known of it.
        summary: numbers that its family tells about it, such as the weights of its parts.
    """

    label: dict[str, Any]
    summary: dict[str, float]


class NoSubmissionError(Exception):
    """There is nothing to submit; the message says why."""


@dataclass(frozen=True)
class Materials:
    """What a kind may use beside predictions where it makes something to be looked at.

    Attributes:
        write: puts a file of this content at a path below the run's folder, whole.
        open_backgrounds: of a table (train or test) what predictions lie over, by id, where the family has such.
    """

    write: Callable[[str, bytes], None]
    open_backgrounds: Callable[[str], Callable[[str], np.ndarray]]


@dataclass(frozen=True)
class Submission:
    """The combined predictions of the test rows.

    Attributes:
        header, rows: of the submission's file.
        table: each model's prediction of each row beside the combined one: `ensemble/test_predictions.parquet`.
        facts: what was combined and how, as the summary and the file beside the submission have it.
        metrics: what this kind records besides the facts.
        compared: of parts of the rows (blend, test) each model and each method with its scores, where nothing is fitted
            to them.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    table: pa.Table
    facts: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    compared: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Combiner(Protocol):
    """How the predictions of a run's models become one, of new rows. Picklable."""

    def list_columns(self, target: str, *, shows_models: bool) -> tuple[str, ...]:
        """Names of the columns that are written of each row, but for the id."""

    def predict(self, predictor: Any, block: pa.Table, *, shows_models: bool) -> pa.Table:
        """What is written of the rows of a block, in their order: the columns by number, from the id as `0`; `problem`,
        what of a row could not be used, or null; and of each of the kind's `row_files` the content.

        Args:
            predictor: the family's, with all models; its `predict(block)` returns what this kind combines.
            block: of the family's new rows.
            shows_models: whether to show what each model says.

        Raises:
            PredictionError: a model predicts nothing that can be used.
        """
