"""Every named recipe: a function that returns a complete config. `--config-name=NAME` picks one.

Imports neither torch nor ray, so that `--help` and `--dry-run` answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ensemble.config import EnsembleConfig
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.run import RunConfig
from trainers.clip_regression import config as clip
from trainers.unet_segmentation import config as unet

DEFAULT_RECIPE = "clip_multimodal_small"


def clip_multimodal() -> RunConfig:
    """Views from thumbnail, title, description and age with OpenAI's CLIP ViT-L-14, frozen. Full size: wants a GPU."""
    return RunConfig(
        recipe="clip_multimodal",
        family="clip_regression",
        trainer=clip.Config(
            model=clip.ModelConfig(clip="ViT-L-14", pretrained="openai", freeze=True),
            training=clip.TrainingConfig(epochs=30, batch_size=16),
            optimizer=clip.OptimizerConfig(lr=1e-4, weight_decay=1e-2),
        ),
    )


def clip_multimodal_b32() -> RunConfig:
    """As clip_multimodal with the smaller ViT-B-32, for one GPU or a patient CPU."""
    return RunConfig(
        recipe="clip_multimodal_b32",
        family="clip_regression",
        trainer=clip.Config(
            model=clip.ModelConfig(clip="ViT-B-32", pretrained="openai", freeze=True),
            training=clip.TrainingConfig(epochs=30, batch_size=16),
            optimizer=clip.OptimizerConfig(lr=1e-4, weight_decay=1e-2),
        ),
    )


def clip_multimodal_small() -> RunConfig:
    """A tiny CLIP trained from scratch on any CPU, on made-up data unless `data.root` is given. The default."""
    return RunConfig(
        recipe="clip_multimodal_small",
        family="clip_regression",
        trainer=clip.Config(
            model=clip.ModelConfig(
                clip="tiny-clip",
                pretrained=None,
                freeze=False,
                hidden_dim=64,
                dropout=0.3,
                num_age_bins=48,
                token_dropout=0.3,
            ),
            training=clip.TrainingConfig(epochs=24, batch_size=64, eval_batch_size=256, ema_decay=0.99),
            optimizer=clip.OptimizerConfig(
                lr=4e-3, weight_decay=0.05, schedule="cosine", warmup_fraction=0.1, max_grad_norm=1.0
            ),
        ),
    )


def clip_multimodal_small_ensemble() -> RunConfig:
    """As clip_multimodal_small with three more members on the same folds: another seed, no pictures, more dropout."""
    return replace(
        clip_multimodal_small(),
        recipe="clip_multimodal_small_ensemble",
        members=(
            "seed1 training.seed=1",
            "words training.seed=2 data.train_pictures= data.test_pictures=",
            "dropout training.seed=3 model.token_dropout=0.5 model.dropout=0.5",
        ),
    )


def unet_segmentation() -> RunConfig:
    """A class for each pixel of a picture by a U-Net of 31 million parameters, 200 epochs on squares of 512. Full size: wants a GPU."""
    return RunConfig(
        recipe="unet_segmentation",
        family="unet_segmentation",
        trainer=unet.Config(),
        ensemble=EnsembleConfig(metric="dice"),
    )


def unet_segmentation_small() -> RunConfig:
    """A small U-Net for any CPU, on made-up pictures of "patients" unless `data.root` is given."""
    return RunConfig(
        recipe="unet_segmentation_small",
        family="unet_segmentation",
        trainer=unet.Config(
            data=unet.DataConfig(size=64, scaling="fit", group_pattern="^(p[0-9]+)_"),
            model=unet.ModelConfig(features=(8, 16, 32)),
            training=unet.TrainingConfig(epochs=12),
            optimizer=unet.OptimizerConfig(lr=3e-3, schedule="cosine"),
        ),
        folds=FoldsConfig(kind="grouped"),
        ensemble=EnsembleConfig(metric="dice"),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        clip_multimodal,
        clip_multimodal_b32,
        clip_multimodal_small,
        clip_multimodal_small_ensemble,
        unet_segmentation,
        unet_segmentation_small,
    )
}

_UNET_FLAGS = {
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "lr": "optimizer.lr",
    "features": "model.features",
    "log_interval": "tracking.log_interval",
    "log_batch_metrics": "tracking.log_batch_metrics",
}
# Flags that a recipe's users know, and the fields they mean.
ALIASES = {"unet_segmentation": _UNET_FLAGS, "unet_segmentation_small": _UNET_FLAGS}
