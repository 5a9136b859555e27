"""The named configs of this family. `--config-name=NAME` picks one; its first words of documentation are shown by
`--help`."""

from __future__ import annotations

from dataclasses import replace

from trainers.clip_regression.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from trainers.families import Recipe


def clip_multimodal() -> Recipe:
    """Views from thumbnail, title, description and age with OpenAI's CLIP ViT-L-14, frozen. Full size: wants a GPU."""
    return Recipe(
        Config(
            model=ModelConfig(clip="ViT-L-14", pretrained="openai", freeze=True),
            training=TrainingConfig(epochs=30, batch_size=16),
            optimizer=OptimizerConfig(lr=1e-4, weight_decay=1e-2),
        )
    )


def clip_multimodal_b32() -> Recipe:
    """As clip_multimodal with the smaller ViT-B-32, for one GPU or a patient CPU."""
    return Recipe(
        Config(
            model=ModelConfig(clip="ViT-B-32", pretrained="openai", freeze=True),
            training=TrainingConfig(epochs=30, batch_size=16),
            optimizer=OptimizerConfig(lr=1e-4, weight_decay=1e-2),
        )
    )


def clip_multimodal_small() -> Recipe:
    """A tiny CLIP trained from scratch on any CPU, on made-up data unless `data.root` is given. The default."""
    return Recipe(
        Config(
            model=ModelConfig(
                clip="tiny-clip",
                pretrained=None,
                freeze=False,
                hidden_dim=64,
                dropout=0.3,
                num_age_bins=48,
                token_dropout=0.3,
            ),
            training=TrainingConfig(epochs=24, batch_size=64, eval_batch_size=256, ema_decay=0.99),
            optimizer=OptimizerConfig(
                lr=4e-3, weight_decay=0.05, schedule="cosine", warmup_fraction=0.1, max_grad_norm=1.0
            ),
        )
    )


def clip_multimodal_small_ensemble() -> Recipe:
    """As clip_multimodal_small with three more members on the same folds: another seed, no pictures, more dropout."""
    return replace(
        clip_multimodal_small(),
        members=(
            "seed1 training.seed=1",
            "words training.seed=2 data.train_pictures= data.test_pictures=",
            "dropout training.seed=3 model.token_dropout=0.5 model.dropout=0.5",
        ),
    )


def clip_classification_small() -> Recipe:
    """A tiny CLIP that learns classes, trained from scratch on any CPU, on made-up data unless `data.root` is given."""
    small = clip_multimodal_small().trainer
    return Recipe(
        replace(
            small,
            data=DataConfig(target="label", task="classification", text_columns=("title",), date_column=None),
            training=replace(small.training, epochs=8),
        ),
        {"ensemble": {"metric": "log_loss"}, "folds": {"kind": "stratified"}},
    )


RECIPES = (
    clip_multimodal,
    clip_multimodal_b32,
    clip_multimodal_small,
    clip_multimodal_small_ensemble,
    clip_classification_small,
)
# A recipe and fields that train in seconds on any CPU on data that the family makes, for the tests of its contract.
SMALLEST = "clip_multimodal_small training.epochs=2 training.batch_size=6"
