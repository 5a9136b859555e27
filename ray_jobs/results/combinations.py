"""Compares the models that are combined, and every way to combine them, on rows that none of them has seen.

Shape suffixes: M models, N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemble.members.combinations import Columns, Combination, list_combinations, predict_honestly, rank
from ensemble.members.leave_one_out import leave_each_out
from ensemble.numbers.diversity import correlate_errors, correlate_predictions, count_effective_models, decompose_error
from ray_jobs.config.run import RunConfig
from ray_jobs.results.columns import combines_folds


def compare_combinations(config: RunConfig, columns: Columns, label: str) -> tuple[dict[str, Any], np.ndarray]:
    """Every member and every method in the config's space, and the combination that is submitted, each with its honest error, an
    interval, and what it differs from the best member by.

    Args:
        config: of the run.
        columns: what is combined.
        label: of the error, for people.

    Returns:
        `metric`, `label`, `best_member`, `num_rows`, `scored_on` (out_of_fold or blend), `weights_from` (other_folds, earlier_folds or other_parts), `rows`: of each `name`, `kind` (member or combination), `submitted`, `error`, `low`,
        `high`, `difference`, `difference_low`, `difference_high`. And the honest predictions of what is submitted, (N,).
    """
    ensemble = config.ensemble
    submitted = Combination.from_config(ensemble)
    others = list_combinations([ensemble.space], ensemble.metric, [ensemble.trim])
    combinations = list(dict.fromkeys([submitted, *others]))
    honest = [predict_honestly(how, columns) for how in combinations]
    num_members = len(columns.names)
    ranking = rank(
        ensemble.metric,
        columns.target_N,
        np.stack([*columns.oof_MN, *honest]),
        range(num_members),
        columns.unit_N,
    )
    names = [*columns.names, *map(str, combinations)]
    rows = [
        {
            "name": name,
            "kind": "member" if number < num_members else "combination",
            "submitted": number == num_members,
            **ranking.describe(number),
        }
        for number, name in enumerate(names)
    ]
    compared = {
        "metric": ensemble.metric,
        "label": label,
        "best_member": columns.names[ranking.reference],
        "num_rows": len(columns.target_N),
        "scored_on": "blend" if combines_folds(config) else "out_of_fold",
        "weights_from": _tell_cross_fitting(config),
        "rows": rows,
        "diversity": describe_diversity(config, columns),
    }
    return compared, honest[0]


def _tell_cross_fitting(config: RunConfig) -> str:
    """From which rows weights are fitted to score them on the others."""
    if combines_folds(config) or config.folds.count == 1:
        return "other_parts"
    return "earlier_folds" if config.folds.kind == "time" else "other_folds"


def describe_diversity(config: RunConfig, columns: Columns) -> dict[str, Any]:
    """How much the models differ, and what each adds to their mean.

    Returns:
        `ensemble_error`, `member_error`, `ambiguity` of the mean (squared error in the config's space; the first is the second less the
        third), `effective_models`, `error_correlation` and `prediction_correlation` (M, M), and `contributions`: of each model how
        much the metric's error grows without it, with a 95 % interval; of a single model none.
    """
    space, metric = config.ensemble.space, config.ensemble.metric
    parts = decompose_error(columns.oof_MN, columns.target_N, space)
    errors_MM = correlate_errors(columns.oof_MN, columns.target_N, space)
    contributions = []
    if len(columns.names) > 1:
        left_out = leave_each_out(columns.oof_MN, columns.target_N, metric, "mean", space, unit_N=columns.unit_N)
        values = (left_out.contribution_M, left_out.low_M, left_out.high_M)
        contributions = [
            dict(zip(("name", "contribution", "low", "high"), (name, *map(float, numbers)), strict=True))
            for name, *numbers in zip(columns.names, *values, strict=True)
        ]
    return {
        "ensemble_error": parts.ensemble_error,
        "member_error": parts.member_error,
        "ambiguity": parts.ambiguity,
        "effective_models": _as_json(count_effective_models(errors_MM)),
        "error_correlation": _as_json(errors_MM),
        "prediction_correlation": _as_json(correlate_predictions(columns.oof_MN, space)),
        "contributions": contributions,
    }


def _as_json(numbers: np.ndarray | float) -> Any:
    """NaN, which JSON does not have, becomes None."""
    values = np.array(numbers, object)
    values[~np.isfinite(np.asarray(numbers, np.float64))] = None
    return values.tolist()


def list_metrics(combinations: dict[str, Any]) -> dict[str, Any]:
    """The submitted combination's honest error beside the best member's, each member's error, and the table of all."""
    rows, metric = combinations["rows"], combinations["metric"]
    submitted = next(row for row in rows if row["submitted"])
    best = next(row for row in rows if row["name"] == combinations["best_member"])
    columns = ["name", "kind", "error", "low", "high", "difference", "difference_low", "difference_high"]
    return {
        f"ensemble/{combinations['scored_on']}_{metric}": submitted["error"],
        f"ensemble/best_member_{metric}": best["error"],
        **{f"ensemble/member_{row['name']}_{metric}": row["error"] for row in rows if row["kind"] == "member"},
        "ensemble/ambiguity": combinations["diversity"]["ambiguity"],
        "ensemble/effective_models": combinations["diversity"]["effective_models"],
        "ensemble/combinations": {"columns": columns, "data": [[row[name] for name in columns] for row in rows]},
    }
