"""A fold whose number of ranks changes while it trains: what each step learns from stays the same."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from support.local_context import KilledError, LocalFoldContext
from support.processes import free_port
from support.small_training import TINY

from ray_jobs.worker.resume import StoredPoint, get_random_state
from trainers.clip_regression import train
from trainers.clip_regression.config import Config, DataConfig, OptimizerConfig, TrainingConfig
from trainers.clip_regression.inventory import take_inventory, write_inputs
from trainers.interface import Split

EPOCHS, NUM_TRAIN = 4, 17  # a batch of 5 does not divide them: the last has 2 rows
STOPS = ((1, 6), (2, 9), (1, None))  # ranks, and the step after which they save and end; 4 steps an epoch


class RankContext(LocalFoldContext):
    """A place of one of several ranks, which keeps its point as `RayFoldContext` does."""

    def __init__(self, root: Path, rank: int, world_size: int, stop_at: int | None) -> None:
        super().__init__(root)
        self.rank, self.world_size, self.stop_at = rank, world_size, stop_at
        self.point = root / "point.pickle"

    def load_resume_point(self):
        if not self.point.exists():
            return None
        stored = StoredPoint(*pickle.loads(self.point.read_bytes()), "here")
        stored.restore_random_state(self.rank)
        return stored.for_rank(self.rank, self.world_size)

    def save_resume_point(self, point, global_step):
        if global_step != self.stop_at:
            return
        own = {f"own/{name}": tensor for name, tensor in point.own.items()}
        own |= {f"random/{name}": tensor for name, tensor in get_random_state().items()}
        of_ranks = [own]
        if self.world_size > 1:
            of_ranks = [None] * self.world_size
            dist.all_gather_object(of_ranks, own)
        tensors = {f"shared/{name}": tensor.clone() for name, tensor in point.tensors.items()}
        tensors |= {f"rank{r}/{name}": tensor for r, part in enumerate(of_ranks) for name, tensor in part.items()}
        if self.rank == 0:
            self.point.write_bytes(pickle.dumps((tensors, {"facts": point.facts})))
        raise KilledError


def train_rank(rank: int, world_size: int, port: int, root: Path, config: Config, split: Split, stop_at: int | None):
    """One rank's part of one attempt; leaves what it has trained on, each step and each epoch."""
    if world_size > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        dist.init_process_group("gloo", rank=rank, world_size=world_size)
    context, seen, learn = RankContext(root, rank, world_size, stop_at), [], train._Learner.train_step

    def train_step(learner, batch, share):
        seen.append((learner.epoch, learner.step, batch.positions_B[share > 0].tolist()))
        return learn(learner, batch, share)

    train._Learner.train_step = train_step
    try:
        train.train_fold(config, split, context)
    except KilledError:
        assert stop_at
    finally:
        train._Learner.train_step = learn
        if world_size > 1:
            dist.destroy_process_group()
    left = {"seen": seen, "steps": context.steps, "epochs": context.epochs}
    (root / f"left_{world_size}_{stop_at}_{rank}.pickle").write_bytes(pickle.dumps(left))


def train_attempts(root: Path, config: Config, inventory, attempts) -> list[dict]:
    """What the ranks of all attempts have left."""
    root.mkdir()
    write_inputs(config, inventory, root / "inputs")
    split = Split(0, inventory.ids[:NUM_TRAIN], inventory.ids[NUM_TRAIN:])
    for world_size, stop_at in attempts:
        arguments = (world_size, free_port(), root, config, split, stop_at)
        if world_size == 1:
            train_rank(0, *arguments)
        else:
            torch.multiprocessing.spawn(train_rank, arguments, nprocs=world_size)
    names = [f"left_{size}_{stop}_{rank}.pickle" for size, stop in attempts for rank in range(size)]
    return [pickle.loads((root / name).read_bytes()) for name in names]


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback device")
def test_from_one_rank_to_two_and_back_each_row_counts_once_an_epoch_and_the_same_is_learned(
    tmp_path, small_frame, write_data
):
    """Both changes are in the middle of an epoch. Without dropout, which each rank draws for itself."""
    config = Config(
        data=DataConfig(root=str(write_data(small_frame))),
        model=replace(TINY.model, dropout=0.0),
        training=TrainingConfig(epochs=EPOCHS, batch_size=5),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    config, inventory = take_inventory(config, tmp_path)
    (fixed,) = train_attempts(tmp_path / "fixed", config, inventory, [(1, None)])
    elastic = train_attempts(tmp_path / "elastic", config, inventory, STOPS)

    batches: dict[tuple[int, int], list[int]] = {}
    for left in elastic:
        for epoch, step, rows in left["seen"]:
            batches.setdefault((epoch, step), []).extend(rows)
    for epoch in range(EPOCHS):
        rows = [row for (of_epoch, _), batch in batches.items() if of_epoch == epoch for row in batch]
        assert sorted(rows) == list(range(NUM_TRAIN))
    assert {key: sorted(rows) for key, rows in batches.items()} == {
        (epoch, step): sorted(rows) for epoch, step, rows in fixed["seen"]
    }
    ranks = [len(left["seen"]) for left in elastic]
    assert ranks == [6, 3, 3, 7]

    first, second, other, third = (left["steps"] for left in elastic)
    summed = [
        (step, {**values, "train/loss_step": values["train/loss_step"] + more["train/loss_step"]})
        for (step, values), (_, more) in zip(second, other, strict=True)
    ]
    steps = [*first, *summed, *third]
    assert [step for step, _ in steps] == [step for step, _ in fixed["steps"]] == list(range(1, 17))
    rates, losses = (
        [[values[name] for _, values in part] for part in (steps, fixed["steps"])]
        for name in ("learning_rate", "train/loss_step")
    )
    assert rates[0] == rates[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-3)
    epochs = [*elastic[0]["epochs"], *elastic[1]["epochs"], *elastic[3]["epochs"]]
    for name in ("train/loss_epoch", "val/msle", "weights/image"):
        np.testing.assert_allclose([e[name] for e in epochs], [e[name] for e in fixed["epochs"]], rtol=2e-3)
