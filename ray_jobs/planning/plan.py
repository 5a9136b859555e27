"""A run that has passed every check, and its fold plan as a table."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ray_jobs.config.run import MAIN, RunConfig
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.planning.inventories import describe_inputs
from ray_jobs.planning.leaks import Leak
from ray_jobs.runs.folder import RunFolder
from trainers.interface import Inventory

_TRAINS = b"trains"  # in the metadata of a plan of which all rows train


@dataclass(frozen=True)
class MemberPlan:
    """A member that has passed every check."""

    config: RunConfig
    folder: RunFolder
    inventory: Inventory
    folds: FoldPlan


@dataclass(frozen=True)
class Plan:
    """A run that has passed every check: nothing of it was written or started yet.

    Attributes:
        members: every member by its name, `main`, which is the run's own config and folder, first.
        leaks: what is the same on both sides of a fold.
    """

    members: dict[str, MemberPlan]
    leaks: list[Leak]

    @property
    def config(self) -> RunConfig:
        """Of the run."""
        return self.members[MAIN].config

    @property
    def folder(self) -> RunFolder:
        """Of the run."""
        return self.members[MAIN].folder

    @property
    def inventory(self) -> Inventory:
        """Of what the run's own recipe reads."""
        return self.members[MAIN].inventory

    @property
    def folds(self) -> FoldPlan:
        """Of every member that does not repeat the cross-validation on another division."""
        return self.members[MAIN].folds

    def list_views(self) -> list[MemberPlan]:
        """A member for each view of the data: of those that have the same inputs, and needs of a node, the first."""
        views: dict[Hashable, MemberPlan] = {}
        for member in self.members.values():
            views.setdefault(describe_inputs(member.config), member)
        return list(views.values())

    def forget_rows(self) -> None:
        """Lets go of the rows themselves, once they are left for the folds: a driver need not hold them while these
        train."""
        for name, member in self.members.items():
            known = replace(member.inventory, tables=None, row_keys={}, take_earlier_fingerprint=None)
            self.members[name] = replace(member, inventory=known)


def build_plan_table(folds: FoldPlan) -> pa.Table:
    """The fold plan as `fold_plan.parquet` has it."""
    columns = {
        "id": pa.array(folds.ids.tolist(), pa.string()),
        "repeat": pa.array(np.zeros(len(folds.ids), np.int32)),
        "fold": pa.array(folds.fold.astype(np.int32)),
    }
    if folds.group is not None:
        columns["group"] = pa.array(folds.group.astype(np.int64))
    if folds.kept_out:
        columns["kept_out"] = _list_kept_out(folds)
    return pa.table(columns, metadata={_TRAINS: b"all"} if folds.trains_all else None)


def _list_kept_out(folds: FoldPlan) -> pa.Array:
    """For each row the folds that it is kept out of."""
    rows = np.concatenate(folds.kept_out)
    numbers = np.repeat(np.arange(folds.count, dtype=np.int32), [len(one) for one in folds.kept_out])
    ends = np.cumsum(np.bincount(rows, minlength=len(folds.ids)))
    offsets = pa.array(np.r_[0, ends].astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(numbers[np.argsort(rows, kind="stable")]))


def read_plan_table(table: pa.Table, ids: np.ndarray, count: int, *, is_ordered: bool) -> FoldPlan:
    """What `build_plan_table` has made a table of.

    Args:
        table: of `fold_plan.parquet`.
        ids: the rows that it should be of, (N,) str.
        count: of folds.
        is_ordered: whether they follow each other in time.

    Raises:
        KeyError, ValueError: it lacks a column, or is of other folds.
    """
    fold = table["fold"].to_numpy().astype(int)
    group = table["group"].to_numpy() if "group" in table.column_names else None
    kept_out: tuple[np.ndarray, ...] = ()
    if "kept_out" in table.column_names:
        lists = table["kept_out"].combine_chunks()
        rows = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy())
        numbers = lists.flatten().to_numpy()
        kept_out = tuple(rows[numbers == number] for number in range(count))
    trains_all = (table.schema.metadata or {}).get(_TRAINS) == b"all"
    return FoldPlan(ids, fold, count, is_ordered, group, kept_out, trains_all)
