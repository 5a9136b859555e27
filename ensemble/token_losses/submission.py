"""What is submitted of losses: nats, perplexity and bits per byte of each test document by all models together. Every
text has its truth, so test documents are scored, too.

Shape suffixes: M models that are combined, N documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.combination import Combination, normalise_weights, weights_from_scores
from ensemble.run import Model, NoSubmissionError, Run, Submission
from ensemble.token_losses.columns import LossColumns, read_test
from ensemble.token_losses.combine import METHODS, name_weighing
from ensemble.token_losses.files import read_how
from ensemble.token_losses.scores import SCORES, score_losses

HEADER = ("tokens", "bytes", "perplexity", "bits_per_byte")


def submit(
    run: Run,
    how: Combination,
    columns: LossColumns | None,
    read_scores: Callable[[], Mapping[str, Any]],
    models: Sequence[Model],
) -> Submission:
    """Scores the test documents; arguments and errors as in `Kind.submit`, and how to combine."""
    test = read_test(run)
    if test is None:
        raise NoSubmissionError("the data has no test documents")
    own, table = test
    weights_M = fit_run(run, how, columns, read_scores)
    combined_N, spread_N = own.mix(weights_M), own.oof_MN.std(axis=0)
    compared = _compare(run, how, own, combined_N, columns, read_scores)
    window, stride = read_how(table)
    facts = _describe(run, models, weights_M, combined_N, spread_N) | {"window": window, "stride": stride}
    submitted = compared[-1]
    return Submission(
        ["ID", run.target, *HEADER],
        list_rows(own.ids_N, own.target_N, combined_N),
        _build_table(own, combined_N, spread_N),
        facts | {"compared": compared},
        {"ensemble/space": "probability"}
        | {f"ensemble/test_{name}": submitted[name] for name in SCORES if submitted[name] is not None},
        {"test": compared},
    )


def list_rows(ids_N: np.ndarray, target_N: np.ndarray, nats_N: np.ndarray) -> list[list[str]]:
    """Of each document id, nats, tokens, bytes, perplexity and bits per byte."""
    tokens_N, bytes_N = target_N[:, 0], target_N[:, 1]
    perplexity_N = np.exp(np.minimum(nats_N / tokens_N, 700))
    bits_N = nats_N / (math.log(2) * np.maximum(bytes_N, 1))
    values = zip(ids_N.tolist(), nats_N, tokens_N, bytes_N, perplexity_N, bits_N, strict=True)
    return [
        [name, repr(float(nats)), f"{tokens:.0f}", f"{size:.0f}", repr(float(perplexity)), repr(float(bits))]
        for name, nats, tokens, size, perplexity, bits in values
    ]


def fit_run(
    run: Run, how: Combination, columns: LossColumns | None, read_scores: Callable[[], Mapping[str, Any]]
) -> np.ndarray | None:
    """The weights of the run's combination, (M,); None: equal ones. Arguments as in `submit`."""
    if columns is not None:
        return columns.weigh(how)
    if how.method == "mean":
        return None
    scores = read_scores()[next(iter(run.members))]
    if how.weights is not None:
        return normalise_weights(how.weights, len(scores["folds"]))
    errors_M = np.array(
        [fold[run.ensemble.checkpoint][name_weighing(how.metric)] for fold in scores["folds"]], np.float64
    )
    return weights_from_scores(errors_M, how.weight_power)


def _compare(
    run: Run,
    how: Combination,
    test: LossColumns,
    combined_N: np.ndarray,
    columns: LossColumns | None,
    read_scores: Callable[[], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Each model and each method on the test documents; the last is what is submitted."""
    names = [name.replace("_", " ") if run.combines_folds else name for name in run.model_names]
    said = [("model", name, nats_N) for name, nats_N in zip(names, test.oof_MN, strict=True)]
    for method in METHODS if columns is not None else METHODS[:2]:
        if run.combines_folds or columns is not None:
            weights_M = fit_run(run, Combination(method, None, how.metric), columns, read_scores)
            said.append(("combination", method, test.mix(weights_M)))
    said.append(("submitted", how.method, combined_N))
    return [
        {"kind": kind, "name": name, "num_rows": len(nats_N)} | score_losses(test.target_N, nats_N)
        for kind, name, nats_N in said
    ]


def _build_table(test: LossColumns, combined_N: np.ndarray, spread_N: np.ndarray) -> pa.Table:
    columns = {"id": pa.array(test.ids_N.tolist(), pa.string())}
    columns |= {f"model_{number}": pa.array(nats_N) for number, nats_N in enumerate(test.oof_MN)}
    columns |= {"prediction": pa.array(combined_N), "std": pa.array(spread_N)}
    columns |= {"tokens": pa.array(test.num_tokens), "bytes": pa.array(test.target_N[:, 1].astype(np.int64))}
    return pa.table(columns)


def _describe(
    run: Run, models: Sequence[Model], weights_M: np.ndarray | None, combined_N: np.ndarray, spread_N: np.ndarray
) -> dict[str, Any]:
    """Facts; `final_pred_...` are of the nats of documents, and the spread is that of the models'."""
    ensemble = run.ensemble
    spread = {"prediction_diversity": spread_N.mean(), "pred_std_mean": spread_N.mean()}
    spread |= {"pred_std_max": spread_N.max(), "pred_std_min": spread_N.min()}
    facts = {
        "method": ensemble.method,
        "n_models": len(models),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(combined_N),
        "mean_std": float(spread_N.mean()),
        **{name: float(value) for name, value in spread.items()},
        "weights": None if weights_M is None else weights_M.tolist(),
        "model_weights": [{**model.label, **model.summary} for model in models],
        **{f"final_pred_{name}": float(getattr(combined_N, name)()) for name in ("min", "max", "mean", "std")},
    }
    return facts if run.combines_folds else facts | {"fold_method": ensemble.fold_method}
