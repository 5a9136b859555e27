"""The interval of each submitted prediction, by CV+ (see `ensemble.intervals`), and what stands behind it.

A combination of members is one model to it: that of a fold is the members' models of the fold, combined by the submitted weights.

Shape suffixes: K folds, M members, N rows with an out-of-fold prediction, T test rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.combine import combine
from ensemble.fitting import FittedCombination
from ensemble.intervals import IntervalKind, bound_coverage, predict_intervals, tell_kind
from ensemble.members import Combination
from ensemble.predictions import PredictionError, stack_models
from ray_jobs.config import RunConfig
from ray_jobs.errors import RunError
from ray_jobs.member_columns import combines_folds, read_oof, read_test_of_folds
from ray_jobs.members import find_members
from ray_jobs.run_folder import RunFolder


@dataclass(frozen=True)
class Intervals:
    """Ends of the test rows' intervals, in the target's unit, and what is known of them."""

    low_T: np.ndarray
    high_T: np.ndarray
    facts: dict[str, Any]


def check_interval(config: RunConfig) -> None:
    """Raises RunError where no interval can be had from such folds."""
    if config.ensemble.interval is None:
        return
    try:
        tell_kind(config.folds.kind, config.ensemble.checkpoint)
    except ValueError as error:
        raise RunError(f"ensemble.interval: {error}") from None


def build_intervals(
    folder: RunFolder, config: RunConfig, ids_T: np.ndarray, weights_M: np.ndarray | None, intercept: float
) -> Intervals:
    """The intervals at `ensemble.interval`.

    Args:
        folder, config: the run.
        ids_T: the test rows, in the order of the submission.
        weights_M: the members' weights in the submission, if it has weights.
        intercept: what the submission adds on the space's scale.

    Raises:
        PredictionError: a member from elsewhere has not one test prediction for each fold.
    """
    ensemble = config.ensemble
    oof, tests = read_oof(folder, config), read_test_of_folds(folder, config)
    if any(len(of_folds) != config.folds.count for of_folds in tests.values()):
        raise PredictionError(
            f"ensemble.interval: a member of {ensemble.external} has not one test prediction for each of {config.folds.count} "
            "folds, and an interval is made from those of each fold; leave it out, or give them"
        )

    def become_one(predictions_MX: np.ndarray) -> np.ndarray:
        if combines_folds(config):
            return predictions_MX[0]
        if weights_M is not None:
            return FittedCombination(weights_M, intercept, ensemble.space, 0.0).predict(predictions_MX)
        how = Combination.from_config(ensemble)
        return combine(predictions_MX, how.method, how.space, trim=how.trim)

    test_KT = []
    for fold in range(config.folds.count):
        ids, predictions_MT = stack_models([of_folds[fold] for of_folds in tests.values()])
        place = {row_id: number for number, row_id in enumerate(ids)}
        test_KT.append(become_one(predictions_MT)[[place[row_id] for row_id in ids_T]])
    low_T, high_T = predict_intervals(
        np.stack(test_KT), become_one(oof.oof_MN), oof.target_N, oof.fold_N, ensemble.interval, ensemble.space
    )
    repeats = any(own.own_fold_plan.exists() for own in list(find_members(folder, config).values())[1:])
    is_fitted = weights_M is not None and not combines_folds(config)
    kind = _judge(config, is_blind=not is_fitted and not repeats)
    floor = bound_coverage(ensemble.interval, len(oof.target_N), config.folds.count)
    facts = {"level": ensemble.interval, "kind": kind.value, "mean_width": float((high_T - low_T).mean())}
    return Intervals(low_T, high_T, facts | {"guaranteed": floor if kind == IntervalKind.CV_PLUS else None})


def _judge(config: RunConfig, *, is_blind: bool) -> IntervalKind:
    """The theorem holds for one recipe that is blind to the rows its residuals come from; fitted weights have seen them, and so have
    the models of a member on another division."""
    kind = tell_kind(config.folds.kind, config.ensemble.checkpoint)
    is_blind = is_blind and config.ensemble.external is None and config.folds.on_leak != "group"
    return kind if is_blind else IntervalKind.EMPIRICAL
