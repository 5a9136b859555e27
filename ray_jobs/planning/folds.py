"""Which rows train and validate in each fold. Pure: arrays in, a plan out.

scikit-learn's splitters divide single rows; groups (see `groups.py`) and times are divided here, where no part is ever
empty."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass

import numpy as np

from ray_jobs.config.folds import BLEND, NEVER_VALIDATED, FoldsConfig
from ray_jobs.planning.gaps import find_kept_out
from ray_jobs.planning.groups import LEAST_BLEND_GROUPS, deal_groups, hold_out_groups, number_groups
from trainers.interface import DataError, Inventory, Split

NUM_TARGET_BINS = 10
_MOST_SHOWN = 10
_MOST_WATCHING = 256


@dataclass(frozen=True)
class FoldPlan:
    """The validation fold of every row; -1 where no fold validates it, -2 in the blend set, on which none trains
    either.

    Attributes:
        ids: (N,) str, in table order.
        fold: (N,) int.
        count: number of folds.
        ordered: whether a fold trains on lower-numbered rows only (time-ordered).
        group: (N,) int or None, rows of one group were kept in one fold.
        kept_out: for each fold the positions of rows that do not train it though they are on its other side (see
            `gaps.py`); empty: there are none of any fold.
        trains_all: whether all rows train, those that validate, too.
    """

    ids: np.ndarray
    fold: np.ndarray
    count: int
    ordered: bool
    group: np.ndarray | None = None
    kept_out: tuple[np.ndarray, ...] = ()
    trains_all: bool = False

    def split(self, fold: int) -> Split:
        """The ids that train and validate in a fold."""
        is_blend = self.fold == BLEND
        return Split(fold, self.ids[self.trains(fold)], self.ids[self.fold == fold], self.ids[is_blend], self.count)

    def trains(self, fold: int) -> np.ndarray:
        """(N,) bool: which rows train in a fold."""
        if self.trains_all:
            return np.ones(len(self.ids), bool)
        is_other: np.ndarray = self.fold < fold if self.ordered else self.fold != fold
        trains: np.ndarray = is_other & (self.fold != BLEND)
        if self.kept_out:
            trains[self.kept_out[fold]] = False
        return trains

    def fingerprint(self) -> str:
        """SHA-256 of the rows, their folds and what is kept out of these."""
        parts = ["\n".join(self.ids.tolist()).encode(), self.fold.astype(np.int32).tobytes()]
        parts += [b"all"] * self.trains_all
        parts += [np.r_[len(rows), rows].astype(np.int64).tobytes() for rows in self.kept_out]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def sizes(self) -> list[tuple[int, int, int]]:
        """(fold, training rows, validation rows) of every fold."""
        splits = [self.split(fold) for fold in range(self.count)]
        return [(split.fold, len(split.train_ids), len(split.validation_ids)) for split in splits]


def plan_folds(folds: FoldsConfig, inventory: Inventory) -> FoldPlan:
    """Divides the rows so that every fold trains and validates some.

    Raises:
        DataError: too few rows, groups or times, or a column that this kind of folds needs is not there.
    """
    num_rows, groups = len(inventory.ids), None
    if folds.trains_all:
        return _watch_some(folds, inventory)
    if num_rows < 2 * folds.count and folds.kind != "predefined":
        lower = f"lower folds.count to {num_rows // 2} or " * (folds.kind != "holdout" and num_rows >= 4)
        raise DataError(
            f"{num_rows} usable training rows for {folds.count} folds: expected at least {2 * folds.count}; "
            f"{lower}add rows"
        )
    if folds.kind == "predefined":
        assigned = _use_predefined(folds, inventory)
    elif folds.kind == "time":
        assigned = _divide_by_time(folds, inventory)
    else:
        assigned = np.full(num_rows, NEVER_VALIDATED)
        keeps_groups = folds.keeps_groups(inventory) or folds.on_leak == "group"
        groups = number_groups(folds, inventory) if keeps_groups else None
        blend, rest = _hold_out(folds, groups, num_rows)
        strata = find_strata(folds, inventory, rest) if "stratified" in folds.kind else None
        assigned[blend] = BLEND
        if groups is not None:
            assigned[rest] = _divide_groups(folds, strata, groups[rest])
        else:
            for fold, validation in enumerate(_split_with_sklearn(folds, strata, len(rest))):
                assigned[rest[validation]] = fold
    kept_out = find_kept_out(folds, inventory, assigned, groups)
    return FoldPlan(inventory.ids, assigned, folds.count, folds.kind == "time", groups, kept_out)


def _watch_some(folds: FoldsConfig, inventory: Inventory) -> FoldPlan:
    """All rows train; a few of them show how the training gets on."""
    num_rows = len(inventory.ids)
    watching = np.random.default_rng(folds.seed).permutation(num_rows)[: min(_MOST_WATCHING, max(1, num_rows // 20))]
    assigned = np.full(num_rows, NEVER_VALIDATED)
    assigned[watching] = 0
    return FoldPlan(inventory.ids, assigned, 1, ordered=False, trains_all=True)


def _hold_out(folds: FoldsConfig, groups: np.ndarray | None, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the blend set and the others."""
    every = np.arange(num_rows)
    if not folds.blend_fraction:
        return every[:0], every
    if groups is not None:
        most = int(groups.max()) + 1 - max(2, folds.count)
        blend = hold_out_groups(groups, folds.blend_fraction, folds.seed, least=LEAST_BLEND_GROUPS, most=most)
    else:
        from sklearn.model_selection import ShuffleSplit

        splitter = ShuffleSplit(1, test_size=folds.blend_fraction, random_state=folds.seed)
        blend = np.sort(next(splitter.split(every))[1])
    rest = np.setdiff1d(every, blend)
    _refuse_small_blend(folds, len(blend), len(rest))
    return blend, rest


