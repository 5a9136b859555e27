"""The interval of each submitted prediction, by CV+ (see `ensemble.numbers.intervals`), and what stands behind it.

A combination of members is one model to it: that of a fold is the members' models of the fold, combined by the
submitted weights.

Shape suffixes: K folds, M members, N rows with an out-of-fold prediction, T test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.config import EnsembleConfig
from ensemble.members.cv_plus import IntervalKind, bound_coverage, judge_run
from ensemble.members.exchangeability import Exchangeability, judge_new_rows, judge_order
from ensemble.numbers.columns import read_oof, read_test_of_folds
from ensemble.numbers.intervals import predict_intervals
from ensemble.numbers.methods.combinations import FittedEnsemble
from ensemble.numbers.methods.spaces import to_space
from ensemble.predictions import PredictionError, stack_models
from ensemble.run import Run


@dataclass(frozen=True)
class Intervals:
    """Ends of the test rows' intervals, in the target's unit, and what is known of them."""

    low_T: np.ndarray
    high_T: np.ndarray
    facts: dict[str, Any]


@dataclass(frozen=True)
class IntervalBasis:
    """What intervals are made from, whichever rows they are of.

    Attributes:
        ensemble: of the run.
        fitted: the members' combination; None with one member, whose fold models give an interval each by itself.
        oof_N, target_N, fold_N, ids_N: what it predicts of the rows with an out-of-fold prediction, their true values,
            folds (of those that are combined, from 0) and ids.
    """

    ensemble: EnsembleConfig
    fitted: FittedEnsemble | None
    oof_N: np.ndarray
    target_N: np.ndarray
    fold_N: np.ndarray
    ids_N: np.ndarray

    def predict(self, predictions_KMT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the intervals of new rows, (T,) and (T,), from what each fold's models predict of them."""
        ensemble = self.ensemble
        assert ensemble.interval is not None, "intervals are wanted"
        test_KT = np.stack([_become_one(self.fitted, predictions_MT) for predictions_MT in predictions_KMT])
        return predict_intervals(test_KT, self.oof_N, self.target_N, self.fold_N, ensemble.interval, ensemble.space)


def find_basis(run: Run, fitted: FittedEnsemble) -> IntervalBasis:
    """The basis of intervals at `ensemble.interval`.

    Args:
        run: its folds are finished.
        fitted: its combination.
    """
    oof = read_oof(run, run.ensemble.checkpoint)
    of_members = None if run.combines_folds else fitted
    place_N = np.searchsorted(run.folds, oof.fold_N)  # of each row's fold among those that are combined
    return IntervalBasis(
        run.ensemble, of_members, _become_one(of_members, oof.oof_MN), oof.target_N, place_N, oof.ids_N
    )


def _become_one(fitted: FittedEnsemble | None, predictions_MX: np.ndarray) -> np.ndarray:
    return predictions_MX[0] if fitted is None else fitted.predict(predictions_MX)


def build_intervals(run: Run, ids_T: np.ndarray, fitted: FittedEnsemble) -> Intervals:
    """The intervals of the test rows.

    Args:
        run, fitted: as in `find_basis`.
        ids_T: the test rows, in the order of the submission.

    Raises:
        PredictionError: a member from elsewhere has not one test prediction for each fold.
    """
    ensemble, tests = run.ensemble, read_test_of_folds(run)
    assert ensemble.interval is not None, "intervals are wanted"
    if any(len(of_folds) != run.num_folds for of_folds in tests.values()):
        raise PredictionError(
            f"ensemble.interval={ensemble.interval:g}: expected test predictions of each of the {run.num_folds} folds "
            "of "
            f"each member of {ensemble.external}; add them, or set ensemble.interval=none"
        )
    basis, test_KMT = find_basis(run, fitted), []
    for fold in range(run.num_folds):
        ids, predictions_MT = stack_models([of_folds[fold] for of_folds in tests.values()])
        place = {row_id: number for number, row_id in enumerate(ids)}
        test_KMT.append(predictions_MT[:, [place[row_id] for row_id in ids_T]])
    low_T, high_T = basis.predict(np.stack(test_KMT))
    is_fitted = fitted.weights_M is not None and not run.combines_folds
    kind = judge_run(run, is_blind=not is_fitted)
    facts: dict[str, Any] = {"level": ensemble.interval, "mean_width": float((high_T - low_T).mean())}
    if kind == IntervalKind.CV_PLUS:
        found = _test_exchangeability(run, basis, np.stack(test_KMT))
        kind = IntervalKind.EMPIRICAL if found.is_rejected else kind
        facts["exchangeability"] = {"order": found.order, "new_rows": found.new_rows, "rejected": found.is_rejected}
    floor = bound_coverage(ensemble.interval, len(basis.target_N), run.num_folds)
    facts |= {"kind": kind.value, "guaranteed": floor if kind == IntervalKind.CV_PLUS else None}
    return Intervals(low_T, high_T, facts)


def _test_exchangeability(run: Run, basis: IntervalBasis, test_KMT: np.ndarray) -> Exchangeability:
    """Whether the rows in the order of the table, and the test rows beside them, look exchangeable."""
    space = run.ensemble.space
    error_N = to_space(basis.target_N, space) - to_space(basis.oof_N, space)
    position = {row_id: number for number, row_id in enumerate(run.plan["id"].to_pylist())}
    order_N = np.argsort([position[row_id] for row_id in basis.ids_N])
    validated = [basis.oof_N[basis.fold_N == fold] for fold in range(run.num_folds)]
    new = [_become_one(basis.fitted, test_MT) for test_MT in test_KMT]
    return Exchangeability(judge_order(error_N[order_N]), judge_new_rows(validated, new))
