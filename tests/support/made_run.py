"""A K-fold run without training: every file of its folder, written by the project's own writers, from known numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ensemble.config import EnsembleConfig
from ensemble.predictions import build_table
from ray_jobs.config.folds import BLEND, FoldsConfig
from ray_jobs.config.members import resolve_members
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import RunConfig, RunSection, to_dict
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary, save_summary
from ray_jobs.runs.checkpoints import CHECKPOINTS, write_checkpoint
from ray_jobs.runs.files import read_json, write_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import MetricRecord
from ray_jobs.tracking.csv_files import CsvFiles

STEPS = 4


def make_run(
    root: Path,
    *,
    num_folds: int = 3,
    num_epochs: int = 6,
    num_rows: int = 60,
    num_test: int = 40,
    num_blend: int = 0,
    weights: tuple[str, ...] = ("picture", "words"),
    failed: tuple[int, ...] = (),
    waiting: tuple[int, ...] = (),
    target: str = "price",
    members: tuple[str, ...] = (),
    ensemble: EnsembleConfig | None = None,
) -> tuple[RunFolder, RunConfig, dict[str, Any]]:
    """Writes a run of `num_folds` folds with `num_rows` validation rows each; its folder, config and summary. Further
    members err independently of it, each a little more than the one before."""
    folder = RunFolder(root)
    config = dataclasses.replace(
        RECIPES["clip_multimodal_small"](),
        run=RunSection(name=root.name, storage=str(root.parent)),
        folds=FoldsConfig(
            num_folds, "random" if num_folds > 1 else "holdout", blend_fraction=0.1 if num_blend else 0.0
        ),
        members=members,
        ensemble=ensemble or EnsembleConfig(),
    )
    write_json(folder.config, to_dict(config))
    places = [(f"v{fold}_{n}", fold) for n in range(num_rows) for fold in range(num_folds)]
    places += [(f"b{n}", BLEND) for n in range(num_blend)]
    plan = {"id": [row_id for row_id, _ in places], "repeat": [0] * len(places), "fold": [fold for _, fold in places]}
    write_parquet(folder.fold_plan, pa.table(plan))
    facts = {"command": "kfold.py", "target": target, "constant_predictions": [50.0] * num_folds}
    write_json(folder.provenance, facts | {"num_train": num_folds * num_rows, "num_test": num_test})
    for fold in range(num_folds):
        if fold in waiting:
            continue
        write_fold_record(folder, fold, num_epochs, weights)
        state = "failed" if fold in failed else "completed"
        error = "rank 0: <script>alert(1)</script> broke" if fold in failed else None
        times = {"started": 1e9 + fold, "finished": 1e9 + fold + 20}
        write_json(folder.fold(fold).status, {"fold": fold, "state": state, "attempt": 1, "error": error, **times})
        if fold not in failed:
            _write_fold(folder, fold, num_rows, num_test, weights, num_blend=num_blend)
    for number, (name, own) in enumerate(list(resolve_members(config).items())[1:], start=1):
        write_json(folder.of_member(name).config, to_dict(own))
        write_json(folder.of_member(name).provenance, read_json(folder.provenance))
        for fold in range(num_folds):
            status = {"fold": fold, "state": "completed", "attempt": 1, "started": 1e9, "finished": 1e9 + 9}
            write_json(folder.of_member(name).fold(fold).status, status)
            _write_fold(folder.of_member(name), fold, num_rows, num_test, weights, number)
    stage = run_ensemble_stage(str(root))
    seconds = {"check": 0.5, "train": 21.0, "ensemble": 0.1, "total": 21.6}
    summary = build_summary(folder, config, stage, seconds)
    save_summary(folder, config, summary)
    return folder, config, summary


def train_loss(epoch: int, fold: int) -> float:
    """The recorded mean training loss of an epoch from 0."""
    return 1.0 / (epoch + 1) + 0.01 * fold


def write_fold_record(
    folder: RunFolder, fold: int, num_epochs: int, weights: tuple[str, ...] = (), *, log_batches: bool = False
) -> None:
    """A fold's metric record and its CSV files."""
    record = MetricRecord(folder.fold_record(fold), keep=0)
    prefix = f"fold_{fold}/"
    files = CsvFiles(folder.fold_csv(fold), prefix, log_batches=log_batches)
    for epoch in range(num_epochs):
        loss = train_loss(epoch, fold)
        rows = [
            {"train/loss_step": loss + 0.1 * (step - 1.5), "learning_rate": 1e-3 / (epoch + 1)} for step in range(STEPS)
        ]
        score = 2.0 * loss if epoch < 4 else 3.0 * loss
        rows.append({"train/loss_epoch": loss, "val/loss_epoch": 1.1 * loss, "val/error": score, "score": score,
                     "epoch": epoch, "train/epoch_time": 2.0 + fold})  # fmt: skip
        rows[-1] |= {
            f"weights/{name}": 1 / len(weights) + 0.01 * epoch * (-1) ** place for place, name in enumerate(weights)
        }
        for step, row in enumerate(rows):
            values = {"time": 1e9 + 10 * epoch + step} | {prefix + name: value for name, value in row.items()}
            record.log(
                epoch * STEPS + min(step + 1, STEPS),
                {n: v for n, v in values.items() if n != "time"},
                at=values["time"],
            )
            files.add(values)
    record.close()


def _write_fold(
    folder: RunFolder,
    fold: int,
    num_rows: int,
    num_test: int,
    weights: tuple[str, ...],
    member: int = 0,
    num_blend: int = 0,
) -> None:
    rng = np.random.default_rng(fold)
    target = np.expm1(rng.normal(4, 1.2, num_rows).clip(0))
    test = np.expm1(np.random.default_rng(99).normal(4, 1.2, num_test).clip(0))
    blend = np.expm1(np.random.default_rng(98).normal(4, 1.2, num_blend).clip(0))
    errors = np.random.default_rng([fold, member]) if member else rng
    places = {"validation": [f"v{fold}_{n}" for n in range(num_rows)], "test": [f"t{n}" for n in range(num_test)]}
    places["blend"] = [f"b{n}" for n in range(num_blend)]
    for checkpoint in CHECKPOINTS:
        for rows, truth in (("validation", target), ("blend", blend), ("test", test)):
            if len(truth) == 0:
                continue
            z = np.log1p(truth) + errors.normal(0.1 * fold, 0.4 + 0.05 * member, len(truth))
            prediction = np.expm1(z.clip(0))
            known = truth if rows != "test" else np.full(len(truth), np.nan)
            table = build_table(np.array(places[rows]), prediction, z, known, fold=fold, checkpoint=checkpoint,
                                member=folder.member)  # fmt: skip
            write_parquet(folder.fold(fold).predictions(rows, checkpoint), table)
        summary = {f"{name}_weight": 1 / len(weights) for name in weights}
        write_checkpoint(folder.fold(fold).checkpoint(checkpoint), b"none", {"epoch": 3, "model_summary": summary})
    folder.fold(fold).write_manifest()
