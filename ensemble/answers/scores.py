"""Accuracies of answers with intervals, by type; paired differences of models; and the baseline of guessing.

Shape suffixes: N rows, C candidates, D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ensemble.answers.files import find_answer, list_models
from ensemble.members.comparison import draw_sums

METRICS = ("accuracy", "format_accuracy")
_NORMAL = 1.959964  # of 95 %


def _get_hits(metric: str, prediction_N: np.ndarray) -> np.ndarray:
    """1 where a row is right, or of the whole form, (..., N)."""
    if metric == "accuracy":
        hits_N: np.ndarray = prediction_N[..., 0]
    else:
        hits_N = (prediction_N[..., 1] == 1).astype(np.float64)
    return hits_N


def score_answers(target_N: np.ndarray, prediction_N: np.ndarray) -> dict[str, float | None]:
    """Both accuracies; None where no right answer is known."""
    found: dict[str, float | None] = {}
    for metric in METRICS:
        hits_N = _get_hits(metric, prediction_N)
        known = hits_N[~np.isnan(hits_N)]
        found[metric] = float(known.mean()) if len(known) else None
    return found


def score_guessing(target_N: np.ndarray) -> dict[str, float | None]:
    """Of saying to each question the right answer that its type has most often, and of saying it in the form."""
    hits = 0
    for kind in np.unique(target_N[:, 0]):
        hits += np.unique(target_N[target_N[:, 0] == kind, 1], return_counts=True)[1].max()
    return {"accuracy": float(hits / len(target_N)), "format_accuracy": 0.0}


def check_metric(name: str) -> None:
    """Raises ValueError for other metrics than these."""
    if name not in METRICS:
        raise ValueError(f"expected one of {', '.join(METRICS)} for answers")


def measure_error(metric: str, target_N: np.ndarray, prediction_N: np.ndarray) -> float:
    """What is missing to 1.

    Raises:
        ValueError: the right answers are not known.
    """
    value = score_answers(target_N, prediction_N)[metric]
    if value is None:
        raise ValueError("the right answers of these rows are not known")
    return 1 - value


def draw_errors(
    metric: str,
    target_N: np.ndarray,
    predictions_CN: np.ndarray,
    unit_N: np.ndarray | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of all rows, (C,), and of drawn ones, (D, C); arguments as in `Kind.draw_errors`."""
    hits_CN = _get_hits(metric, np.asarray(predictions_CN))
    statistics_CNS = np.stack([hits_CN, np.ones_like(hits_CN)], axis=2)
    return draw_sums(statistics_CNS, lambda sums: 1 - sums[..., 0] / sums[..., 1], unit_N, num_draws, seed)


def find_interval(hits_N: np.ndarray, groups_N: Sequence[str | None] = ()) -> tuple[float, float]:
    """The 95 % interval of a share: of independent rows Wilson's (1927,
    https://doi.org/10.1080/01621459.1927.10502953); where rows share a group, by the standard error that is robust to
    that (Miller 2024, "Adding Error Bars to Evals", https://arxiv.org/abs/2411.00640, section 2.2)."""
    hits_N = np.asarray(hits_N, np.float64)
    number, mean = len(hits_N), float(hits_N.mean())
    clusters_N = _number_clusters(groups_N, number)
    num_clusters = int(clusters_N.max()) + 1
    if num_clusters == number or mean in (0.0, 1.0):  # without any spread clusters count as rows
        z, number = _NORMAL, num_clusters
        middle = (mean + z * z / 2 / number) / (1 + z * z / number)
        half = z * np.sqrt(mean * (1 - mean) / number + z * z / 4 / number**2) / (1 + z * z / number)
    else:
        middle, half = mean, _NORMAL * find_standard_error(hits_N, clusters_N)
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def find_standard_error(values_N: np.ndarray, clusters_N: np.ndarray) -> float:
    """Of a mean whose rows are dependent within clusters, numbered from 0."""
    residuals_N = values_N - values_N.mean()
    sums = np.bincount(clusters_N, residuals_N)
    number = len(sums)
    small = number / (number - 1) if number > 1 else 1.0
    return float(np.sqrt(small * (sums**2).sum()) / len(values_N))


def _number_clusters(groups_N: Sequence[str | None], number: int) -> np.ndarray:
    """A row without a group is one of its own."""
    if not any(one is not None for one in groups_N):
        return np.arange(number)
    names = [f"group {one}" if one is not None else f"row {place}" for place, one in enumerate(groups_N)]
    numbers: np.ndarray = np.unique(names, return_inverse=True)[1]
    return numbers


