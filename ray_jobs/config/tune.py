"""The `tune` section of `tune.py`'s command line. Plain: no ray, no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from trainers.values import check_choice, check_number, describe_name, refuse

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,111}")


@dataclass(frozen=True)
class TuneConfig:
    """Which fields are tuned, and how. Each trial is a K-fold run of the recipe; trial 0 is the recipe as it is."""

    name: str | None = None
    """The tuning's name, and its folder's below run.storage; None: the recipe's name and _tune."""
    space: tuple[str, ...] = ()
    """What is tuned, each written as `field kind values`: `optimizer.lr loguniform 1e-5 1e-2`, `model.dropout choice
    0.0 0.1 0.3`. Kinds are Ray Tune's: uniform, loguniform (low high), randint, lograndint (low, and high, which is
    left out), choice."""
    num_trials: int = 20
    """Trials beside the recipe as it is. A larger number later adds trials. A space of choices ends when all are tried.
    """
    search: Literal["tpe", "random"] = "tpe"
    """Where the next trial's values come from: Optuna's TPE, which learns from the trials that have ended (the first
    ten are random), or random draws, which depend on the seed and the trial's number alone."""
    scheduler: Literal["none", "asha"] = "none"
    """none: a trial's folds run side by side. asha: one after another, and after each fold only the better trials go
    on."""
    reduction_factor: float = 2.0
    """asha: one of so many trials goes on after each fold."""
    max_trials_at_once: int | None = None
    """Upper limit of trials at the same time; None: as many as all of whose folds fit on the cluster."""
    seed: int = 0
    """Of the draws: the same seed draws the same values."""

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise refuse("tune.name", self.name, describe_name("_-.", 112))
        check_number("tune.num_trials", self.num_trials, least=1)
        check_choice("tune.search", self.search, ("tpe", "random"))
        check_choice("tune.scheduler", self.scheduler, ("none", "asha"))
        check_number("tune.reduction_factor", self.reduction_factor, above=1, most=100)
        check_number("tune.max_trials_at_once", self.max_trials_at_once, least=1, instead="none")
        check_number("tune.seed", self.seed, least=0)
