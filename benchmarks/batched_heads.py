"""Heads on frozen features: three folds of each of several trials, trained one after another by the family's own loop,
and as one batched model.

    python benchmarks/batched_heads.py [--rows 1000 20000] [--trials 8] [--epochs 5] [--batch-size 16] [--at-once 3 24]
    python benchmarks/batched_heads.py --tuning 2 30 [--rows 1000] [--trials 6]

Random features of 512 numbers for picture and text, and a date; heads with a hidden layer of 256, as in
`clip_multimodal_b32`. Trials differ in learning rate, weight decay, dropout and seed. The own loop is `train_fold` in
one process without Ray, its context in memory. The batched one trains so many models at once as `--at-once` says (one
at a time tells what is saved by a plainer loop, and not by batching), with each model's own order of rows, dropout and
best epoch. It has to come to the same out-of-fold predictions of best and final: the largest difference of any in z is
told. One thread each; CPU seconds of this process.

`--tuning` runs `tune.py` on the same features with each of these numbers of epochs: CPU seconds of its processes, by
kind of process. What grows with the epochs is training, and the most that batching could save a part of.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from fixed_cost import REPOSITORY, Family, MemoryContext, watch
from memory import MODEL, fill_cache, make_data
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from ray_jobs.config.folds import FoldsConfig
from ray_jobs.planning.folds import plan_folds
from ray_jobs.runs.folder import RunFolder
from trainers.clip_regression.config import Config
from trainers.clip_regression.inputs.data import Numbers
from trainers.clip_regression.inputs.fold_inputs import build_fold_inputs, read_tables
from trainers.clip_regression.inputs.targets import Target, fit_target
from trainers.clip_regression.network.model import ClipRegressor
from trainers.clip_regression.train import train_fold
from trainers.interface import Split
from trainers.learning.arithmetic import seed_fold
from trainers.learning.batches import cut, training_order
from trainers.learning.optimizer_state import without_compiler

NUM_FOLDS = 3
TUNING = (
    "tracking.wandb=disabled", "run.dashboard=false", "training.horizontal_flip=false", "tune.search=random",
    "tune.space=[optimizer.lr loguniform 1e-4 1e-3, optimizer.weight_decay uniform 0 0.1, model.dropout choice 0 0.1 "
    "0.3]",
)  # fmt: skip
KINDS = ("/fold", "tune.py", "Coordinator")
_SET_CHILD_SUBREAPER = 36  # prctl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 3, 24])
    parser.add_argument("--tuning", type=int, nargs="+", metavar="EPOCHS")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for num_rows in given.rows:
        with tempfile.TemporaryDirectory() as scratch:
            data, storage = Path(scratch) / "data", Path(scratch) / "runs"
            make_data(data, num_rows)
            config, inventory = fill_cache(data, storage)
            if given.tuning:
                report_tunings(given, num_rows, data, storage)
                continue
            training = replace(config.training, epochs=given.epochs, batch_size=given.batch_size, eval_batch_size=256)
            config = replace(config, training=training)
            plan = plan_folds(FoldsConfig(count=NUM_FOLDS), inventory)
            splits, folder = [plan.split(fold) for fold in range(NUM_FOLDS)], RunFolder(storage / "memory")
            report(given, num_rows, draw_trials(config, given.trials), splits, folder)


def draw_trials(config: Config, number: int) -> list[Config]:
    """The config with other learning rates, weight decays, dropouts and seeds."""
    rng = np.random.default_rng(0)
    return [
        replace(
            config,
            training=replace(config.training, seed=trial),
            model=replace(config.model, dropout=float(rng.choice([0.0, 0.1, 0.3]))),
            optimizer=replace(config.optimizer, lr=float(10 ** rng.uniform(-4, -3)), weight_decay=rng.uniform(0, 0.1)),
        )
        for trial in range(number)
    ]


def report(given: argparse.Namespace, num_rows: int, trials: list[Config], splits: list[Split], folder: RunFolder):
    alone, lone_s, before_s = {}, 0.0, 0.0
    for trial, config in enumerate(trials):
        for split in splits:
            began = time.process_time()
            context = make_context(folder)
            train_fold(config, split, context)
            lone_s += time.process_time() - began
            before_s += context.trains_since - began
            for checkpoint in ("best", "final"):
                alone[trial, split.fold, checkpoint] = context.predictions[checkpoint, "validation"].prediction_z
    told = {"rows": num_rows, "models": len(trials) * len(splits), "epochs": given.epochs}
    told |= {"batch_size": given.batch_size, "own_loop_cpu_s": round(lone_s, 1), "reading_cpu_s": round(before_s, 1)}
    print(json.dumps(told), flush=True)
    began = time.process_time()
    folds = [FoldData.read(trials[0], split, folder) for split in splits]
    read_s = time.process_time() - began
    for at_once in given.at_once:
        began, largest = time.process_time(), 0.0
        everything = [(trial, fold) for trial in range(len(trials)) for fold in range(len(folds))]
        for start in range(0, len(everything), at_once):
            some = everything[start : start + at_once]
            found = train_together([trials[trial] for trial, _ in some], [folds[fold] for _, fold in some])
            for (trial, fold), outputs in zip(some, found, strict=True):
                for checkpoint, z_N in outputs.items():
                    largest = max(largest, float(np.abs(z_N - alone[trial, fold, checkpoint]).max()))
        cpu_s = read_s + time.process_time() - began
        told = {"rows": num_rows, "at_once": at_once, "cpu_s": round(cpu_s, 1), "reading_cpu_s": round(read_s, 1)}
        trained = (lone_s - before_s) / (cpu_s - read_s)
        told |= {"own_loop_by_it": round(lone_s / cpu_s, 2), "training_by_it": round(trained, 2)}
        told |= {"largest_difference_z": float(f"{largest:.1e}")}
        print(json.dumps(told), flush=True)


def report_tunings(given: argparse.Namespace, num_rows: int, data: Path, storage: Path) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    found = {}
    for epochs in given.tuning:
        family, began = Family(), time.monotonic()
        words = [f"training.epochs={epochs}", f"training.batch_size={given.batch_size}", f"tune.name=epochs{epochs}"]
        words += [f"tune.num_trials={given.trials - 1}", f"data.root={data}", f"run.storage={storage}", *TUNING]
        job = subprocess.Popen(
            [sys.executable, "ray_jobs/tune.py", *MODEL.split(), *words], cwd=REPOSITORY, stdout=subprocess.DEVNULL
        )
        wall_s = watch(job, family, began)
        if job.returncode:
            raise SystemExit(f"tune.py ended with {job.returncode}")
        found[epochs] = sum(family.cpu_s.values())
        kinds: Counter[str] = Counter()
        for title, (_, cpu_s) in family.by_title().items():
            kinds[next((kind for kind in KINDS if kind in title), "Ray's own")] += cpu_s
        told = {"rows": num_rows, "trials": given.trials, "epochs": epochs, "wall_s": round(wall_s, 1)}
        told |= {"cpu_s": round(found[epochs], 1)} | {kind: round(cpu_s, 1) for kind, cpu_s in kinds.items()}
        print(json.dumps(told), flush=True)
    for few, many in pairwise(given.tuning):
        training = (found[many] - found[few]) / (many - few) * many
        print(json.dumps({"rows": num_rows, "epochs": many, "training_share": round(training / found[many], 3)}))


class TimedContext(MemoryContext):
    """Notes when the reading is over and the training begins."""

    trains_since: float | None = None

    def log(self, global_step: int, metrics: dict[str, float]) -> None:
        if self.trains_since is None:
            self.trains_since = time.process_time()


def make_context(folder: RunFolder) -> TimedContext:
    context = TimedContext(folder.root)
    context.inputs, context.cache = folder.inputs, folder.cache
    return context


@dataclass
class FoldData:
    """What all models of a fold train on, in memory: by head (N, D) inputs and (N,) z, of training and validation
    rows."""

    split: Split
    architecture: dict[str, Any]
    numbers: Numbers
    target: Target
    train: dict[str, Tensor]
    train_z: Tensor
    validation: dict[str, Tensor]
    validation_target: np.ndarray

    @staticmethod
    def read(config: Config, split: Split, folder: RunFolder) -> FoldData:
        context, tables = make_context(folder), read_tables(config, folder.inputs)
        rows = tables["train"].rows
        position = {row_id: index for index, row_id in enumerate(rows.ids.tolist())}
        train, validation = (
            np.array([position[row_id] for row_id in ids.tolist()]) for ids in (split.train_ids, split.validation_ids)
        )
        numbers = Numbers.fit(rows.take(train), config)
        target = fit_target(rows.take(train), config.loss)
        fold_inputs = build_fold_inputs(config, tables, numbers, split, context)
        found = []
        for index in (train, validation):
            tensors = fold_inputs.to_inputs("train", index)
            features = {name: torch.from_numpy(one[0].take(index)) for name, one in tensors.features.items()}
            found.append(features | {"age": tensors.numbers})
        train_z = target.encode(rows.target[train]).float()
        architecture = fold_inputs.architecture
        return FoldData(split, architecture, numbers, target, found[0], train_z, found[1], rows.target[validation])


def train_together(configs: list[Config], folds: list[FoldData]) -> list[dict[str, np.ndarray]]:
    """Trains one model of each config on each fold, all as one; of each the z of its validation rows, (n,) float64, by
    best and final."""
    models, generators = [], []
    for config, fold in zip(configs, folds, strict=True):
        seed_fold(config.training.seed, fold.split.fold)
        models.append(
            ClipRegressor(
                None, fold.architecture, config.model, has_image=True, has_text=True, age_width=fold.numbers.width
            )
        )
        generators.append(torch.Generator().manual_seed(0).set_state(torch.get_rng_state()))
    stack = {
        name: torch.stack([model.state_dict()[name] for model in models]).requires_grad_()
        for name in models[0].state_dict()
    }
    training = configs[0].training
    optimizer, views = make_optimizer(stack, configs)
    best = [np.inf] * len(models)
    found: list[dict[str, np.ndarray]] = [{} for _ in models]
    for epoch in range(training.epochs):
        orders = [
            cut(
                training_order(config.training.seed, fold.split.fold, epoch, len(fold.train_z)),
                training.batch_size,
            )
            for config, fold in zip(configs, folds, strict=True)
        ]
        for batches in zip(*orders, strict=True):
            step(stack, views, optimizer, configs, folds, batches, generators)
        for number, (fold, z_N) in enumerate(zip(folds, predict(stack, folds), strict=True)):
            error = fold.target.measure(z_N, fold.validation_target)[fold.target.chosen_by]
            if error < best[number]:
                best[number], found[number]["best"] = error, z_N
            found[number]["final"] = z_N
    return found


def make_optimizer(
    stack: dict[str, Tensor], configs: list[Config]
) -> tuple[torch.optim.Optimizer, list[dict[str, Tensor]]]:
    """The family's, with groups of views of each model: its own rate and decay. The views lack gradients."""
    views = [{name: value.detach()[number] for name, value in stack.items()} for number in range(len(configs))]
    groups = []
    for config, view in zip(configs, views, strict=True):
        for decays in (True, False):
            params = [value for value in view.values() if (value.ndim > 1) == decays]
            decay = config.optimizer.weight_decay if decays else 0.0
            groups.append({"params": params, "weight_decay": decay, "lr": config.optimizer.lr})
    return without_compiler(torch.optim.AdamW)(groups, fused=True), views


