"""What is said of test rows, which no model has seen: the loss of each model, and of the mean of their predictions.

Shape suffixes: M models, T test rows, S draws of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.run import Model, NoSubmissionError, Run, Submission
from ensemble.samples.columns import SampleColumns, read_fold_models
from ensemble.samples.metrics import SCORES, score_samples

LOSS = "v_loss"


def submit(run: Run, models: Sequence[Model]) -> Submission:
    """Losses of the test rows; arguments and errors as in `Kind.submit`."""
    checkpoint = run.ensemble.checkpoint
    if not _has(run, "test", checkpoint):
        raise NoSubmissionError(
            "the data has no test pictures, which no fold learns from; the ensemble is scored on these "
            "(data.test_pictures) or on a blend set (folds.blend_fraction=0.1)"
        )
    columns = read_fold_models(run, "test", checkpoint)
    of_models_MT, combined_T = list_rows(run, columns)
    spread_T = np.sqrt(columns.find_spread().mean(axis=1))
    parts = {"test": columns}
    if _has(run, "blend", checkpoint):
        parts["blend"] = read_fold_models(run, "blend", checkpoint)
    compared = {part: compare(run, one) for part, one in parts.items()}
    ids = columns.ids_N.tolist()
    table: dict[str, Any] = {"id": pa.array(ids, pa.string())}
    table |= {f"model_{number}": pa.array(one_T) for number, one_T in enumerate(of_models_MT)}
    submitted = next(line for line in compared["test"] if line["kind"] == "submitted")
    return Submission(
        ["ID", run.target or LOSS],
        [[row_id, repr(float(value))] for row_id, value in zip(ids, combined_T, strict=True)],
        pa.table(table | {"prediction": pa.array(combined_T), "std": pa.array(spread_T)}),
        _describe(run, models, combined_T, spread_T),
        {"ensemble/space": "clean pictures"}
        | {f"ensemble/test_{name}": submitted[name] for name in SCORES if submitted[name] is not None},
        compared,
    )


def list_rows(run: Run, columns: SampleColumns) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss of each row by each of what is combined, (M, T), and by all together, (T,)."""
    groups = group_models(run, columns)
    return np.stack([one.average().mean(axis=1) for one in groups.values()]), columns.average().mean(axis=1)


def group_models(run: Run, columns: SampleColumns) -> dict[str, SampleColumns]:
    """The fold models of each of what is combined: one where fold models are, else those of a member."""
    if run.combines_folds:
        return {name: columns.take([name]) for name in columns.names}
    of_member = {name: [f"{name} {fold}" for fold in run.folds] for name in run.members}
    return {name: columns.take(own) for name, own in of_member.items()}


def compare(run: Run, columns: SampleColumns) -> list[dict[str, Any]]:
    """Each model, and the mean of all, with its scores."""
    lines = [("model", name.replace("_", " "), one.average()) for name, one in group_models(run, columns).items()]
    lines.append(("submitted", run.ensemble.method, columns.average()))
    return [
        {"kind": kind, "name": name, "num_rows": len(columns.ids_N)} | score_samples(columns.target_N, loss_NS)
        for kind, name, loss_NS in lines
    ]


def _has(run: Run, part: str, checkpoint: str) -> bool:
    return next(iter(run.members.values()))[0].predictions(part, checkpoint).exists()


def _describe(run: Run, models: Sequence[Model], combined_T: np.ndarray, spread_T: np.ndarray) -> dict[str, Any]:
    ensemble = run.ensemble
    facts: dict[str, Any] = {
        "method": ensemble.method,
        "n_models": len(models),
        "checkpoints": ensemble.checkpoint,
        "test_samples": len(combined_T),
        "mean_std": float(spread_T.mean()),
        "prediction_diversity": float(spread_T.mean()),
        "pred_std_mean": float(spread_T.mean()),
        "pred_std_max": float(spread_T.max()),
        "pred_std_min": float(spread_T.min()),
        "weights": None,
        "model_weights": [{**model.label, **model.summary} for model in models],
    }
    facts |= {f"final_pred_{name}": float(getattr(combined_T, name)()) for name in ("min", "max", "mean", "std")}
    return facts if run.combines_folds else facts | {"fold_method": ensemble.fold_method}
