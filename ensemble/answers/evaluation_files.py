"""Files of an evaluation as users of fine-tuning know them: `eval_<model>.json`, `eval_details_<model>.jsonl` and
`ablation_summary_<rows>.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.answers.files import find_answer
from ensemble.answers.scores import describe_ablation, find_interval, name_scores
from ensemble.answers.submission import tabulate_ablation
from ensemble.answers.votes import METHODS, elect, read_ballot

FOLDER = "evaluation"
_RECORDED_BY_TYPE = ("format_accuracy", "answer_accuracy", "total")
_RECORDED = (*_RECORDED_BY_TYPE, "format_correct", "answer_correct", "avg_judge_score", "judge_failures")
_SHOWN = ("total", "format_accuracy", "answer_accuracy", "answer_low", "answer_high")


def write_evaluation(
    lines: Sequence[Mapping[str, Any]], rows: str, write: Callable[[str, bytes], None], folder: str = FOLDER
) -> dict[str, Any]:
    """Writes the files of an evaluation of every model of an ablation.

    Args:
        lines: rows of a prediction file whose right answers are known.
        rows: what they are: out_of_fold, test.
        write: puts a file of this content at a path.
        folder: of the files.

    Returns:
        The ablation.
    """
    prefix = f"{folder}/" if folder else ""
    ablation = describe_ablation(lines)
    for name, scores in ablation["models"].items():
        write(f"{prefix}eval_{name}.json", _to_json({"model": name, "rows": rows, **scores}))
        details = [_describe(line, name) for line in lines]
        text = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in details if one)
        write(f"{prefix}eval_details_{name}.jsonl", text.encode())
    summary = {"rows": rows, **ablation, "ablation_comparison": tabulate_ablation(ablation)}
    write(f"{prefix}ablation_summary_{rows}.json", _to_json(summary))
    return ablation


def evaluate_tables(
    tables: Mapping[str, pa.Table], rows: str, write: Callable[[str, bytes], None]
) -> tuple[list[str], list[list[str]], dict[str, Any]]:
    """The evaluation of the models of several folds on the same questions: of each, of their votes, and of others such
    as their soup; arguments as in `Kind.write_evaluation`. A question counts once for each fold, so the rows of one
    question are a group."""
    folds = {name: table.to_pylist() for name, table in tables.items() if "fold_" in name}
    others = {name: table.to_pylist() for name, table in tables.items() if name not in folds}
    if not folds:
        folds, others = others, {}
    lines = [{**line, "group": line["group"] or line["id"]} for own in folds.values() for line in own]
    ablation = write_evaluation(lines if len(folds) > 1 else next(iter(folds.values())), rows, write, folder="")
    found = [_show(*row[:6], *row[6:]) for row in tabulate_ablation(ablation)["data"]]
    metrics = list_evaluation_metrics(ablation)
    for name, own in others.items():
        scores = write_evaluation(own, f"{rows}_{name}", write, folder="")["models"][own[0]["model"]]
        found.append(_show(name, *(scores[column] for column in _SHOWN)))
        metrics |= _prefix(f"{name}/", scores)
    for method in METHODS[:-1] if len(folds) > 1 else ():
        votes = _score_votes(method, list(folds.values()))
        found.append(_show(method, *votes))
        metrics |= {f"{method}/format_accuracy": votes[1], f"{method}/answer_accuracy": votes[2]}
    return ["model", "answers", "whole form", "right [95 %]", "more than the model before [95 %]"], found, metrics


def list_evaluation_metrics(ablation: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of an evaluation: of one model by their bare names, of several under each model's, with the table
    `ablation_comparison`."""
    models = ablation["models"]
    if len(models) == 1:
        return _prefix("", *models.values())
    found: dict[str, Any] = {}
    for name, scores in models.items():
        found |= _prefix(f"{name}/", scores)
    return found | {"ablation_comparison": tabulate_ablation(ablation)}


def _prefix(prefix: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded scores of a model, and those of each type of question."""
    return name_scores(prefix, scores, _RECORDED, _RECORDED_BY_TYPE)


def _score_votes(method: str, folds: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[int, float, float, float, float]:
    """Number, whole form, right and the ends of its interval of a method, of questions in the first fold's order."""
    by_id = [{line["id"]: read_ballot(line) for line in own} for own in folds]
    votes = [elect([own[line["id"]] for own in by_id], method).vote for line in folds[0]]
    right_N = np.array([vote.correct for vote in votes])
    form = float(np.mean([vote.format == 1 for vote in votes]))
    ends = find_interval(right_N, [line["group"] for line in folds[0]])
    return len(votes), form, float(right_N.mean()), *ends


def _show(
    name: str, total: int, form: float, right: float, low: float, high: float, against: str | None = None, *more: float
) -> list[str]:
    """A line of the table."""
    difference = "" if against is None else f"{more[0]:+.3f} [{more[1]:+.3f}, {more[2]:+.3f}]"
    return [name, f"{total:,}", f"{form:.3f}", f"{right:.3f} [{low:.3f}, {high:.3f}]", difference]


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _describe(line: Mapping[str, Any], name: str) -> dict[str, Any]:
    answer = find_answer(line, name)
    if answer is None:
        return {}
    return {
        "id": line["id"],
        "fold": line["fold"],
        "type": line["type"],
        "prompt": line["question"],
        "gold_answer": line["target"],
        "answer": answer["answer"],
        "text": answer["text"],
        "format": answer["format"],
        "answer_correct": None if answer["correct"] is None else bool(answer["correct"]),
        "judge_score": answer["judge_score"],
    }
