"""What is submitted of numbers: the combined prediction of each test row, its interval where one is wanted.

What is combined is the fold models of one member or, where there are several, the members.

Shape suffixes: M models that are combined, N test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.config import EnsembleConfig
from ensemble.numbers.columns import NumberColumns, read_test
from ensemble.numbers.diversity import describe_spread, spread
from ensemble.numbers.interval_basis import build_intervals
from ensemble.numbers.methods.combinations import FittedEnsemble, fit_ensemble
from ensemble.run import Model, NoSubmissionError, Run, Submission


def submit(
    run: Run, columns: NumberColumns | None, read_scores: Callable[[], Mapping[str, Any]], models: Sequence[Model]
) -> Submission:
    """Combines the test predictions; arguments and errors as in `Kind.submit`."""
    ensemble, test = run.ensemble, read_test(run)
    if test is None:
        raise NoSubmissionError("the data has no test table")
    ids, predictions_MN = test
    fitted = fit_run(run, columns, read_scores)
    final_N = fitted.predict(predictions_MN)
    values = {run.target: final_N}
    more: dict[str, Any] = {"intercept": fitted.intercept} if fitted.intercept else {}
    if not run.combines_folds:
        more["fold_method"] = ensemble.fold_method
    if ensemble.interval is not None:
        intervals = build_intervals(run, ids, fitted)
        more["interval"] = intervals.facts
        values |= {f"{run.target}_low": intervals.low_T, f"{run.target}_high": intervals.high_T}
    lines = zip(ids, *values.values(), strict=True)
    facts: dict[str, Any] = more.get("interval", {})
    return Submission(
        ["ID", *values],
        [[row_id, *(repr(float(value)) for value in numbers)] for row_id, *numbers in lines],
        _build_table(ids, predictions_MN, final_N),
        _describe(ensemble, models, fitted.weights_M, predictions_MN, final_N) | more,
        {f"ensemble/interval_{name}": value for name, value in facts.items() if value is not None}
        | {"ensemble/space": ensemble.space},
    )


def fit_run(run: Run, columns: NumberColumns | None, read_scores: Callable[[], Mapping[str, Any]]) -> FittedEnsemble:
    """The run's combination with its weights; arguments as in `Kind.submit`."""
    how = Combination.from_config(run.ensemble)
    if columns is not None:
        return fit_ensemble(how, columns)
    if not how.is_fitted and how.weights is None:
        return FittedEnsemble(how)
    return FittedEnsemble(how, choose_weights(run.ensemble, read_scores()[next(iter(run.members))]))


def choose_weights(ensemble: EnsembleConfig, scores: Mapping[str, Any]) -> np.ndarray | None:
    """One weight for each fold model, by `ensemble.metric` where none are given; None for methods without weights."""
    if ensemble.method != "weighted_mean":
        return None
    if ensemble.weights is not None:
        return normalise_weights(ensemble.weights, len(scores["folds"]))
    return weights_from_scores(
        np.array([fold[ensemble.checkpoint][ensemble.metric] for fold in scores["folds"]]), ensemble.weight_power
    )


def _build_table(ids: np.ndarray, predictions_MN: np.ndarray, final_N: np.ndarray) -> pa.Table:
    """Each model's prediction of each test row beside the combined one and their standard deviation."""
    columns = {"id": pa.array([str(i) for i in ids])}
    columns |= {f"model_{number}": pa.array(row) for number, row in enumerate(predictions_MN)}
    return pa.table(columns | {"prediction": pa.array(final_N), "std": pa.array(spread(predictions_MN))})


def _describe(
    ensemble: EnsembleConfig,
    models: Sequence[Model],
    weights_M: np.ndarray | None,
    predictions_MN: np.ndarray,
    final_N: np.ndarray,
) -> dict[str, Any]:
    spread_of_rows = describe_spread(predictions_MN)
    return {
        "method": ensemble.method,
        "space": ensemble.space,
        "trim": ensemble.trim if ensemble.method == "trimmed_mean" else None,
        "n_models": len(models),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(final_N),
        "mean_std": spread_of_rows["pred_std_mean"],
        **spread_of_rows,
        "weights": None if weights_M is None else weights_M.tolist(),
        "model_weights": [{**model.label, **model.summary} for model in models],
        "final_pred_min": float(final_N.min()),
        "final_pred_max": float(final_N.max()),
        "final_pred_mean": float(final_N.mean()),
        "final_pred_std": float(final_N.std()),
    }
