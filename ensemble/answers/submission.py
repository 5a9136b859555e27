"""What is submitted of answers: to each test question the one that the models elect. Where right answers are known,
every model and every method is compared on them.

Shape suffixes: M models, T test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.answers.columns import AnswerColumns, read_test, weigh
from ensemble.answers.scores import name_scores, score_answers
from ensemble.answers.votes import METHODS, Ballot, Elected, elect
from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.run import Model, NoSubmissionError, Run, Submission

_OF_ABLATION = ("format_accuracy", "answer_accuracy")


def choose_weights(
    run: Run, how: Combination, columns: AnswerColumns | None, read_scores: Callable[[], Mapping[str, Any]]
) -> list[float] | None:
    """One weight for each of what is combined; None for a method without. Arguments as in `Kind.submit`."""
    if how.method != "weighted_mean":
        return None
    if columns is not None:
        return weigh(how, columns.target_N, columns.oof_MN)
    folds = read_scores()[next(iter(run.members))]["folds"]
    if how.weights is not None:
        given: list[float] = normalise_weights(how.weights, len(folds)).tolist()
        return given
    errors_M = np.array([1 - fold[run.ensemble.checkpoint][how.metric] for fold in folds])
    weights: list[float] = weights_from_scores(errors_M, how.weight_power).tolist()
    return weights


def submit(
    run: Run,
    how: Combination,
    columns: AnswerColumns | None,
    read_scores: Callable[[], Mapping[str, Any]],
    models: Sequence[Model],
) -> Submission:
    """Combines the test answers; arguments and errors as in `Kind.submit`, and how to combine."""
    test = read_test(run)
    if test is None:
        raise NoSubmissionError("the data has no test rows")
    table, voters = test
    weights = choose_weights(run, how, columns, read_scores)
    elected = [elect(list(row), how.method, weights) for row in zip(*voters, strict=True)]
    is_known = table["target"].null_count < len(table)
    compared = {"test": _compare(run, how, voters, elected)} if is_known else {}
    facts = _describe(run, models, weights, voters, elected)
    if is_known:
        facts["compared"] = compared["test"]
    scores = read_scores()[next(iter(run.members))]
    return Submission(
        ["ID", run.target, "agreement", "format", *(["correct"] if is_known else []), "text"],
        [
            [row_id, *_list_cells(one, is_known=is_known)]
            for row_id, one in zip(table["id"].to_pylist(), elected, strict=True)
        ],
        _build_table(table["id"].to_pylist(), voters, elected),
        facts,
        {"ensemble/space": "answers", **_list_metrics(compared.get("test", []), scores)},
        compared,
    )  # fmt: skip


def _list_cells(elected: Elected, *, is_known: bool) -> list[str]:
    vote = elected.vote
    return [
        vote.answer,
        repr(elected.share),
        repr(vote.format),
        *([repr(vote.correct)] if is_known else []),
        vote.text,
    ]


def measure_disagreement(elected: Elected) -> float:
    """Share of the votes that went to other answers."""
    return max(0.0, 1 - elected.share)


def _compare(
    run: Run, how: Combination, voters: Sequence[Sequence[Ballot]], elected: Sequence[Elected]
) -> list[dict[str, Any]]:
    """Each model, each method, and what is submitted, with its scores."""
    names = [name.replace("_", " ") if run.combines_folds else name for name in run.model_names]
    said = {("model", name): [ballot.likeliest for ballot in own] for name, own in zip(names, voters, strict=True)}
    for method in METHODS[:-1]:  # weights have been found on other rows
        said["combination", method] = [elect(list(row), method).vote for row in zip(*voters, strict=True)]
    said["submitted", str(how)] = [one.vote for one in elected]
    rows = []
    for (kind, name), votes in said.items():
        kept_T = np.array([(one.correct, one.format) for one in votes], np.float64)
        scores = score_answers(np.zeros((len(votes), 2), np.int64), kept_T)
        rows.append({"kind": kind, "name": name, "num_rows": len(votes), **scores})
    return rows


def _build_table(ids: Sequence[str], voters: Sequence[Sequence[Ballot]], elected: Sequence[Elected]) -> pa.Table:
    columns = {"id": pa.array(list(ids), pa.string())}
    columns |= {f"model_{n}": pa.array([one.likeliest.answer for one in own]) for n, own in enumerate(voters)}
    columns |= {
        "prediction": pa.array([one.vote.answer for one in elected]),
        "std": pa.array([measure_disagreement(one) for one in elected]),
        "correct": pa.array([one.vote.correct for one in elected]),
        "text": pa.array([one.vote.text for one in elected]),
    }
    return pa.table(columns)


def _describe(
    run: Run,
    models: Sequence[Model],
    weights: Sequence[float] | None,
    voters: Sequence[Sequence[Ballot]],
    elected: Sequence[Elected],
) -> dict[str, Any]:
    """Facts; `final_pred_...` are of the elected answers' share of the votes, its spread of what went to others."""
    ensemble = run.ensemble
    share_T = np.array([one.share for one in elected])
    spread_T = np.array([measure_disagreement(one) for one in elected])
    facts = {
        "method": ensemble.method,
        "n_models": len(models),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(elected),
        "mean_std": float(spread_T.mean()),
        "prediction_diversity": float(spread_T.mean()),
        **{f"pred_std_{name}": float(getattr(spread_T, name)()) for name in ("mean", "max", "min")},
        "weights": None if weights is None else list(weights),
        "model_weights": [{**model.label, **model.summary} for model in models],
        **{f"final_pred_{name}": float(getattr(share_T, name)()) for name in ("min", "max", "mean", "std")},
    }
    return facts if run.combines_folds else facts | {"fold_method": ensemble.fold_method}


def _list_metrics(compared: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded: the models of the ablation out of fold, and the table of the test rows."""
    found: dict[str, Any] = {}
    if "ablation" in scores:
        found |= list_ablation_metrics(scores["ablation"])
    if compared:
        columns = list(compared[0])
        found["ensemble/compared"] = {"columns": columns, "data": [[row[name] for name in columns] for row in compared]}
        found["ensemble/test_accuracy"] = next(row["accuracy"] for row in compared if row["kind"] == "submitted")
    return found


def list_ablation_metrics(ablation: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracies of each model of an ablation, by type, and the table `ablation_comparison`."""
    found: dict[str, Any] = {}
    for name, own in ablation["models"].items():
        found |= name_scores(f"ensemble/{name}/", own, _OF_ABLATION, _OF_ABLATION)
    return found | {"ensemble/ablation_comparison": tabulate_ablation(ablation)}


def tabulate_ablation(ablation: Mapping[str, Any]) -> dict[str, Any]:
    """The table of an ablation: a line for each model, with its paired difference from the one before."""
    differences = {one["model"]: one for one in reversed(ablation["differences"])}
    columns = [
        "model", "total", "format_accuracy", "answer_accuracy", "answer_low", "answer_high", "against", "difference",
        "difference_low", "difference_high",
    ]  # fmt: skip
    data = []
    for name, own in ablation["models"].items():
        paired = differences.get(name, {})
        data.append(
            [name, *(own[column] for column in columns[1:6]),
             paired.get("against"), paired.get("difference"), paired.get("low"), paired.get("high")]
        )  # fmt: skip
    return {"columns": columns, "data": data}