def _refuse_small_blend(folds: FoldsConfig, num_blend: int, num_rest: int) -> None:
    """Raises DataError for a blend set that cannot be divided in two, or that leaves too few rows to the folds."""
    num_rows, for_folds = num_blend + num_rest, 2 * folds.count
    if num_blend < 2 or num_rest < for_folds:
        change = f"{'raise' if num_blend < 2 else 'lower'} it, or " * (num_rows >= 2 + for_folds)
        raise DataError(
            f"folds.blend_fraction={folds.blend_fraction:g} holds out {num_blend} of {num_rows} rows: expected at "
            "least "
            f"2, and {for_folds} for the folds; {change}leave it out"
        )


def _divide_groups(folds: FoldsConfig, strata: np.ndarray | None, groups: np.ndarray) -> np.ndarray:
    """The validation fold of each row, -1 where none validates it; no group is divided."""
    if folds.kind == "holdout":
        most = len(np.unique(groups)) - 1
        held = hold_out_groups(groups, folds.holdout_fraction, folds.seed, least=1, most=most)
        return np.where(np.isin(np.arange(len(groups)), held), 0, NEVER_VALIDATED)
    return deal_groups(groups, folds.count, folds.seed, strata)


def _split_with_sklearn(folds: FoldsConfig, strata: np.ndarray | None, num_rows: int) -> list[np.ndarray]:
    """The positions of the rows that each fold validates."""
    from sklearn import model_selection as splitters  # 1.3 s to import: not for --help

    rows = np.zeros(num_rows)
    if folds.kind == "holdout":
        num_held = min(math.ceil(folds.holdout_fraction * len(rows)), len(rows) - 1)  # one row is left to train
        whole = splitters.ShuffleSplit(1, test_size=num_held, random_state=folds.seed)
        return [held for _, held in whole.split(rows)]
    splitter = splitters.KFold if strata is None else splitters.StratifiedKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a bin may have fewer rows than there are folds
        splits = list(splitter(folds.count, shuffle=True, random_state=folds.seed).split(rows, strata))
    return [held for _, held in splits]


