"""The named configs of this family, and the flags that their users know. `--config-name=NAME` picks one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trainers.families import Recipe
from trainers.llm_finetuning.config import (
    Config,
    DataConfig,
    GenerationConfig,
    GrpoConfig,
    SftConfig,
    TrainingConfig,
)

SYSTEM_PROMPT = (
    "Think step by step, then answer. Reply exactly as <think>your reasoning</think><answer>the answer alone</answer>."
)
_PROJECT = "FTModel-Training"
_ENSEMBLE: dict[str, Any] = {"metric": "accuracy", "method": "majority_vote"}


def _sections(*tags: str, name: str | None = None) -> dict[str, dict[str, Any]]:
    """Sections with a W&B project, tags, and a name of the experiment; without one it is the run's."""
    return {"ensemble": _ENSEMBLE, "tracking": {"project": _PROJECT, "tags": tags, "name": name}}


def llm_finetuning() -> Recipe:
    """Fine-tunes a language model with LoRA in each fold: supervised, then GRPO. Name it by model.path; wants a GPU."""
    config = Config(data=DataConfig(system_prompt=SYSTEM_PROMPT))
    sections = _sections("sft", "grpo", "evaluation", "ablation")
    return Recipe(config, sections | {"folds": {"on_leak": "group"}})


def llm_finetuning_small() -> Recipe:
    """A tiny Llama that comes with the project learns to work digits out, on made-up questions, on any CPU."""
    config = Config(
        data=DataConfig(max_prompt_tokens=32, near_duplicates=None),
        sft=SftConfig(steps=60, batch_size=64, lr=5e-3, max_tokens=64),
        grpo=GrpoConfig(steps=50, batch_size=16, lr=1e-3, warmup_fraction=0.0),
        generation=GenerationConfig(max_new_tokens=24),
        training=TrainingConfig(eval_batch_size=128),
    )
    return Recipe(config, _sections("sft", "grpo", "evaluation", "ablation"))


def llm_sft() -> Recipe:
    """The supervised stage alone, for train.py: --lr, --num_epochs, --batch_size, --model."""
    recipe = llm_finetuning()
    config = replace(recipe.trainer, training=TrainingConfig(stages=("sft",)))
    return Recipe(config, {**recipe.sections, **_sections("sft", name="sft-train-{time}")})


def llm_grpo() -> Recipe:
    """GRPO alone, for train.py, from the adapter of a supervised stage (model.adapter): --no-judge, --kl_coef, ..."""
    recipe = llm_finetuning()
    config = replace(recipe.trainer, training=TrainingConfig(stages=("grpo",)))
    return Recipe(config, {**recipe.sections, **_sections("grpo", name="grpo-train-{time}")})


RECIPES = (llm_finetuning, llm_finetuning_small, llm_sft, llm_grpo)
# A recipe and fields that train in seconds on any CPU on made-up questions, for the tests of the family's contract.
SMALLEST = (
    "llm_finetuning_small sft.steps=2 grpo.steps=2 sft.batch_size=6 grpo.batch_size=3 generation.max_new_tokens=8 "
    "generation.samples=2"
)

_COMMON = {
    "model": "model.path",
    "model_path": "model.path",
    "max_new_tokens": "generation.max_new_tokens",
    "temperature": "generation.temperature",
    "log_interval": "tracking.log_interval",
    "use_wandb": "tracking.wandb=auto",
    "wandb_project": "tracking.project",
    "output_dir": "run.storage",
    "no_judge": "judge.off",
}
_SFT = _COMMON | {"num_epochs": "sft.epochs", "batch_size": "sft.batch_size", "lr": "sft.lr", "learning_rate": "sft.lr"}
_GRPO = _COMMON | {
    "lr": "grpo.lr",
    "learning_rate": "grpo.lr",
    "num_generations": "grpo.num_generations",
    "kl_coef": "grpo.kl_coef",
    "format_reward_weight": "scoring.format_weight",
    "accuracy_reward_weight": "scoring.accuracy_weight",
}
_BOTH = _COMMON | {name: field for name, field in _GRPO.items() if field.startswith("grpo.") and "lr" not in field}
# Flags that a recipe's users know, and the fields they mean.
ALIASES = {"llm_sft": _SFT, "llm_grpo": _GRPO, "llm_finetuning": _BOTH, "llm_finetuning_small": _BOTH}
