"""A fold of the smallest U-Net on a few made-up pictures, trained in a plain test."""

from __future__ import annotations

import torch

from support.local_context import KilledError, LocalFoldContext
from trainers.interface import Split
from trainers.unet_segmentation.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from trainers.unet_segmentation.inventory import take_inventory, write_inputs
from trainers.unet_segmentation.train import train_fold

SMALL = Config(
    data=DataConfig(size=48, group_pattern="^(p[0-9]+)_"),
    model=ModelConfig(features=(4, 8)),
    training=TrainingConfig(epochs=2, batch_size=5),
    optimizer=OptimizerConfig(lr=3e-3),
)


def train_small(tmp_path, name="place", config=SMALL, stop_at=None, resume_from=None, num_train=12, num_threads=1):
    """Two epochs on some of the made-up pictures; the place, with what was saved."""
    config, inventory = take_inventory(config, tmp_path)
    context = LocalFoldContext(tmp_path / name)
    context.root.mkdir(exist_ok=True)
    context.num_threads, context.stop_at, context.resume_from = num_threads, stop_at, resume_from
    write_inputs(config, inventory, context.inputs)
    ids = inventory.ids
    try:
        train_fold(config, Split(0, ids[:num_train], ids[num_train : num_train + 6], ids[20:22]), context)
    except KilledError:
        assert stop_at
    finally:
        torch.set_num_threads(1)
    return context
