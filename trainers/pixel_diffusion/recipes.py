"""The named configs of this family, and the flags that their users know. `--config-name=NAME` picks one."""

from __future__ import annotations

from typing import Any

from trainers.families import Recipe
from trainers.pixel_diffusion.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    SamplingConfig,
    TrainingConfig,
)

_PROJECT = {"project": "jit-diffusion"}
_SECTIONS: dict[str, dict[str, Any]] = {"ensemble": {"metric": "v_loss"}, "tracking": _PROJECT}


def pixel_diffusion() -> Recipe:
    """Pictures of 256 pixels by the diffusion transformer JiT-B/16, 200 epochs. Full size: wants several GPUs."""
    return Recipe(Config(), _SECTIONS)


def pixel_diffusion_b4_64() -> Recipe:
    """Pictures of 64 pixels by JiT-B/4, 100 epochs, for one GPU."""
    return Recipe(
        Config(
            data=DataConfig(size=64),
            model=ModelConfig(name="JiT-B/4"),
            training=TrainingConfig(epochs=100, batch_size=32),
            optimizer=OptimizerConfig(lr=1e-4, max_grad_norm=1.0),
        ),
        _SECTIONS,
    )


def pixel_diffusion_small() -> Recipe:
    """A small transformer for any CPU, on made-up pictures of shapes unless `data.root` is given."""
    return Recipe(
        Config(
            data=DataConfig(size=16),
            model=ModelConfig(name="JiT-B/4", depth=3, width=48, heads=2, bottleneck=32, class_tokens=4, join_block=1),
            training=TrainingConfig(epochs=36, batch_size=32, horizontal_flip=False, ema_decays=(0.99,)),
            optimizer=OptimizerConfig(lr=4e-3, schedule="cosine", warmup_epochs=1),
            # Features of photographs say little of shapes of 16 pixels; how many are true pictures is known.
            sampling=SamplingConfig(num_samples=96, steps=20, guidance=1.0, every_epochs=9, features="none"),
        ),
        _SECTIONS | {"folds": {"kind": "stratified"}},
    )


RECIPES = (pixel_diffusion, pixel_diffusion_b4_64, pixel_diffusion_small)
# A recipe and fields that train in seconds on any CPU on data that the family makes, for the tests of its contract.
SMALLEST = (
    "pixel_diffusion_small training.epochs=2 training.batch_size=3 training.accumulation=2 "
    "training.ema_decays=[0.9,0.15] model.depth=2 model.width=16 sampling.num_samples=3 sampling.steps=2"
)

_FLAGS = {
    "data_path": "data.root",
    "model": "model.name",
    "img_size": "data.size",
    "batch_size": "training.batch_size",
    "epochs": "training.epochs",
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "warmup_epochs": "optimizer.warmup_epochs",
    "gradient_accumulation_steps": "training.accumulation",
    "max_grad_norm": "optimizer.max_grad_norm",
    "save_interval": "checkpoint.every_steps",
    "log_interval": "tracking.log_interval",
    "use_amp": "training.precision=bf16",
    "output_dir": "run.storage",
    "resume": "run.name",
    "use_wandb": "tracking.wandb=auto",
    "wandb_project": "tracking.project",
    "wandb_name": "tracking.name",
    "wandb_entity": "tracking.entity",
}
# Flags that a recipe's users know, and the fields they mean.
ALIASES = {recipe.__name__: _FLAGS for recipe in RECIPES}
