"""Which rows train and validate in each fold. Pure: arrays in, a plan out; scikit-learn's splitters split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_jobs.config.folds import BLEND, NEVER_VALIDATED, FoldsConfig
from trainers.interface import NO_KEY, DataError, Inventory, Split

NUM_TARGET_BINS = 10


@dataclass(frozen=True)
class FoldPlan:
    """The validation fold of every row; -1 where no fold validates it, -2 in the blend set, on which none trains either.

    Attributes:
        ids: (N,) str, in table order.
        fold: (N,) int.
        count: number of folds.
        ordered: whether a fold trains on lower-numbered rows only (time-ordered).
        group: (N,) int or None, rows of one group were kept in one fold.
    """

    ids: np.ndarray
    fold: np.ndarray
    count: int
    ordered: bool
    group: np.ndarray | None = None

    def split(self, fold: int) -> Split:
        """The ids that train and validate in a fold."""
        train = self.fold < fold if self.ordered else self.fold != fold
        is_blend = self.fold == BLEND
        return Split(fold, self.ids[train & ~is_blend], self.ids[self.fold == fold], self.ids[is_blend], self.count)

    def fingerprint(self) -> str:
        """SHA-256 of the rows and their folds."""
        parts = ("\n".join(self.ids.tolist()).encode(), self.fold.astype(np.int32).tobytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def sizes(self) -> list[tuple[int, int, int]]:
        """(fold, training rows, validation rows) of every fold."""
        splits = [self.split(fold) for fold in range(self.count)]
        return [(split.fold, len(split.train_ids), len(split.validation_ids)) for split in splits]


def plan_folds(folds: FoldsConfig, inventory: Inventory) -> FoldPlan:
    """Divides the rows.

    Raises:
        DataError: too few rows or groups, or a column that this kind of folds needs is not there.
    """
    num_rows, groups = len(inventory.ids), None
    if num_rows < 2 * folds.count:
        raise DataError(
            f"{num_rows} usable training rows for {folds.count} folds: expected at least {2 * folds.count}; lower "
            "folds.count or add rows"
        )
    if folds.kind == "predefined":
        assigned = _use_predefined(folds, inventory)
    else:
        assigned = np.full(num_rows, NEVER_VALIDATED)
        keeps_groups = folds.keeps_groups(inventory) or folds.on_leak == "group"
        groups = number_groups(folds, inventory) if keeps_groups else None
        blend, rest = _hold_out(folds, inventory, groups)
        assigned[blend] = BLEND
        for fold, validation in enumerate(_split_with_sklearn(folds, inventory, groups, rest)):
            assigned[rest[validation]] = fold
    return FoldPlan(inventory.ids, assigned, folds.count, folds.kind == "time", groups)


def _hold_out(folds: FoldsConfig, inventory: Inventory, groups: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the blend set and the others."""
    every = np.arange(len(inventory.ids))
    if not folds.blend_fraction:
        return every[:0], every
    from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit

    if folds.kind == "time" and inventory.time is not None:
        newest = np.quantile(inventory.time, 1 - folds.blend_fraction, method="higher")
        return every[inventory.time >= newest], every[inventory.time < newest]
    splitter = ShuffleSplit if groups is None else GroupShuffleSplit
    split = splitter(1, test_size=folds.blend_fraction, random_state=folds.seed).split(every, groups=groups)
    rest, blend = next(split)
    if len(blend) < 2 or len(rest) < 2 * folds.count:
        raise DataError(
            f"folds.blend_fraction={folds.blend_fraction} holds out {len(blend)} of {len(every)} rows: expected at least 2, and "
            f"{2 * folds.count} for the folds"
        )
    return np.sort(blend), np.sort(rest)


def _split_with_sklearn(
    folds: FoldsConfig, inventory: Inventory, groups: np.ndarray | None, rest: np.ndarray
) -> list[np.ndarray]:
    """The positions in `rest` that each fold validates."""
    from sklearn import model_selection as splitters  # 1.3 s to import: not for --help

    rows, shuffled = np.zeros(len(rest)), {"shuffle": True, "random_state": folds.seed}
    if folds.kind == "time":
        if inventory.time is None:
            raise DataError("folds.kind=time needs dates: set data.date_column")
        return _split_by_time(folds, inventory.time[rest], splitters.TimeSeriesSplit(folds.count))
    if folds.kind == "holdout":
        splitter = splitters.ShuffleSplit if groups is None else splitters.GroupShuffleSplit
        whole = splitter(1, test_size=folds.holdout_fraction, random_state=folds.seed)
        return [held for _, held in whole.split(rows, groups=None if groups is None else groups[rest])]
    bins = find_strata(folds, inventory, rest) if "stratified" in folds.kind else None
    if groups is None:
        splitter = splitters.KFold if bins is None else splitters.StratifiedKFold
        return [held for _, held in splitter(folds.count, **shuffled).split(rows, bins)]
    splitter = splitters.GroupKFold if bins is None else splitters.StratifiedGroupKFold
    return [held for _, held in splitter(folds.count, **shuffled).split(rows, bins, groups[rest])]


