"""A fold of the smallest CLIP regressor on a few rows, trained in a plain test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray_jobs.config.recipes import RECIPES
from support.local_workplace import KilledError, LocalWorkplace
from trainers.clip_regression.config import Config, DataConfig, FeaturesConfig, OptimizerConfig, TrainingConfig
from trainers.clip_regression.inventory import leave_inputs, take_inventory
from trainers.clip_regression.train import train_fold
from trainers.interface import Split

TINY = RECIPES["clip_multimodal_small"]().trainer


def train_small(tmp_path: Path, root: Path | str, place_name: str = "place", **sections: Any) -> LocalWorkplace:
    """Two epochs on the first 16 rows, validated on the others or on `num_validation` of them; the place, with what was saved."""
    config = Config(
        data=sections.get("data", DataConfig(root=str(root))),
        model=sections.get("model", replace(TINY.model, dropout=0.1)),
        training=TrainingConfig(
            epochs=2,
            batch_size=5,
            ema_decay=sections.get("ema", 0.0),
            eval_batch_size=sections.get("eval_batch_size", 64),
            seed=sections.get("seed", 0),
        ),
        features=sections.get("features", FeaturesConfig()),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    config, inventory = take_inventory(config, tmp_path)
    place = LocalWorkplace(tmp_path / place_name)
    place.root.mkdir(exist_ok=True)
    leave_inputs(config, inventory, place.inputs)
    middle = 16 + sections.get("num_validation", len(inventory.ids))
    place.cache_uri = sections.get("cache_uri")
    place.stop_at, place.resume_from = sections.get("stop_at"), sections.get("resume_from")
    try:
        train_fold(config, Split(0, inventory.ids[:16], inventory.ids[16:middle], inventory.ids[middle:]), place)
    except KilledError:
        assert place.stop_at
    return place
