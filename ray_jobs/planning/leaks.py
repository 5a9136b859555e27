"""Rows with the same content on both sides of a fold, or in training and test data: what a model then seems to know it
may only remember. Finds, counts and describes them; `groups.py` keeps them together. Pure: arrays in, leaks out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ray_jobs.config.folds import BLEND, NEVER_VALIDATED, FoldsConfig, say_shared
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.planning.groups import number_groups
from trainers.interface import (
    NO_KEY,
    DataError,
    Inventory,
    RowKeys,
)

NUM_EXAMPLES = 3
COLUMNS = ("kind", "fold", "id", "other_id", "where")


@dataclass(frozen=True)
class Leak:
    """Rows that share one kind of content with rows they should not share it with.

    Attributes:
        kind: what is shared: picture, text, group or id; near_picture, near_text: nearly.
        where: fold: validation rows share it with rows that train their fold; blend: rows of the blend set, and test:
            test rows, with training rows.
        ids: (n,) str, the validation, blend or test rows, in table order.
        other_ids: (n,) str, for each of them one of the rows it shares it with.
        folds: (n,) int, the folds that the rows validate; negative for blend and test rows.
        keys: (n,) uint64, what is shared.
        num_rows: all rows that were looked at.
        shown: in a few words what a key stands for; keys may be absent.
    """

    kind: str
    where: Literal["fold", "blend", "test"]
    ids: np.ndarray
    other_ids: np.ndarray
    folds: np.ndarray
    keys: np.ndarray
    num_rows: int
    shown: Mapping[int, str]


def find_leaks(plan: FoldPlan, inventory: Inventory) -> list[Leak]:
    """Every kind of leak that there is, across folds first."""
    is_blend = plan.fold == BLEND
    across = {} if plan.trains_all else inventory.row_keys
    found = [_find_across_folds(kind, keys, plan, np.flatnonzero(~is_blend)) for kind, keys in across.items()]
    if is_blend.any():
        found += [_find_in_blend(kind, keys, plan, is_blend) for kind, keys in inventory.row_keys.items()]
    if inventory.test_ids is not None:
        kinds = {"id": _number_ids(inventory), **inventory.row_keys}
        found += [_find_in_test(kind, keys, inventory) for kind, keys in kinds.items()]
    return [leak for leak in found if len(leak.ids)]


def _find_across_folds(kind: str, keys: RowKeys, plan: FoldPlan, learned: np.ndarray) -> Leak:
    """Among the rows that some fold trains or validates."""
    if plan.kept_out:
        return _find_fold_by_fold(kind, keys, plan)
    key, row_fold, row_ids = keys.train[learned], plan.fold[learned], plan.ids[learned]
    order = np.lexsort((row_fold, key))
    _, start, size = np.unique(key[order], return_index=True, return_counts=True)
    lowest, highest = np.empty_like(order), np.empty_like(order)  # of the rows with this key, that of the lowest fold
    lowest[order] = np.repeat(order[start], size)
    highest[order] = np.repeat(order[start + size - 1], size)
    is_lower = row_fold[lowest] < row_fold
    is_higher = (row_fold[highest] > row_fold) & (not plan.ordered)  # ordered: rows of higher folds never train it
    validated = row_fold != NEVER_VALIDATED
    rows = np.flatnonzero((key != NO_KEY) & validated & (is_lower | is_higher))
    twins = np.where(is_lower, lowest, highest)[rows]
    return Leak(
        kind, "fold", row_ids[rows], row_ids[twins], row_fold[rows], key[rows], int(validated.sum()), keys.shown
    )


def _find_fold_by_fold(kind: str, keys: RowKeys, plan: FoldPlan) -> Leak:
    """As `_find_across_folds`, where rows are kept out of single folds."""
    rows, twins = [], []
    for fold in range(plan.count):
        validated, trains = np.flatnonzero(plan.fold == fold), np.flatnonzero(plan.trains(fold))
        found, known = _match(keys.train[validated], keys.train[trains])
        rows.append(validated[found])
        twins.append(trains[known])
    row_n, twin_n = np.concatenate(rows), np.concatenate(twins)
    order = np.argsort(row_n)
    row_n, twin_n, num_rows = row_n[order], twin_n[order], int((plan.fold >= 0).sum())
    return Leak(
        kind, "fold", plan.ids[row_n], plan.ids[twin_n], plan.fold[row_n], keys.train[row_n], num_rows, keys.shown
    )


def _find_in_blend(kind: str, keys: RowKeys, plan: FoldPlan, is_blend: np.ndarray) -> Leak:
    blend, ids = keys.train[is_blend], plan.ids
    rows, twins = _match(blend, keys.train[~is_blend])
    folds = np.full(len(rows), BLEND)
    return Leak(kind, "blend", ids[is_blend][rows], ids[~is_blend][twins], folds, blend[rows], len(blend), keys.shown)


def _find_in_test(kind: str, keys: RowKeys, inventory: Inventory) -> Leak:
    assert inventory.test_ids is not None, "only test rows have keys of the test table"
    rows, twins = _match(keys.test, keys.train)
    folds = np.full(len(rows), NEVER_VALIDATED)
    ids, others = inventory.test_ids[rows], inventory.ids[twins]
    return Leak(kind, "test", ids, others, folds, keys.test[rows], len(keys.test), keys.shown)


def _match(keys: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose key is known, and for each the first row that has it."""
    values, first = np.unique(known, return_index=True)
    at = np.minimum(np.searchsorted(values, keys), len(values) - 1)
    rows = np.flatnonzero((keys != NO_KEY) & (values[at] == keys))
    return rows, first[at[rows]]


