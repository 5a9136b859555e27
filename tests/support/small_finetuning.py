"""A fold of fine-tuning in this process: made-up questions, few steps, the tiny model that comes with the project."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch

from ray_jobs.config.overrides import override
from ray_jobs.config.recipes import RECIPES
from support.local_context import KilledError, LocalFoldContext
from trainers.interface import Split
from trainers.llm_finetuning.inventory import take_inventory, write_inputs
from trainers.llm_finetuning.train import train_fold

NUM_TRAIN, NUM_VALIDATION = 24, 6
SMALL = (
    "sft.steps=3 sft.batch_size=24 sft.lr=2e-2 generation.temperature=1.2 grpo.steps=7 grpo.batch_size=3 grpo.num_generations=4 generation.max_new_tokens=8 "
    "generation.samples=1 data.max_rows=30 data.test_table="
)


@cache
def make_folder() -> Path:
    """Where made-up questions lie, for all trainings of a process."""
    return Path(mkdtemp(prefix="finetuning-"))


def train_small(
    root: Path,
    words: str = "",
    *,
    stop_at: int | None = None,
    resume_from=None,
    build=LocalFoldContext,
    rank: int = 0,
    world_size: int = 1,
) -> LocalFoldContext:
    """Trains a fold, or until it is killed after a step.

    Args:
        root: folder of the fold, which does not exist yet.
        words: further fields.
        stop_at: the step.
        build: makes the context.
        rank, world_size: of this process among those that train the fold.
        resume_from: what a killed context was stopped with; `root` is then that context's folder.
    """
    config = override(RECIPES["llm_finetuning_small"](), [*SMALL.split(), *words.split()]).trainer
    config, inventory = take_inventory(config, make_folder())
    context = build(root)
    context.rank, context.world_size = rank, world_size
    root.mkdir(exist_ok=True)
    context.stop_at, context.resume_from = stop_at, resume_from
    write_inputs(config, inventory, context.inputs)
    split = Split(0, inventory.ids[:NUM_TRAIN], inventory.ids[NUM_TRAIN:], np.array([], str))
    threads = torch.get_num_threads()
    try:
        train_fold(config, split, context)
    except KilledError:
        assert stop_at is not None
    finally:
        torch.set_num_threads(threads)
    return context
