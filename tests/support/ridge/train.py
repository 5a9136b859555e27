from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch

from trainers.interface import Predictions, Progress, ResumePoint
from trainers.ridge.predict import find_numbers, predict


def train_fold(config, split, context):
    frames = {path.stem: pd.read_parquet(path) for path in context.inputs.glob("*.parquet")}
    data = config.data
    rows = frames["train"].set_index(data.id_column, drop=False)
    point = context.load_resume_point()
    # Two steps, with a resume point between them: the sums, and the solution.
    if point is None:
        x, y = find_numbers(rows.loc[split.train_ids], data.columns), np.log1p(rows.loc[split.train_ids, data.target].to_numpy(float))
        sums = {"xx": torch.from_numpy(x.T @ x), "xy": torch.from_numpy(x.T @ y)}
        context.log_step(1, {"train/loss_step": float((y**2).mean())})
        context.save_resume_point(ResumePoint(sums, {}, {"step": 1}), 1)
        time.sleep(config.model.pause_s)
    else:
        sums = point.tensors
    eye = config.model.strength * torch.eye(len(sums["xy"]), dtype=torch.float64)
    weights = torch.linalg.solve(sums["xx"] + eye, sums["xy"])
    context.report_progress(Progress(2, 2, 0, 1))
    places = {"validation": rows.loc[split.validation_ids], "blend": rows.loc[split.blend_ids]}
    if "test" in frames:
        places["test"] = frames["test"].set_index(data.id_column, drop=False)
    z = predict(places["validation"], data.columns, weights.numpy())
    loss = float(((z - np.log1p(places["validation"][data.target].to_numpy(float))) ** 2).mean())
    context.log_step(2, {"train/loss_step": loss})
    context.report_epoch(0, 1, 2, {"train/loss_epoch": loss, "val/loss_epoch": loss, "score": loss})
    for checkpoint in ("best", "final"):
        description = {"epoch": 0, "model_summary": {"size": float(weights.norm())}, "config": asdict(config)}
        context.save_checkpoint(checkpoint, {"weights": weights}, description)
        for name, frame in places.items():
            if not len(frame):
                continue
            ids, z = frame.index.to_numpy(str), predict(frame, data.columns, weights.numpy())
            known = np.full(len(z), np.nan) if name == "test" else frame[data.target].to_numpy(float)
            mine = slice(context.rank, None, context.world_size)
            block = Predictions(ids[mine], np.expm1(z)[mine].clip(0), z[mine], known[mine])
            context.save_predictions(checkpoint, name, ids, [block])
