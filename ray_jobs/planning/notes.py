"""What is no mistake in the targets and in the division of the rows, but worth knowing before anything is trained.
Texts only."""

from __future__ import annotations

import numpy as np

from ensemble.kinds import FoldTargets, Kind
from ray_jobs.config.folds import BLEND, FoldsConfig
from ray_jobs.planning.folds import FoldPlan
from trainers.interface import DataError, Inventory

_NOTABLE = 0.1  # of a fold's rows, or of a share that was asked for


def note_division(folds: FoldsConfig, plan: FoldPlan, inventory: Inventory, kind: Kind) -> tuple[str, ...]:
    """Sentences for the user: targets that teach nothing, folds of uneven sizes, shares that are not those asked
    for."""
    return (
        *_note_targets(plan, inventory, kind),
        *_note_uneven_folds(folds, plan),
        *_note_kept_out(folds, plan),
        *_note_shares(folds, plan),
    )


def _note_targets(plan: FoldPlan, inventory: Inventory, kind: Kind) -> list[str]:
    """What the kind says of the targets.

    Raises:
        DataError: there is nothing to learn from them.
    """
    target_N = inventory.target
    if target_N is None:
        return []
    folds = [FoldTargets(target_N[plan.trains(fold)], target_N[plan.fold == fold]) for fold in range(plan.count)]
    try:
        return kind.note_targets(inventory.target_name, target_N, folds, inventory.classes)
    except ValueError as error:
        raise DataError(str(error)) from None


def _note_uneven_folds(folds: FoldsConfig, plan: FoldPlan) -> list[str]:
    sizes = np.bincount(plan.fold[plan.fold >= 0], minlength=plan.count)
    reason = _explain(folds, plan)
    if not reason or sizes.max() - sizes.min() <= max(1, _NOTABLE * sizes.mean()):
        return []
    return [f"folds are uneven, of {sizes.min():,} to {sizes.max():,} rows: {reason}"]


def _note_kept_out(folds: FoldsConfig, plan: FoldPlan) -> list[str]:
    """How many rows of those on the other side of its fold train each."""
    if not plan.kept_out:
        return []
    left = [int(plan.trains(fold).sum()) for fold in range(plan.count)]
    shares = [num / (num + len(rows)) for num, rows in zip(left, plan.kept_out, strict=True)]
    return [
        f"{' and '.join(folds.list_kept_out())}: folds train on {min(left):,} to {max(left):,} rows, which are "
        f"{min(shares):.0%} to {max(shares):.0%} of those on their other side"
    ]


def _note_shares(folds: FoldsConfig, plan: FoldPlan) -> list[str]:
    """The real share of the rows that are held out, where rows stay together or are few."""
    notes, num_blend = [], int((plan.fold == BLEND).sum())
    if num_blend:
        asked = folds.blend_fraction
        share = _describe_share(num_blend, len(plan.fold), asked, "folds.blend_fraction", _explain(folds, plan))
        notes.append(f"blend set, on which no fold trains or validates: {share}")
    if folds.kind == "holdout":
        num_held, num_rest = int((plan.fold == 0).sum()), len(plan.fold) - num_blend
        if _is_notable(num_held, num_rest, folds.holdout_fraction):
            asked, reason = folds.holdout_fraction, _explain(folds, plan)
            share = _describe_share(num_held, num_rest, asked, "folds.holdout_fraction", reason)
            notes.append(f"rows that validate: {share}")
    return notes


def _describe_share(num_rows: int, num_all: int, asked: float, name: str, reason: str) -> str:
    share = f"{num_rows:,} of {num_all:,} rows ({num_rows / num_all:.1%})"
    if not asked or not _is_notable(num_rows, num_all, asked):
        return share
    return f"{share}, where {name}={asked:g} asks for {asked:.1%}" + (f": {reason}" if reason else "")


def _is_notable(num_rows: int, num_all: int, asked: float) -> bool:
    return abs(num_rows - asked * num_all) > max(1, _NOTABLE * asked * num_all)


def _explain(folds: FoldsConfig, plan: FoldPlan) -> str:
    """Why sizes are not as asked for; empty where single rows are divided, or the user has divided them."""
    if folds.kind == "time":
        return "rows of one time stay together"
    if plan.group is None:
        return ""
    sizes = np.bincount(plan.group)
    return f"no group is divided, and the largest of {len(sizes):,} has {sizes.max():,} of {len(plan.group):,} rows"
