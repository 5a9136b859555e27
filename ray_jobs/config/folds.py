"""The `folds` section of a config: how the rows are divided, and how rows without a fold are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ray_jobs.config.durations import read_extent
from trainers.interface import Inventory
from trainers.values import check_number, refuse

NEVER_VALIDATED = -1
BLEND = -2  # held out of every fold: no fold trains or validates on it
FoldKind = Literal["random", "stratified", "grouped", "stratified_grouped", "time", "predefined", "holdout", "all"]


def say_shared(kind: str) -> str:
    """What rows do that have the same in one respect: the words between one row and the other."""
    near = kind.removeprefix("near_")
    return f"share their {kind} with" if near == kind else f"have nearly the same {near} as"


@dataclass(frozen=True)
class FoldsConfig:
    """How rows are divided into folds."""

    count: int = 3
    """Number of folds, K."""
    kind: FoldKind = "random"
    """stratified: folds alike in the (binned log) target. grouped: `data.group_column` is never split. time: each fold
    validates on rows later than all it trains on. predefined: `data.fold_column`. holdout: one run without folds, which
    validates on `holdout_fraction` of the rows (`count=1`); groups, if there are any, are not split. all: refit.py's:
    one model of every row, which some of them watch."""
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
    be fitted there, and the whole ensemble has an unbiased score. folds.kind=time holds out the latest rows. As near to
    the share as whole groups, or all rows of one time, allow."""

    gap: str = "0"
    """Rows, or a time such as 7d, between what a fold trains on and what it validates. kind=time: before the first row
    that is validated. Of grouped folds a time, before and after each group that is validated."""
    max_train: str | None = None
    """kind=time: a fold trains on so many rows, or on a time such as 90d, before its gap: a window that slides. None:
    on all that is earlier."""
    last_step: int | None = None
    """kind=all: the training ends at the first evaluation from this step on."""
    embargo_groups: bool = False
    """kind=time: rows whose group (`data.group_column`) a fold validates do not train it."""

    def __post_init__(self) -> None:
        check_number("folds.blend_fraction", self.blend_fraction, least=0, most=0.5, unit="a share")
        if self.blend_fraction and self.kind == "predefined":
            raise refuse(
                "folds.blend_fraction",
                self.blend_fraction,
                "0 with folds.kind=predefined; mark the blend set with -2 in data.fold_column",
            )
        if self.kind in ("holdout", "all"):
            self._check_holdout()
        else:  # every fold is asked for its status
            check_number("folds.count", self.count, least=2, most=1000)
        # The bounds are scikit-learn's.
        check_number("folds.seed", self.seed, least=0, below=2**32)
        if self.on_leak == "group" and not self.can_group:
            decides = "the date of a row decides" if self.kind == "time" else "data.fold_column decides"
            raise refuse(
                "folds.on_leak",
                self.on_leak,
                f"warn or error with folds.kind={self.kind}; {decides} which fold the row gets, so rows that share "
                "something cannot be kept in one fold",
            )
        self._check_kept_out()
        check_number("folds.last_step", self.last_step, least=1, instead="none")
        if self.last_step is not None and not self.trains_all:
            raise refuse("folds.last_step", self.last_step, f"none with folds.kind={self.kind}")
        if self.only is not None:
            outside = [fold for fold in self.only if not 0 <= fold < self.count]
            if outside or not self.only:
                raise refuse("folds.only", self.only, f"numbers of folds, 0 to {self.count - 1}, or none")

    def _check_holdout(self) -> None:
        if self.count != 1:
            job = "refit.py" if self.trains_all else "train.py"
            raise refuse("folds.count", self.count, f"1 with folds.kind={self.kind}; {job} sets both")
        check_number("folds.holdout_fraction", self.holdout_fraction, above=0, below=1, unit="a share")

    def _check_kept_out(self) -> None:
        gap_rows, gap_s = self.gap_extent
        if self.kind != "time":
            if gap_rows or (gap_s and self.kind not in ("grouped", "stratified_grouped")):
                expected = "a time, such as 7d" if "grouped" in self.kind else "0"
                raise refuse("folds.gap", self.gap, f"{expected} with folds.kind={self.kind}")
            for name, value in (("max_train", self.max_train), ("embargo_groups", self.embargo_groups or None)):
                if value is not None:
                    raise refuse(f"folds.{name}", value, f"folds.kind=time with it, found folds.kind={self.kind}")
        if self.max_train is not None and not any(self.window_extent):
            raise refuse("folds.max_train", self.max_train, "more than 0, or none")

    @property
    def gap_extent(self) -> tuple[int, float]:
        """Rows or seconds of the gap, the other 0."""
        return read_extent("folds.gap", self.gap)

    @property
    def window_extent(self) -> tuple[int, float]:
        """Rows or seconds of the window, the other 0; both 0: there is none."""
        return (0, 0.0) if self.max_train is None else read_extent("folds.max_train", self.max_train)

    @property
    def has_gap(self) -> bool:
        """Whether the times of rows decide which of them train."""
        return any((*self.gap_extent, *self.window_extent))

    @property
    def keeps_out(self) -> bool:
        """Whether rows may train no fold that are on its other side."""
        return self.has_gap or self.embargo_groups

    def list_kept_out(self) -> list[str]:
        """By what rows are kept out of the training, as it is typed."""
        return [
            *([f"folds.gap={self.gap}"] if any(self.gap_extent) else []),
            *([] if self.max_train is None else [f"folds.max_train={self.max_train}"]),
            *(["folds.embargo_groups=true"] if self.embargo_groups else []),
        ]

    def keeps_groups(self, inventory: Inventory) -> bool:
        """Whether the user's own groups stay on one side."""
        return "grouped" in self.kind or (self.kind == "holdout" and inventory.groups is not None)

    @property
    def trains_all(self) -> bool:
        """Whether one model is trained on every row."""
        return self.kind == "all"

    @property
    def can_group(self) -> bool:
        """Whether this kind of folds leaves it open which fold a row gets."""
        return self.kind not in ("time", "predefined", "all")

    def wanted(self) -> list[int]:
        """The folds to have trained when this start ends."""
        return sorted(set(range(self.count) if self.only is None else self.only))
