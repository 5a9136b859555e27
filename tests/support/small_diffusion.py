"""A fold of the smallest diffusion transformer on a few made-up pictures, trained in a plain test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from support.local_context import KilledError, LocalFoldContext
from trainers.interface import Split
from trainers.pixel_diffusion.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)
from trainers.pixel_diffusion.inventory import take_inventory, write_inputs
from trainers.pixel_diffusion.train import train_fold

TINY = ModelConfig(name="JiT-B/4", depth=2, width=16, heads=2, bottleneck=8, class_tokens=2, join_block=1)
SMALL = Config(
    data=DataConfig(size=16),
    model=TINY,
    training=TrainingConfig(epochs=2, batch_size=5, ema_decays=(0.9, 0.2)),
    optimizer=OptimizerConfig(lr=3e-3, warmup_epochs=0),
    sampling=SamplingConfig(num_samples=4, steps=2, features="none", every_epochs=2, grid=2),
)


def train_small(tmp_path: Path, name: str = "place", config: Config = SMALL, **how: Any) -> LocalFoldContext:
    """Two epochs on some of the made-up pictures; the place, with what was saved."""
    config, inventory = take_inventory(config, tmp_path)
    context = LocalFoldContext(tmp_path / name)
    context.root.mkdir(exist_ok=True)
    context.stop_at, context.resume_from = how.get("stop_at"), how.get("resume_from")
    context.rank, context.world_size = how.get("rank", 0), how.get("world_size", 1)
    if context.rank == 0:
        write_inputs(config, replace(inventory, tables={"train": inventory.tables["train"]}), context.inputs)
    if context.world_size > 1:
        torch.distributed.barrier()
    ids, num = inventory.ids, how.get("num_train", 12)
    try:
        train_fold(config, Split(0, ids[:num], ids[num : num + 6], ids[num + 6 : num + 8]), context)
    except KilledError:
        assert context.stop_at
    finally:
        torch.set_num_threads(1)
    return context
