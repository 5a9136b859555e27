"""Predictions that are a number of each row. Light: neither SciPy nor scikit-learn."""

from __future__ import annotations

from ensemble.config import FITTED_METHODS, METHODS
from ensemble.kinds import Kind, Metric

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
    methods = (*METHODS, *FITTED_METHODS)
    constant = "the training rows' log mean"

    def describe_metric(self, name: str) -> Metric:
        """How a metric's values are read."""
        return _METRICS.get(name) or Metric(name, name, higher_is_better=True)


KIND: Kind = Numbers()
