"""The named configs of this family, and the flags that their users know. `--config-name=NAME` picks one."""

from __future__ import annotations

from typing import Any

from trainers.families import Recipe
from trainers.gpt_pretraining.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainingConfig,
)

_SECTIONS: dict[str, dict[str, Any]] = {"ensemble": {"metric": "perplexity"}, "tracking": {"project": "gpt-pretrain"}}


def gpt_pretraining() -> Recipe:
    """A GPT of width 512, 6 layers and 8 heads on windows of 1024 tokens, byte pairs learned from the documents. Full
    size: wants a GPU."""
    return Recipe(Config(tokenizer=TokenizerConfig(vocabulary=16_384)), _SECTIONS)


def gpt2_small() -> Recipe:
    """GPT-2 small, 124 million parameters, with GPT-2's tokenizer, whose files `tokenizer.path` names. Wants a large
    GPU."""
    return Recipe(
        Config(
            tokenizer=TokenizerConfig(kind="file", path="gpt2"),
            model=ModelConfig(width=768, layers=12, heads=12, pad_vocabulary=64),
            training=TrainingConfig(epochs=1, batch_size=480, rows_at_once=12, compile=True),
            optimizer=OptimizerConfig(warmup_steps=2000),
        ),
        _SECTIONS,
    )


def gpt_shakespeare_char() -> Recipe:
    """nanoGPT's small setting for a CPU: characters, 64 at once, width 128, 4 layers, 2,000 steps; wants
    tinyshakespeare as `data.root`."""
    return Recipe(
        Config(
            tokenizer=TokenizerConfig(kind="characters"),
            model=ModelConfig(width=128, layers=4, heads=4, context=64, bias=False, gelu="exact"),
            training=TrainingConfig(steps=2000, batch_size=12, evaluate_every=500),
            optimizer=OptimizerConfig(lr=1e-3, beta2=0.99, warmup_steps=100),
            evaluation=EvaluationConfig(stride=64),
        ),
        _SECTIONS,
    )


def gpt_pretraining_small() -> Recipe:
    """A small GPT for any CPU, on made-up tales whose entropy is known unless `data.root` is given."""
    return Recipe(
        Config(
            data=DataConfig(),
            tokenizer=TokenizerConfig(vocabulary=640),
            model=ModelConfig(width=64, layers=2, heads=4, context=160),
            training=TrainingConfig(epochs=4, batch_size=16, eval_batch_size=32, packing="document"),
            optimizer=OptimizerConfig(lr=6e-3, beta2=0.99),
        ),
        _SECTIONS,
    )


RECIPES = (gpt_pretraining, gpt2_small, gpt_shakespeare_char, gpt_pretraining_small)
# A recipe and fields that train in seconds on any CPU on data that the family makes, for the tests of its contract.
SMALLEST = (
    "gpt_pretraining_small training.epochs=2 training.batch_size=6 model.width=16 model.layers=1 tokenizer.kind=bytes "
    "model.context=640 data.near_texts=0"
)

_FLAGS = {
    "output_dir": "run.storage",
    "batch_size": "training.batch_size",
    "learning_rate": "optimizer.lr",
    "num_epochs": "training.epochs",
    "weight_decay": "optimizer.weight_decay",
    "warmup_steps": "optimizer.warmup_steps",
    "max_grad_norm": "optimizer.max_grad_norm",
    "eval_interval": "training.evaluate_every",
    "save_interval": "checkpoint.every_steps",
    "log_interval": "tracking.log_interval",
    "use_wandb": "tracking.wandb=auto",
    "wandb_project": "tracking.project",
    "wandb_entity": "tracking.entity",
    "wandb_run_name": "tracking.name",
}
# Flags that a recipe's users know, and the fields they mean.
ALIASES = {recipe.__name__: _FLAGS for recipe in RECIPES}