def describe_ablation(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every model of an ablation on the same rows: accuracies with intervals, by type; how each differs from the one
    before; and the baseline of guessing.

    Args:
        lines: rows of a prediction file whose right answers are known.

    Returns:
        `num_rows`, `models`, `differences`, `guess`, and `sampled_accuracy` where there are samples.
    """
    names = list_models(lines)
    found: dict[str, Any] = {"num_rows": len(lines), "models": {}, "differences": [], "guess": _guess(lines)}
    for name in names:
        found["models"][name] = _describe_model(lines, name)
    pairs = [*pairwise(names), *([(names[0], names[-1])] if len(names) > 2 else [])]
    found["differences"] = [_compare(lines, before, after) for before, after in pairs]
    sampled = [one["correct"] for row in lines for one in row["samples"] if one["correct"] is not None]
    if sampled:
        found["sampled_accuracy"] = float(np.mean(sampled))
    return found


def name_scores(prefix: str, scores: Mapping[str, Any], names: Sequence[str], by_type: Sequence[str]) -> dict[str, Any]:
    """A model's scores as metrics: these names of all rows, as far as they are there, and those of each type."""
    found = {f"{prefix}{name}": scores[name] for name in names if name in scores}
    for kind, own in scores.get("by_type", {}).items():
        found |= {f"{prefix}{kind}/{name}": own[name] for name in by_type}
    return found


def _describe_model(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    own = [line for line in lines if find_answer(line, name) is not None]
    by_type = {kind: [line for line in own if line["type"] == kind] for kind in sorted({one["type"] for one in own})}
    found = _measure(own, name)
    if len(by_type) > 1:
        found["by_type"] = {kind: _measure(part, name) for kind, part in by_type.items()}
    return found


def _measure(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    answers = [answer for line in lines if (answer := find_answer(line, name)) is not None]
    groups = [line["group"] for line in lines]
    found: dict[str, Any] = {"total": len(answers)}
    for metric, hits in {
        "answer": [float(one["correct"] or 0) for one in answers],
        "format": [float(one["format"] == 1) for one in answers],
    }.items():
        low, high = find_interval(np.array(hits), groups)
        found |= {f"{metric}_accuracy": float(np.mean(hits)), f"{metric}_low": low, f"{metric}_high": high}
        found[f"{metric}_correct"] = int(sum(hits))
    judged = [one["judge_score"] for one in answers if one["judge_score"] is not None]
    if judged:
        found |= {"avg_judge_score": float(np.mean(judged)), "judge_failures": len(answers) - len(judged)}
    return found


def _compare(lines: Sequence[Mapping[str, Any]], before: str, after: str) -> dict[str, Any]:
    """The paired difference of two models' accuracies with its 95 % interval (Miller 2024, section 4.2)."""
    hits = [
        [float((find_answer(line, name) or {"correct": 0})["correct"] or 0) for name in (after, before)]
        for line in lines
    ]
    difference_N = np.array(hits)[:, 0] - np.array(hits)[:, 1]
    clusters_N = _number_clusters([line["group"] for line in lines], len(lines))
    half = _NORMAL * find_standard_error(difference_N, clusters_N)
    mean = float(difference_N.mean())
    return {"model": after, "against": before, "difference": mean, "low": mean - half, "high": mean + half}


def _guess(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of saying the right answer that is most frequent among other folds' questions of the type (with one fold: among
    these)."""
    folds = {line["fold"] for line in lines}
    counts: dict[tuple[str, Any], dict[str, int]] = {}
    for line in lines:
        own = counts.setdefault((line["type"], line["fold"]), {})
        own[line["target"]] = own.get(line["target"], 0) + 1
    hits: dict[str, list[bool]] = {}
    for line in lines:
        others = [fold for fold in folds if fold != line["fold"]] or list(folds)
        merged: dict[str, int] = {}
        for fold in sorted(others):
            for answer, number in counts.get((line["type"], fold), {}).items():
                merged[answer] = merged.get(answer, 0) + number
        guess = min(merged, key=lambda answer: (-merged[answer], answer)) if merged else None
        hits.setdefault(line["type"], []).append(guess == line["target"])
    every = [hit for part in hits.values() for hit in part]
    return {
        "answer_accuracy": float(np.mean(every)),
        "by_type": {kind: float(np.mean(part)) for kind, part in sorted(hits.items())},
    }