def _divide_by_time(folds: FoldsConfig, inventory: Inventory) -> np.ndarray:
    """Consecutive portions, the latest for the blend set; rows of one time stay together.

    The first portion only trains. The folds' portions are of one size, as scikit-learn's TimeSeriesSplit has them, but
    for their borders, which are moved to where another time begins."""
    if inventory.time is None:
        raise DataError("folds.kind=time: expected a date of each row; set data.date_column")
    times, number_N = np.unique(inventory.time, return_inverse=True)
    _refuse_few_times(folds, len(times))
    num_before = np.searchsorted(np.sort(inventory.time), times)  # rows before each time
    num_rest = len(number_N)
    if folds.blend_fraction:
        num_rest -= _choose_latest(folds, num_before, num_rest)
        _refuse_small_blend(folds, len(number_N) - num_rest, num_rest)
    num_times = int(np.searchsorted(num_before, num_rest))  # that are left for the folds
    size, least = num_rest // (folds.count + 1), np.arange(1, folds.count + 1)
    starts = np.searchsorted(num_before, num_rest - size * least[::-1], side="right") - 1
    starts = np.maximum.accumulate(np.maximum(starts, 1) - least) + least  # each fold has a time of its own
    starts = np.minimum(starts, num_times - folds.count - 1 + least)
    fold_N: np.ndarray = np.searchsorted(starts, number_N, side="right") - 1
    return np.where(number_N < num_times, fold_N, BLEND)


def _refuse_few_times(folds: FoldsConfig, num_times: int) -> None:
    """Raises DataError where a fold would have no time of its own, or none before it to train on."""
    others = 1 + (folds.blend_fraction > 0)
    if num_times < folds.count + others:
        what = f"{folds.count} time-ordered folds" + " and a blend set" * (folds.blend_fraction > 0)
        lower = f"lower folds.count to {num_times - others}, " * (num_times - others >= 2)
        raise DataError(
            f"{num_times} different time{'s' * (num_times > 1)} for {what}: expected at least {folds.count + others}; "
            f"{lower}choose another data.date_column or another folds.kind"
        )


def _choose_latest(folds: FoldsConfig, num_before: np.ndarray, num_rows: int) -> int:
    """How many of the latest rows are nearest to the share that is wanted, but at least 2, and the folds keep a time
    for each."""
    held = num_rows - num_before[: folds.count : -1]
    held = held[held >= 2] if (held >= 2).any() else held
    return int(held[np.abs(held - folds.blend_fraction * num_rows).argmin()])


def find_strata(folds: FoldsConfig, inventory: Inventory, rest: np.ndarray) -> np.ndarray:
    """What stratified folds have alike of the rows at these positions: (R,) int from 0.

    Raises:
        DataError: the rows have neither strata nor a target.
    """
    values = inventory.target if inventory.strata is None else inventory.strata
    if values is None:
        raise DataError(
            f"folds.kind={folds.kind}: expected a target or strata of each row, found neither; set folds.kind=random"
        )
    if inventory.strata is None and np.issubdtype(values.dtype, np.floating):
        return _bin_target(values[rest], folds.count)
    return np.unique(values[rest], return_inverse=True)[1]


def _bin_target(target: np.ndarray, count: int) -> np.ndarray:
    """Quantile bins of log1p(target), or of ranks where that is not defined; so few that a bin holds `count` rows on
    average."""
    is_positive = target.min() > -1
    scale = np.log1p(target) if is_positive else np.unique(target, return_inverse=True)[1]
    num_bins = max(1, min(NUM_TARGET_BINS, len(target) // count))
    edges = np.unique(np.quantile(scale, np.linspace(0, 1, num_bins + 1)[1:-1]))
    bins_N: np.ndarray = np.searchsorted(edges, scale, side="right")
    return bins_N


def _use_predefined(folds: FoldsConfig, inventory: Inventory) -> np.ndarray:
    if inventory.predefined_fold is None:
        raise DataError("folds.kind=predefined: expected a fold of each row; set data.fold_column")
    found = sorted(set(inventory.predefined_fold.tolist()) - {NEVER_VALIDATED, BLEND})
    if found != list(range(folds.count)):
        shown = ", ".join(map(str, found[:_MOST_SHOWN])) + (", …" if len(found) > _MOST_SHOWN else "")
        raise DataError(
            f"data.fold_column holds the folds [{shown}]: expected 0 to {folds.count - 1}, by "
            f"folds.count={folds.count} "
            "(and -1 for rows that always train, -2 for rows of the blend set); set folds.count, or correct the column"
        )
    if (inventory.predefined_fold == BLEND).sum() == 1:
        raise DataError("data.fold_column=-2 of 1 row: expected at least 2 rows in a blend set, or none")
    return inventory.predefined_fold
