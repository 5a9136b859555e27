"""Every named recipe: a function that returns a complete config. `--config-name=NAME` picks one.

Imports neither torch nor ray, so that `--help` and `--dry-run` answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ray_jobs.config import RunConfig
from trainers.clip_regression import config as clip

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


RECIPES: dict[str, Callable[[], RunConfig]] = {
    recipe.__name__: recipe
    for recipe in (clip_multimodal, clip_multimodal_b32, clip_multimodal_small, clip_multimodal_small_ensemble)
}
