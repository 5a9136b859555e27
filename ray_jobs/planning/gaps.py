"""Rows that do not train a fold though they are on its other side: too near to what it validates in time, older than
its window, or of a group that it validates. Pure: arrays in, positions out.

Shape suffixes: N rows, I intervals.
"""

from __future__ import annotations

import numpy as np

from ray_jobs.config.folds import FoldsConfig
from trainers.interface import DataError, Inventory

LEAST_ROWS = 10  # that train a fold: with fewer its score says nothing of the recipe


def find_kept_out(
    folds: FoldsConfig, inventory: Inventory, fold_N: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """The positions, ascending, of the rows that each fold would train on, were it not for the gap, the window and the
    groups; nothing at all where none of these is set.

    Args:
        folds: says what is set.
        inventory: with the rows' times, and groups where these are kept out.
        fold_N: the validation fold of each row, negative: none.
        groups: (N,) of rows that were kept in one fold; None: single rows were divided.

    Raises:
        DataError: rows have no time or group, or too few are left to train a fold.
    """
    if not folds.keeps_out:
        return ()
    if inventory.time is None and folds.has_gap:
        raise DataError(f"{' and '.join(folds.list_kept_out())}: expected a date of each row; set data.date_column")
    if inventory.groups is None and folds.embargo_groups:
        raise DataError("folds.embargo_groups=true: expected a group of each row; set data.group_column")
    kept_out = []
    for fold in range(folds.count):
        is_left = _is_before(folds, fold_N, fold)
        could_train = np.flatnonzero(is_left)
        validated = np.flatnonzero(fold_N == fold)
        if folds.has_gap:
            assert inventory.time is not None, "refused above"
            if folds.kind == "time":
                is_left &= _is_in_window(folds, inventory.time, is_left, validated)
            else:
                assert groups is not None, "a gap between groups is asked for"
                is_left &= ~_is_near(inventory.time, groups, validated, folds.gap_extent[1])
        if folds.embargo_groups:
            assert inventory.groups is not None, "refused above"
            is_left &= ~np.isin(inventory.groups, inventory.groups[validated])
        _refuse_few_rows(folds, fold, int(is_left.sum()), len(could_train))
        kept_out.append(could_train[~is_left[could_train]])
    return tuple(kept_out)


def _is_before(folds: FoldsConfig, fold_N: np.ndarray, fold: int) -> np.ndarray:
    """(N,) bool: the rows on the other side of a fold."""
    is_other: np.ndarray = fold_N < fold if folds.kind == "time" else fold_N != fold
    return is_other & (fold_N >= -1)


def _is_in_window(folds: FoldsConfig, time_N: np.ndarray, is_left: np.ndarray, validated: np.ndarray) -> np.ndarray:
    """(N,) bool: rows from `gap + max_train` to `gap` before the first row that is validated.

    A time counts from that row, its own end not included, as in a calendar: 7d leaves out the seven days before. Rows
    are counted backwards from it, and rows of one time stay together: a gap has at least so many rows, and a window at
    most.
    """
    rows, seconds = folds.gap_extent
    times = np.sort(time_N[is_left])
    end = time_N[validated].min() - seconds if seconds else np.inf
    if rows:
        end = times[-rows] if rows <= len(times) else -np.inf
    is_in: np.ndarray = time_N < end
    rows, seconds = folds.window_extent
    begin = (min(end, time_N[validated].min()) - seconds) if seconds else -np.inf
    times = times[times < end]
    if 0 < rows < len(times):
        begin = np.nextafter(times[-rows - 1], np.inf)
    return is_in & (time_N >= begin)


def _is_near(time_N: np.ndarray, groups_N: np.ndarray, validated: np.ndarray, seconds: float) -> np.ndarray:
    """(N,) bool: rows that are less than some seconds before the first or after the last row of a validated group."""
    group_n, time_n = groups_N[validated], time_N[validated]
    order = np.lexsort((time_n, group_n))
    is_first = np.r_[True, np.diff(group_n[order]) != 0]
    is_last = np.r_[is_first[1:], True]
    begin_I, end_I = np.sort(time_n[order][is_first]) - seconds, np.sort(time_n[order][is_last]) + seconds
    # Inside of an interval: more of them have begun than have ended.
    has_begun, has_ended = np.searchsorted(begin_I, time_N, "left"), np.searchsorted(end_I, time_N, "right")
    is_near: np.ndarray = has_begun > has_ended
    return is_near


def _refuse_few_rows(folds: FoldsConfig, fold: int, num_left: int, num_before: int) -> None:
    """Raises DataError where a fold would train on next to nothing."""
    if num_left >= LEAST_ROWS:
        return
    ways = ["lower folds.gap"] * (any(folds.gap_extent)) + ["raise folds.max_train"] * (folds.max_train is not None)
    ways += ["leave out folds.embargo_groups"] * folds.embargo_groups + ["lower folds.count"] * (folds.count > 2)
    causes = folds.list_kept_out()
    raise DataError(
        f"{' and '.join(causes)} leave{'s' * (len(causes) == 1)} fold {fold} {num_left} of "
        f"{num_before:,} rows to train on: expected at least {LEAST_ROWS}; {', or '.join(ways)}"
    )
