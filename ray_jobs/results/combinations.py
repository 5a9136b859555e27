"""Compares the models that are combined, and every way to combine them, on rows that none of them has seen.

Shape suffixes: N rows, C models and combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensemble.combination import Combination
from ensemble.kinds import Metric
from ensemble.members.comparison import Repeated, rank
from ensemble.members.seeds import Retrained, predict_retrained
from ensemble.run import Combinable
from ray_jobs.config.run import RunConfig, name_trainings
from ray_jobs.results.run_files import combines_folds
from ray_jobs.runs.json_files.summary import Combinations, Compared, WeightsFrom


def compare_combinations(
    config: RunConfig, columns: Combinable, metric: Metric, num_folds: int
) -> tuple[Combinations, np.ndarray]:
    """Every member and every method in the config's space, and the combination that is submitted, each with its
    cross-fitted error, an interval, and what it differs from the best member by.

    Args:
        config: of the run.
        columns: what is combined.
        metric: that counts.
        num_folds: that are combined.

    Returns:
        The comparison, and the cross-fitted predictions of what is submitted, (N,).
    """
    ensemble, kind = config.ensemble, config.kind
    hows = [kind.read_combination(ensemble), *kind.list_combinations(ensemble, for_sweep=False)]
    combinations = list(dict.fromkeys(hows))
    found = retrain(config, columns, combinations)
    num_members = len(found.names)
    repeated = [Repeated(alone_SN) for alone_SN in ([] if found.by_seed_CSN is None else found.by_seed_CSN)]
    ranking = rank(
        kind, ensemble.metric, columns.target_N, found.predictions_CN, range(num_members), columns.unit_N, repeated
    )
    names = [*found.names, *map(str, combinations)]
    rows = [
        Compared(
            name,
            "member" if at < num_members else "combination",
            at == num_members,
            **ranking.describe(at),
            seed_errors=ranking.seed_errors[at],
        )
        for at, name in enumerate(names)
    ]
    compared = Combinations(
        metric=ensemble.metric,
        label=metric.error_label,
        best_member=found.names[ranking.reference],
        num_rows=len(columns.target_N),
        scored_on="blend" if combines_folds(config) else "out_of_fold",
        weights_from=_tell_cross_fitting(config, num_folds),
        fold_kind=config.folds.kind,
        rows=tuple(rows),
        diversity=columns.describe_diversity(ensemble),
    )
    return compared, found.cross_fitted[0]


def retrain(config: RunConfig, columns: Combinable, combinations: Sequence[Combination]) -> Retrained:
    """Members and combinations of a run, and what each seed alone gives of them."""
    ensemble = config.ensemble
    average = config.kind.read_combination(replace(ensemble, method=ensemble.fold_method, weights=None))
    trainings = {name: name_trainings(name, ensemble.seeds) for name in config.recipe_names}
    return predict_retrained(columns, trainings, combinations, average)


def _tell_cross_fitting(config: RunConfig, num_folds: int) -> WeightsFrom:
    """From which rows weights are fitted to score them on the others."""
    if combines_folds(config) or num_folds == 1:
        return "other_parts"
    return "earlier_folds" if config.folds.kind == "time" else "other_folds"


def list_metrics(combinations: Combinations, metric: Metric) -> dict[str, Any]:
    """The submitted combination's cross-fitted error, the best member's, each member's, and the table of all."""
    rows, name = combinations.rows, metric.error_name
    best = next(row for row in rows if row.name == combinations.best_member)
    columns = ["name", "kind", "error", "low", "high", "difference", "difference_low", "difference_high"]
    diversity = combinations.diversity or {}
    return {
        f"ensemble/{combinations.scored_on}_{name}": combinations.submitted.error,
        f"ensemble/best_member_{name}": best.error,
        **{f"ensemble/member_{row.name}_{name}": row.error for row in rows if row.kind == "member"},
        **{f"ensemble/seed_std_{row.name}": row.seed_std for row in rows if row.kind == "member" and row.seed_errors},
        **{f"ensemble/{one}": diversity[one] for one in ("ambiguity", "effective_models") if one in diversity},
        "ensemble/combinations": {
            "columns": columns,
            "data": [[getattr(row, name) for name in columns] for row in rows],
        },
    }
