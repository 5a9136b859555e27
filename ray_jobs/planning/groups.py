"""Groups of rows that stay together: which rows form one, and how whole groups are dealt out. Pure: arrays in, arrays
out.

Shape suffixes: N rows, G groups, S strata, F folds.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from ray_jobs.config.folds import FoldsConfig
from trainers.interface import NO_KEY, DataError, Inventory

LEAST_BLEND_GROUPS = 2  # weights that are fitted to some rows of the blend set are scored on other groups of it


def number_groups(folds: FoldsConfig, inventory: Inventory) -> np.ndarray:
    """(N,) int from 0: rows with the same number are never split.

    Raises:
        DataError: there is no group column, or there are too few groups for the folds and the blend set.
    """
    groups: np.ndarray | None = None
    what, advice = "groups", "choose another data.group_column"
    if folds.keeps_groups(inventory):
        if inventory.groups is None:
            raise DataError(f"folds.kind={folds.kind}: expected a group of each row; set data.group_column")
        groups = np.unique(inventory.groups, return_inverse=True)[1]
    if folds.on_leak == "group":
        columns = [keys.train for keys in inventory.row_keys.values()] + ([] if groups is None else [groups + 1])
        groups = connect_rows(columns, len(inventory.ids))
        what, advice = "groups of rows that are connected by what they share", "set folds.on_leak=warn"
    assert groups is not None, "asked only of folds that keep groups together"
    _refuse_few_groups(folds, int(groups.max()) + 1, what, advice)
    return groups


def _refuse_few_groups(folds: FoldsConfig, num_groups: int, what: str, advice: str) -> None:
    """Raises DataError where a fold, a side of the only split, or the blend set would be left without a group."""
    for_folds, for_blend = max(2, folds.count), LEAST_BLEND_GROUPS if folds.blend_fraction else 0
    if num_groups >= for_folds + for_blend:
        return
    uses = [f"{folds.count} folds" if folds.kind != "holdout" else "rows that train and rows that validate"]
    ways = [advice]
    if for_blend:
        uses.append("a blend set")
        if num_groups >= for_folds:
            ways.insert(0, "leave out folds.blend_fraction")
    if folds.kind != "holdout" and num_groups - for_blend >= 2:
        ways.insert(0, f"lower folds.count to {num_groups - for_blend}")
    what = what.replace("groups", "group", 1) if num_groups == 1 else what
    raise DataError(
        f"{num_groups} {what} for {' and '.join(uses)}: expected at least {for_folds + for_blend}; {' or '.join(ways)}"
    )


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


def hold_out_groups(groups_N: np.ndarray, share: float, seed: int, *, least: int, most: int) -> np.ndarray:
    """The positions, ascending, of whole groups that have about a share of the rows.

    Groups in random order are taken as long as they fit, then the smallest of the others if that is nearer to the
    share.

    Args:
        groups_N: the group of each row.
        share: of the rows.
        seed: of the order.
        least, most: how many groups to hold out.
    """
    numbers_N, sizes = _count_rows(groups_N)
    wanted, num_held = round(share * len(groups_N)), 0
    held: list[int] = []
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    for group in order:
        if num_held + sizes[group] <= wanted and len(held) < most:
            held.append(group)
            num_held += sizes[group]
    left = set(order).difference(held)
    for group in sorted(left, key=sizes.__getitem__):
        is_nearer = num_held + sizes[group] - wanted < wanted - num_held
        if len(held) >= (most if is_nearer else least):
            break
        held.append(group)
        num_held += sizes[group]
    return np.flatnonzero(np.isin(numbers_N, held))


def deal_groups(groups_N: np.ndarray, count: int, seed: int, strata_N: np.ndarray | None = None) -> np.ndarray:
    """Deals out whole groups to folds that have about as many rows each: (N,) the fold of each row.

    Large groups first, those of about one size in random order; each goes to the fold with the fewest rows. So no fold
    is empty, and two folds differ by no more rows than the largest group has; with strata by twice as many.

    Args:
        groups_N: the group of each row; at least `count` different ones.
        count: of folds.
        seed: of the order.
        strata_N: of each row from 0; the folds become alike in them, too.
    """
    numbers_N, sizes = _count_rows(groups_N)
    order = np.random.default_rng(seed).permutation(len(sizes))
    magnitudes = np.floor(np.log2(np.array(sizes)[order]))
    order = order[np.argsort(-magnitudes, kind="stable")]
    fold_G = np.empty(len(sizes), int)
    if strata_N is None:
        fold_G[order] = _deal_evenly([sizes[group] for group in order.tolist()], count)
    else:
        num_strata = int(strata_N.max()) + 1
        cells = np.bincount(numbers_N * num_strata + strata_N, minlength=len(sizes) * num_strata)
        fold_G[order] = _deal_alike(cells.reshape(len(sizes), num_strata)[order], count)
    fold_N: np.ndarray = fold_G[numbers_N]
    return fold_N


def _count_rows(groups_N: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The groups numbered from 0 without a gap, and the rows of each."""
    numbers_N = np.unique(groups_N, return_inverse=True)[1]
    return numbers_N, np.bincount(numbers_N).tolist()


def _deal_evenly(sizes: Sequence[int], count: int) -> list[int]:
    """For each group in turn the fold with the fewest rows."""
    rows = [(0, fold) for fold in range(count)]
    folds = []
    for size in sizes:
        num_rows, fold = rows[0]
        heapq.heapreplace(rows, (num_rows + size, fold))
        folds.append(fold)
    return folds


def _deal_alike(sizes_GS: np.ndarray, count: int) -> list[int]:
    """For each group in turn the fold that has least of the group's strata, among the fold with the fewest rows and
    those that have room for it below their fair share."""
    rows_F, dealt_FS, folds = np.zeros(count), np.zeros((count, sizes_GS.shape[1])), []
    fair, weight_S = sizes_GS.sum() / count, 1 / np.maximum(sizes_GS.sum(axis=0), 1)
    for sizes_S, size in zip(sizes_GS, sizes_GS.sum(axis=1), strict=True):
        has_room_F = rows_F + size <= max(fair, rows_F.min() + size)
        likeness_F = np.where(has_room_F, dealt_FS @ (sizes_S * weight_S), np.inf)
        fold = int(np.lexsort((rows_F, likeness_F))[0])
        rows_F[fold] += size
        dealt_FS[fold] += sizes_S
        folds.append(fold)
    return folds
