"""The named configs of this family, and the flags that their users know. `--config-name=NAME` picks one."""

from __future__ import annotations

from trainers.families import Recipe
from trainers.unet_segmentation.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig


def unet_segmentation() -> Recipe:
    """A class for each pixel of a picture by a U-Net of 31 million parameters, 200 epochs on squares of 512. Full size:
    wants a GPU."""
    return Recipe(Config(), {"ensemble": {"metric": "dice"}})


def unet_segmentation_small() -> Recipe:
    """A small U-Net for any CPU, on made-up pictures of "patients" unless `data.root` is given."""
    return Recipe(
        Config(
            data=DataConfig(size=64, scaling="fit", group_pattern="^(p[0-9]+)_"),
            model=ModelConfig(features=(8, 16, 32)),
            training=TrainingConfig(epochs=12),
            optimizer=OptimizerConfig(lr=3e-3, schedule="cosine"),
        ),
        {"folds": {"kind": "grouped"}, "ensemble": {"metric": "dice"}},
    )


RECIPES = (unet_segmentation, unet_segmentation_small)
# A recipe and fields that train in seconds on any CPU on data that the family makes, for the tests of its contract.
SMALLEST = "unet_segmentation_small training.epochs=2 training.batch_size=6 model.features=[4,8]"

_FLAGS = {
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "lr": "optimizer.lr",
    "features": "model.features",
    "log_interval": "tracking.log_interval",
    "log_batch_metrics": "tracking.log_batch_metrics",
}
# Flags that a recipe's users know, and the fields they mean.
ALIASES = {"unet_segmentation": _FLAGS, "unet_segmentation_small": _FLAGS}
