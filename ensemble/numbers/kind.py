"""Predictions that are a number of each row. Light: SciPy and scikit-learn are loaded when something is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.config import FITTED_METHODS, METHODS
from ensemble.kinds import Kind, Metric, Offer

if TYPE_CHECKING:
    import pyarrow as pa

_METRICS = {
    metric.name: metric
    for metric in (
        Metric("msle", "MSLE"),
        Metric("rmsle", "RMSLE"),
        Metric("mse", "MSE", unit="{target}²"),
        Metric("rmse", "RMSE", unit="{target}"),
        Metric("mae", "MAE", unit="{target}"),
        Metric("log_loss", "log loss", unit="nats"),
    )
}


class Numbers:
    """The kind; the scorers of scikit-learn are metrics, too, whose values are better the higher they are."""

    name = "number"
    title = "numbers"
    methods: Sequence[str] = (*METHODS, *FITTED_METHODS)
    scores: Sequence[str] = ("msle", "mae", "mse", "rmse")
    offers: frozenset[Offer] = frozenset(("members", "external", "interval", "sweep", "leaderboard", "tuning"))
    constant = "the training rows' log mean"
    files: Mapping[str, str] = {
        "oof.parquet": "for each member one prediction of each row that some fold validated, by the model that did not train on it",
        "ensemble/test_predictions.parquet": "each model's prediction of each test row, the combined one, their standard deviation",
        "ensemble/honest_predictions.parquet": "id, fold, target, prediction: the combination on the rows that score it, by weights "
        "that did not see the row (only with members or a blend set)",
        "submission_<method>.csv": "ID and prediction",
    }

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return _METRICS.get(name) or Metric(name, name, higher_is_better=True)

    def check_metric(self, name: str, read_targets: Callable[[], np.ndarray]) -> None:
        """Raises ValueError where a metric is unknown or not defined for such targets."""
        from ensemble.numbers.metrics import measure_error

        target_N = read_targets()
        measure_error(name, target_N, target_N)

    def can_weigh_by(self, name: str) -> bool:
        """Not by a scorer, whose negative may be below 0."""
        return name in _METRICS

    def predict_constant(self, train_target_N: np.ndarray) -> float:
        """The best constant for MSLE."""
        from ensemble.numbers.scores import predict_constant

        return predict_constant(train_target_N)

    def tabulate(self, prediction: Any, *, fold: int, checkpoint: str, member: str) -> pa.Table:
        """The rows of a block of numbers."""
        from ensemble.predictions import build_table

        columns = (prediction.ids, prediction.prediction, prediction.prediction_z, prediction.target)
        return build_table(*columns, fold=fold, checkpoint=checkpoint, member=member)


KIND: Kind = Numbers()
