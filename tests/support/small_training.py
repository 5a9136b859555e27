"""A fold of the smallest CLIP regressor on a few rows, trained in a plain test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray_jobs.config.recipes import RECIPES
from support.local_context import KilledError, LocalFoldContext
from trainers.clip_regression.config import Config, DataConfig, FeaturesConfig, OptimizerConfig, TrainingConfig
from trainers.clip_regression.inventory import take_inventory, write_inputs
from trainers.clip_regression.train import train_fold
from trainers.interface import Split

TINY = RECIPES["clip_multimodal_small"]().trainer


def train_small(tmp_path: Path, root: Path | str, place_name: str = "place", **sections: Any) -> LocalFoldContext:
    """Two epochs on the first 16 rows, validated on the others or on `num_validation` of them; the place, with what was
    saved."""
    config = Config(
        data=sections.get("data", DataConfig(root=str(root))),
        model=sections.get("model", replace(TINY.model, dropout=0.1)),
        training=TrainingConfig(
            epochs=2,
            batch_size=5,
            ema_decay=sections.get("ema", 0.0),
            eval_batch_size=sections.get("eval_batch_size", 64),
            picture_cache_gib=sections.get("picture_cache_gib", 16.0),
            seed=sections.get("seed", 0),
        ),
        features=sections.get("features", FeaturesConfig()),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    config, inventory = take_inventory(config, tmp_path)
    context = LocalFoldContext(tmp_path / place_name)
    context.root.mkdir(exist_ok=True)
    write_inputs(config, inventory, context.inputs)
    middle = 16 + sections.get("num_validation", len(inventory.ids))
    context.cache_uri = sections.get("cache_uri")
    context.stop_at, context.resume_from = sections.get("stop_at"), sections.get("resume_from")
    try:
        train_fold(config, Split(0, inventory.ids[:16], inventory.ids[16:middle], inventory.ids[middle:]), context)
    except KilledError:
        assert context.stop_at
    return context
