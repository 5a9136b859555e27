"""The error on new rows, with one interval: of what is submitted, or of the run's own fold models. How the interval is
found: `ensemble/members/new_error.py`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ensemble.members.new_error import NewError, estimate_new_error
from ensemble.run import Combinable, find_units
from ray_jobs.config.run import RunConfig
from ray_jobs.results.headline import find_metric
from ray_jobs.results.run_files import combines_folds
from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.summary import NewRowsError


def estimate_of_folds(folder: RunFolder, config: RunConfig, lines: pa.Table, num_folds: int) -> NewRowsError | None:
    """Of the fold models of the run's own recipe, on average.

    Args:
        folder, config: the run.
        lines: of `oof.parquet`, of its finished folds.
        num_folds: that are finished.

    Returns:
        None where the metric is not defined, or there are too few rows.
    """
    kind = config.kind
    target_N, prediction_N = kind.split(lines)
    unit_N = find_units(read_parquet(folder.fold_plan), lines["id"].to_pylist())
    try:
        found = estimate_new_error(kind, config.ensemble.metric, target_N, prediction_N, num_folds, unit_N)
    except ValueError:
        return None
    what = f"the {config.ensemble.checkpoint} checkpoints of {num_folds} folds, on average"
    return _describe(folder, config, found, what, are_groups=unit_N is not None)


def estimate_of_combination(
    folder: RunFolder, config: RunConfig, columns: Combinable, predicted_N: np.ndarray, num_folds: int
) -> NewRowsError | None:
    """Of what is submitted.

    Args:
        folder, config: the run.
        columns: what is combined.
        predicted_N: of its rows, by weights that have not seen the row.
        num_folds: that are combined.
    """
    is_unseen = combines_folds(config)  # then these rows are the blend set
    known = None if is_unseen else num_folds
    try:
        found = estimate_new_error(
            config.kind, config.ensemble.metric, columns.target_N, predicted_N, known, columns.unit_N
        )
    except ValueError:
        return None
    what = f"the submitted {config.ensemble.method}" + (" of the fold models" if is_unseen else ", fold by fold")
    return _describe(folder, config, found, what, are_groups=columns.unit_N is not None, is_unseen=is_unseen)


def _describe(
    folder: RunFolder, config: RunConfig, found: NewError, what: str, *, are_groups: bool, is_unseen: bool = False
) -> NewRowsError:
    metric = find_metric(folder, config)
    ends = (found.error, found.low, found.high)
    if metric.higher_is_better:  # an error is what is missing to the highest value, or a negative
        most = metric.most or 0.0
        ends = (most - found.error, most - found.high, most - found.low)
    value, low, high = ends
    return NewRowsError(
        what=what,
        label=metric.label,
        value=value,
        low=low,
        high=high,
        num_units=found.num_units,
        are_groups=are_groups,
        widening=found.widening,
        is_chosen=config.ensemble.checkpoint == "best" and not is_unseen,
        is_ordered=config.folds.kind == "time",
    )