def _number_ids(inventory: Inventory) -> RowKeys:
    both = np.concatenate([inventory.ids, inventory.test_ids])
    numbers = np.unique(both, return_inverse=True)[1].astype(np.uint64) + np.uint64(1)
    return RowKeys(numbers[: len(inventory.ids)], numbers[len(inventory.ids) :])


def refuse_leaks(leaks: Sequence[Leak], folds: FoldsConfig) -> None:
    """What `folds.on_leak=error` asks for.

    Raises:
        DataError: there is a leak; all are named, with examples.
    """
    if leaks and folds.on_leak == "error":
        lines = [f"  {line}" for line in describe_leaks(leaks, folds)]
        raise DataError("\n".join(["folds.on_leak=error, and rows are not independent:", *lines]))


def describe_leaks(leaks: Sequence[Leak], folds: FoldsConfig) -> list[str]:
    """A line for each leak, then what can be done."""
    lines = [f"leak: {_count(leak)}: {_list_examples(leak)}" for leak in leaks]
    wheres = {leak.where for leak in leaks}
    if wheres & {"fold", "blend"} and folds.can_group:
        lines.append("folds.on_leak=group keeps rows that share something in one fold")
    if "test" in wheres:
        lines.append("drop such rows from the training table if the test rows should be new to the models")
    return lines


def describe_grouping(folds: FoldsConfig, inventory: Inventory) -> str:
    """What `folds.on_leak=group` made of the rows; a picture or a text that many rows have makes one large group."""
    sizes = np.bincount(number_groups(folds, inventory)).tolist()
    largest = f"the largest of {max(sizes):,} row{'s' * (max(sizes) > 1)}"
    return f"folds.on_leak=group: {sum(sizes):,} rows in {len(sizes):,} groups, {largest}"


def count_leaks(leaks: Sequence[Leak], inventory: Inventory) -> dict[str, dict[str, int]]:
    """{kind: {"validation_rows": n, "blend_rows": n, "test_rows": n}} of every kind that was looked for."""
    kinds = [*inventory.row_keys, "id"]
    counts = {kind: {"validation_rows": 0, "blend_rows": 0, "test_rows": 0} for kind in kinds}
    for leak in leaks:
        counts[leak.kind]["validation_rows" if leak.where == "fold" else f"{leak.where}_rows"] = len(leak.ids)
    return counts


def list_rows(leaks: Sequence[Leak]) -> list[list[Any]]:
    """The lines of `leaks.csv` below COLUMNS; a test row has no fold."""
    return [
        [leak.kind, fold if leak.where == "fold" else "", row_id, other, leak.where]
        for leak in leaks
        for fold, row_id, other in zip(leak.folds.tolist(), leak.ids.tolist(), leak.other_ids.tolist(), strict=True)
    ]


def _count(leak: Leak) -> str:
    num_values = len(np.unique(leak.keys))
    values = f"{num_values:,} {leak.kind.removeprefix('near_')}{'s' * (num_values > 1)}"
    if leak.where != "fold":
        rows = "test rows" if leak.where == "test" else "rows of the blend set"
        return f"{len(leak.ids):,} of {leak.num_rows:,} {rows} {say_shared(leak.kind)} training rows ({values})"
    folds = len(np.unique(leak.folds))
    return (
        f"{len(leak.ids):,} of {leak.num_rows:,} validation rows ({folds} fold{'s' * (folds > 1)}) "
        f"{say_shared(leak.kind)} rows that train their fold ({values})"
    )


def _list_examples(leak: Leak) -> str:
    """The most frequent shared contents, each with a row and one it shares it with."""
    values, first, times = np.unique(leak.keys, return_index=True, return_counts=True)
    shown = []
    for at in sorted(range(len(values)), key=lambda at: (-times[at], first[at]))[:NUM_EXAMPLES]:
        row, name = first[at], leak.shown.get(int(values[at]))
        like = "" if leak.kind == "id" else f" like {leak.other_ids[row]}"
        many = f" ({times[at]:,} rows)" if times[at] > 1 else ""
        shown.append((f"{name!r}: " if name else "") + f"{leak.ids[row]}{like}{many}")
    return "; ".join(shown) + ("; …" if len(values) > NUM_EXAMPLES else "")
