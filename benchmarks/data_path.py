"""Whether training waits for its data, or for anything else that a bare PyTorch loop does not have.

    python benchmarks/data_path.py [--rounds 3] [--threads 1]

The default recipe without augmentation, average of weights and clipping, on its made-up data, one fold alone with as
many threads as it has beside two others on two cores: rows a second as the run records them, its first epoch left out.
Baseline: the same model, optimiser and batches in a loop that does nothing else, on tensors that are ready in memory,
in a process with as many threads. Both take turns."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from ray_jobs.runs.folder import RunFolder
from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.data import Numbers, RowTensors
from trainers.clip_regression.inputs.picture_reader import PictureReader
from trainers.clip_regression.inputs.targets import TargetStatistics
from trainers.clip_regression.network.encoders import describe_architecture, load_clip
from trainers.clip_regression.network.model import ClipRegressor
from trainers.clip_regression.rows.table import read_train_rows
from trainers.learning.batches import cut, training_order

NUM_EPOCHS = 12
PLAIN = (
    f"training.epochs={NUM_EPOCHS} training.horizontal_flip=false training.ema_decay=0 model.token_dropout=0 "
    "optimizer.max_grad_norm=0 folds.only=[0] tracking.wandb=disabled run.dashboard=false"
).split()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    rounds, num_threads = (given := parser.parse_args()).rounds, given.threads
    ratios, waits = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as storage:
            words = [f"run.storage={storage}", "run.name=path", f"resources.cpus_per_fold={num_threads}", *PLAIN]
            subprocess.run(
                [sys.executable, "ray_jobs/kfold.py", *words], cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL
            )
            folder = RunFolder(Path(storage) / "path")
            epochs = [row for row in map(json.loads, folder.fold_record(0).open()) if "train/epoch_time" in str(row)]
            rate = statistics.median(row["fold_0/train/samples_per_second"] for row in epochs[1:])
            waits.append(statistics.median(row["fold_0/train/data_wait_share"] for row in epochs[1:]))
            bare = measure_bare_loop(folder.read_config().trainer, num_threads)
        ratios.append(rate / bare)
        print(f"round {number + 1}: run {rate:,.0f} rows/s, bare loop {bare:,.0f} rows/s, ratio {ratios[-1]:.3f}")
    print(
        f"rate of a run {statistics.median(ratios):.3f} of a bare loop's (limit 0.9); waits for data "
        f"{statistics.median(waits):.2%} of the time"
    )


def measure_bare_loop(config: Config, num_threads: int) -> float:
    """Rows a second of the median epoch, the first left out."""
    torch.set_num_threads(num_threads)
    torch.manual_seed(0)
    rows = read_train_rows(config.data)
    rows = rows.take(np.arange(len(rows) * 2 // 3))
    clip, preprocessing = load_clip(config.model)
    reader, numbers = PictureReader(preprocessing), Numbers.fit(rows, config)
    tokenizer = open_clip.get_tokenizer(config.model.clip)
    tensors = RowTensors(rows, numbers, config, reader, tokenizer, num_threads, lambda *_: None)
    batch = next(tensors.batches([np.arange(len(rows))]))
    images, tokens, encoded = tensors.to_device(batch, "cpu")
    z = torch.from_numpy(TargetStatistics.fit(rows.target).standardise(rows.target)).float()
    architecture = describe_architecture(config.model)
    model = ClipRegressor(clip, architecture, config.model, has_image=True, has_text=True, age_width=numbers.width)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=config.optimizer.lr, fused=True
    )
    model.train()
    rates = []
    for epoch in range(NUM_EPOCHS):
        began = time.perf_counter()
        for position_B in cut(training_order(0, 0, epoch, len(rows)), config.training.batch_size):
            index = torch.from_numpy(position_B)
            loss = torch.nn.functional.mse_loss(model(images[index], tokens[index], encoded[index]), z[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        rates.append(len(rows) / (time.perf_counter() - began))
    return statistics.median(rates[1:])


if __name__ == "__main__":
    main()