def step(
    stack: dict[str, Tensor],
    views: list[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    configs: list[Config],
    folds: list[FoldData],
    batches: tuple[np.ndarray, ...],
    generators: list[torch.Generator],
) -> None:
    """One step of all models, each on a batch of its own; a batch that is shorter than others is filled with rows of
    weight 0."""
    most = max(len(rows) for rows in batches)
    index = [torch.from_numpy(np.resize(rows, most)) for rows in batches]
    share_MB = torch.zeros(len(batches), most)
    for number, rows in enumerate(batches):
        share_MB[number, : len(rows)] = 1 / len(rows)
    inputs = {
        name: torch.stack([fold.train[name][rows] for fold, rows in zip(folds, index, strict=True)])
        for name in folds[0].train
    }
    z_MB = torch.stack([fold.train_z[rows] for fold, rows in zip(folds, index, strict=True)])
    keep = draw_masks(configs, [len(rows) for rows in batches], most, generators, inputs)
    loss = (share_MB * (forward(stack, inputs, keep) - z_MB).square()).sum()
    for name, gradient in zip(stack, torch.autograd.grad(loss, list(stack.values())), strict=True):
        for number, view in enumerate(views):
            # The fused optimiser takes another layout for this one, and tells nobody.
            view[name].grad = gradient[number].contiguous()
    optimizer.step()


def draw_masks(
    configs: list[Config], sizes: list[int], most: int, generators: list[torch.Generator], inputs: dict[str, Tensor]
) -> Iterator[Tensor]:
    """What dropout multiplies by, (M, most, D) for each of its layers, drawn as each model alone would draw it."""
    hidden = configs[0].model.hidden_dim
    widths = [
        width for name, value in inputs.items() for width in ((value.shape[2],) if name != "age" else ()) + (hidden,)
    ]
    masks = [torch.ones(len(configs), most, width) for width in widths]
    for number, (config, size, generator) in enumerate(zip(configs, sizes, generators, strict=True)):
        if share := config.model.dropout:
            for mask in masks:
                mask[number, :size] = torch.empty(size, mask.shape[2]).bernoulli_(1 - share, generator=generator)
                mask[number, :size] /= 1 - share
    return iter(masks)


def forward(stack: dict[str, Tensor], inputs: dict[str, Tensor], keep: Iterator[Tensor] | None) -> Tensor:
    """`ClipRegressor.mix` of all models, (M, B); inputs (M, B, D)."""
    outputs = []
    for name, value_MBD in inputs.items():
        layer = 0

        def linear(value: Tensor, number: int, name: str = name) -> Tensor:
            weight, bias = (stack[f"heads.{name}.{number}.{part}"] for part in ("weight", "bias"))
            return torch.bmm(weight, value.mT).mT + bias[:, None]

        if name != "age":
            weight, bias = (stack[f"heads.{name}.0.{part}"][:, None] for part in ("weight", "bias"))
            value_MBD = layer_norm(value_MBD, value_MBD.shape[-1:]) * weight + bias
            value_MBD = value_MBD if keep is None else value_MBD * next(keep)
            layer = 2
        hidden_MBH = gelu(linear(value_MBD, layer))
        hidden_MBH = hidden_MBH if keep is None else hidden_MBH * next(keep)
        outputs.append(linear(hidden_MBH, layer + 3))
    return (torch.cat(outputs, 2) @ stack["weight_logits"].softmax(1)[:, :, None]).squeeze(2)


@torch.inference_mode()
def predict(stack: dict[str, Tensor], folds: list[FoldData]) -> list[np.ndarray]:
    """z of each model's validation rows."""
    most = max(len(fold.validation_target) for fold in folds)
    parts = []
    for positions in cut(np.arange(most), 256):
        rows = [torch.from_numpy(np.minimum(positions, len(fold.validation_target) - 1)) for fold in folds]
        inputs = {
            name: torch.stack([fold.validation[name][index] for fold, index in zip(folds, rows, strict=True)])
            for name in folds[0].validation
        }
        parts.append(forward(stack, inputs, None).double())
    z_MN = torch.cat(parts, 1).numpy()
    return [z_N[: len(fold.validation_target)] for z_N, fold in zip(z_MN, folds, strict=True)]


if __name__ == "__main__":
    main()
