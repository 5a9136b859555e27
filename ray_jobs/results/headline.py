"""The metric that counts in a run: `ensemble.metric`, with its title, direction and unit."""

from __future__ import annotations

from ensemble.kinds import Metric
from ray_jobs.config.run import RunConfig
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.provenance import find_provenance
from ray_jobs.runs.json_files.summary import ByMetric, Scores


def find_metric(folder: RunFolder, config: RunConfig, name: str | None = None) -> Metric:
    """How the values of a metric are read in a run; of `ensemble.metric` if none is named."""
    target = find_provenance(folder).target or ""
    return config.kind.describe_metric(name or config.ensemble.metric).of_target(target)


def list_compared_metrics(folder: RunFolder, config: RunConfig) -> list[Metric]:
    """By what models are compared: the metric that counts, then the others that are measured."""
    names = dict.fromkeys((config.ensemble.metric, *config.kind.scores))
    return [find_metric(folder, config, name) for name in names]


def show_score(scores: ByMetric, metric: Metric) -> str:
    """A metric's value among the scores of some rows; empty where it is not defined for them."""
    value = scores.get(metric.name)
    return "" if value is None else f"{value:.4f}"


def compare_with_constant(scores: Scores, metric: Metric, constant: str) -> str:
    """The out-of-fold score of a run beside the constant predictor's, in a sentence.

    Args:
        scores: of its folds.
        metric: that counts.
        constant: what the constant predictor says.
    """
    value, of_constant = scores.chosen.get(metric.name), scores.out_of_fold.constant.get(metric.name)
    if value is None or of_constant is None:
        return f"out-of-fold {metric.title} cannot be compared with the constant predictor's: it is not defined"
    if metric.higher_is_better or not of_constant:
        return f"out-of-fold {metric.title} is {value:.4f}; {constant} would have {of_constant:.4f}"
    return f"out-of-fold {metric.title} is {value / of_constant:.0%} of the constant predictor's"
