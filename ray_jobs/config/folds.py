"""The `folds` section of a config: how the rows are divided, and how rows without a fold are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainers.interface import Inventory

NEVER_VALIDATED = -1
BLEND = -2  # held out of every fold: no fold trains or validates on it


@dataclass(frozen=True)
class FoldsConfig:
    """How rows are divided into folds."""

    count: int = 3
    """Number of folds, K."""
    kind: Literal["random", "stratified", "grouped", "stratified_grouped", "time", "predefined", "holdout"] = "random"
    """stratified: folds alike in the (binned log) target. grouped: `data.group_column` is never split. time: each fold
    validates on rows later than all it trains on. predefined: `data.fold_column`. holdout: one run without folds, which
    validates on `holdout_fraction` of the rows (`count=1`); groups, if there are any, are not split."""
    holdout_fraction: float = 0.2
    """kind=holdout: share of the rows that validate; as near to it as whole groups allow."""
    seed: int = 0
    """Seed of the division."""
    only: tuple[int, ...] | None = None
    """Train only these folds now; a later start without it adds the rest."""
    on_leak: Literal["warn", "error", "group"] = "warn"
    """When rows with the same picture (file), text or group train and validate one fold, or are in training and test
    data: say so, refuse, or (group) keep such training rows in one fold. They are listed in leaks.csv."""

    blend_fraction: float = 0.0
    """Share of the rows held out of every fold. All fold models predict them unseen, so that weights of fold models can
    be fitted there, and the whole ensemble has an honest score. folds.kind=time holds out the latest rows. As near to
    the share as whole groups, or all rows of one time, allow."""

    def __post_init__(self) -> None:
        if not 0 <= self.blend_fraction <= 0.5:
            raise ValueError(f"folds.blend_fraction={self.blend_fraction}: expected a share from 0 to 0.5")
        if self.blend_fraction and self.kind == "predefined":
            raise ValueError(
                "folds.blend_fraction with folds.kind=predefined: mark the blend set with -2 in data.fold_column"
            )
        if self.kind == "holdout":
            self._check_holdout()
        elif not 2 <= self.count <= 1000:  # every fold is asked for its status
            raise ValueError(f"folds.count={self.count}: expected 2 to 1000")
        if not 0 <= self.seed < 2**32:  # scikit-learn's bounds
            raise ValueError(f"folds.seed={self.seed}: expected at least 0 and below {2**32}")
        if self.on_leak == "group" and not self.can_group:
            decides = "the dates decide" if self.kind == "time" else "data.fold_column decides"
            raise ValueError(
                f"folds.on_leak=group with folds.kind={self.kind}: {decides} where a row is, so rows that are the "
                "same cannot be kept together; use warn or error"
            )
        if self.only is not None:
            outside = [fold for fold in self.only if not 0 <= fold < self.count]
            if outside or not self.only:
                raise ValueError(f"folds.only={list(self.only)}: expected fold numbers from 0 to {self.count - 1}")

    def _check_holdout(self) -> None:
        if self.count != 1:
            raise ValueError(
                f"folds.count={self.count}: folds.kind=holdout has one split, folds.count=1 (train.py sets both)"
            )
        if not 0 < self.holdout_fraction < 1:
            raise ValueError(f"folds.holdout_fraction={self.holdout_fraction}: expected a share between 0 and 1")

    def keeps_groups(self, inventory: Inventory) -> bool:
        """Whether the user's own groups stay on one side."""
        return "grouped" in self.kind or (self.kind == "holdout" and inventory.groups is not None)

    @property
    def can_group(self) -> bool:
        """Whether this kind of folds leaves it open which fold a row gets."""
        return self.kind not in ("time", "predefined")

    def wanted(self) -> list[int]:
        """The folds to have trained when this start ends."""
        return sorted(set(range(self.count) if self.only is None else self.only))
