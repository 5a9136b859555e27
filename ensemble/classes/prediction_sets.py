"""Sets of classes that hold a row's true class with a probability near the level that is asked for: CV+.

Romano, Sesia and Candès 2020, "Classification with valid and adaptive coverage", https://arxiv.org/abs/2006.02544,
algorithm 2, with 1 minus the probability of a class as the score of how odd it is (Sadinle, Lei and Wasserman 2019,
https://doi.org/10.1080/01621459.2017.1395341), which gives the smallest sets. Theorem 2 bounds their coverage from
below as that of intervals, see `ensemble.members.cv_plus`.

A combination of members is one model to it: that of a fold is the members' models of the fold, combined by the
submitted weights.

Shape suffixes: K folds, M members, N rows with an out-of-fold prediction, T rows to predict, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.classes.columns import read_out_of_fold
from ensemble.classes.fitting import FittedClasses
from ensemble.members.cv_plus import IntervalKind, bound_coverage, check_folds, find_rank, judge_run
from ensemble.run import Run


def predict_sets(probability_KTC: np.ndarray, true_N: np.ndarray, fold_N: np.ndarray, level: float) -> np.ndarray:
    """Which classes are in the set of each row to predict, (T, C) bool; none may be.

    A class is in it unless ⌈(1-α)(n+1)⌉ of the n rows with an out-of-fold prediction were given a higher probability of
    their true class than their fold's model gives this class. With too few rows for the level every class is in it.

    Args:
        probability_KTC: of each fold's model.
        true_N: the probability of each row's true class by the model of its fold.
        fold_N: each row's fold, from 0 to K - 1; each fold has a row.
        level: 1 - α.

    Raises:
        ValueError: folds that do not fit; a level outside 0 to 1.
    """
    fold_N = np.asarray(fold_N)
    check_folds(fold_N, len(probability_KTC), len(true_N), level)
    higher_TC = np.zeros(probability_KTC.shape[1:], np.int64)
    for fold, probability_TC in enumerate(probability_KTC):
        of_fold = np.sort(true_N[fold_N == fold])
        higher_TC += len(of_fold) - np.searchsorted(of_fold, probability_TC, side="right")
    is_in_TC: np.ndarray = higher_TC < find_rank(level, len(true_N))
    return is_in_TC


@dataclass(frozen=True)
class SetBasis:
    """What sets are made from, whichever rows they are of.

    Attributes:
        level: `ensemble.interval`.
        fitted: the members' combination; None with one member, whose fold models count by themselves.
        true_N, fold_N: the probability of each row's true class out of fold, and the row's fold (of those that are
            combined, from 0).
    """

    level: float
    fitted: FittedClasses | None
    true_N: np.ndarray
    fold_N: np.ndarray

    def predict(self, probability_FTC: np.ndarray) -> np.ndarray:
        """Which classes are in the set of each row, (T, C), from the fold models of all members, those of a member one
        after the other."""
        num_folds = int(self.fold_N.max()) + 1
        by_member_MKTC = probability_FTC.reshape(-1, num_folds, *probability_FTC.shape[1:])
        probability_KTC = np.stack([_become_one(self.fitted, one_MTC) for one_MTC in by_member_MKTC.swapaxes(0, 1)])
        return predict_sets(probability_KTC, self.true_N, self.fold_N, self.level)

    def describe(self, run: Run, fitted: FittedClasses, is_in_TC: np.ndarray) -> dict[str, Any]:
        """Facts of the sets of a submission."""
        is_fitted = fitted.weights_M is not None and not run.combines_folds
        kind = judge_run(run, is_blind=not is_fitted)
        floor = bound_coverage(self.level, len(self.true_N), run.num_folds) if kind == IntervalKind.CV_PLUS else None
        facts = {"level": self.level, "kind": kind.value, "mean_size": float(is_in_TC.sum(axis=1).mean())}
        return {"what": "sets of classes", **facts, "guaranteed": floor}


def find_basis(run: Run, fitted: FittedClasses) -> SetBasis | None:
    """The basis of sets at `ensemble.interval`; None: no sets are wanted.

    Args:
        run: its folds are finished.
        fitted: its combination.
    """
    if run.ensemble.interval is None:
        return None
    target_N, fold_N, oof_MNC = read_out_of_fold(run, run.ensemble.checkpoint)
    of_members = None if run.combines_folds else fitted
    true_N = _become_one(of_members, oof_MNC)[np.arange(len(target_N)), target_N]
    return SetBasis(run.ensemble.interval, of_members, true_N, np.searchsorted(run.folds, fold_N))


def write_sets(is_in_TC: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The names of the classes of each set, as a JSON list."""
    names = np.array(classes, dtype=object)
    return [json.dumps(names[is_in_C].tolist(), ensure_ascii=False) for is_in_C in is_in_TC]


def _become_one(fitted: FittedClasses | None, probability_MXC: np.ndarray) -> np.ndarray:
    return probability_MXC[0] if fitted is None else fitted.predict(probability_MXC)