def _split_by_time(folds: FoldsConfig, time: np.ndarray, splitter: Any) -> list[np.ndarray]:
    """scikit-learn's consecutive portions, their borders moved back so that rows of one time stay together."""
    order = np.argsort(time, kind="stable")
    first_times = [time[order[held[0]]] for _, held in splitter.split(order)]
    starts = [int(np.searchsorted(time[order], first, side="left")) for first in first_times]
    if starts[0] == 0 or len(set(starts)) < folds.count:
        raise DataError(
            f"{len(np.unique(time))} different times, most rows sharing a few of them, cannot be divided into {folds.count} "
            "time-ordered folds; lower folds.count"
        )
    return [order[start:end] for start, end in zip(starts, [*starts[1:], len(order)], strict=True)]


def find_strata(folds: FoldsConfig, inventory: Inventory, rest: np.ndarray) -> np.ndarray:
    """What stratified folds have alike of the rows at these positions: (R,) int from 0.

    Raises:
        DataError: the rows have neither strata nor a target.
    """
    values = inventory.target if inventory.strata is None else inventory.strata
    if values is None:
        raise DataError(
            f"folds.kind={folds.kind} needs a target or strata, and the rows have neither; use folds.kind=random"
        )
    if inventory.strata is None and np.issubdtype(values.dtype, np.floating):
        return _bin_target(values[rest], folds.count)
    return np.unique(values[rest], return_inverse=True)[1]


def _bin_target(target: np.ndarray, count: int) -> np.ndarray:
    """Quantile bins of log1p(target), few enough that each holds at least `count` rows."""
    num_bins = max(1, min(NUM_TARGET_BINS, len(target) // count))
    edges = np.unique(np.quantile(np.log1p(target), np.linspace(0, 1, num_bins + 1)[1:-1]))
    bins_N: np.ndarray = np.searchsorted(edges, np.log1p(target), side="right")
    return bins_N


def number_groups(folds: FoldsConfig, inventory: Inventory) -> np.ndarray:
    """(N,) int from 0: rows with the same number are never split.

    Raises:
        DataError: there is no group column, or there are fewer groups than folds.
    """
    groups: np.ndarray | None = None
    what, advice = "groups", "choose another data.group_column"
    if folds.keeps_groups(inventory):
        if inventory.groups is None:
            raise DataError(f"folds.kind={folds.kind} needs groups: set data.group_column")
        groups = np.unique(inventory.groups, return_inverse=True)[1]
    if folds.on_leak == "group":
        columns = [keys.train for keys in inventory.row_keys.values()] + ([] if groups is None else [groups + 1])
        groups = connect_rows(columns, len(inventory.ids))
        what, advice = "groups of rows that are connected by what they share", "set folds.on_leak=warn"
    assert groups is not None, "asked only of folds that keep groups together"
    num_groups = int(groups.max()) + 1
    if folds.kind == "holdout" and num_groups < 2:
        raise DataError(f"{num_groups} {what} to hold some out: expected at least 2; {advice}")
    if num_groups < folds.count:
        raise DataError(
            f"{num_groups} {what} for {folds.count} folds: expected at least one group a fold; lower folds.count to "
            f"{num_groups} or {advice}"
        )
    return groups


def connect_rows(columns: Sequence[np.ndarray], num_rows: int) -> np.ndarray:
    """Numbers the groups of rows that are connected by equal keys, directly or over other rows.

    Args:
        columns: keys of one kind each, (N,); NO_KEY connects nothing.
        num_rows: N.

    Returns:
        (N,) int from 0, in the order of each group's first row.
    """
    leader = list(range(num_rows))

    def lead(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for keys in columns:
        first: dict[int, int] = {}
        for row, key in enumerate(keys.tolist()):
            if key != NO_KEY:
                one, other = lead(row), lead(first.setdefault(key, row))
                leader[max(one, other)] = min(one, other)
    return np.unique([lead(row) for row in range(num_rows)], return_inverse=True)[1]


def _use_predefined(folds: FoldsConfig, inventory: Inventory) -> np.ndarray:
    if inventory.predefined_fold is None:
        raise DataError("folds.kind=predefined needs data.fold_column")
    found = set(inventory.predefined_fold.tolist()) - {NEVER_VALIDATED, BLEND}
    if found != set(range(folds.count)):
        raise DataError(
            f"the fold column holds folds {sorted(found)}, folds.count={folds.count} expects {list(range(folds.count))} "
            "(and -1 for rows that always train, -2 for rows of the blend set)"
        )
    return inventory.predefined_fold
