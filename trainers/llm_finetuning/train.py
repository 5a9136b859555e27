"""Fine-tunes a language model in a fold: a supervised stage, GRPO, and answers of every model to the questions that the
fold holds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from trainers.interface import FoldContext, Split
from trainers.learning.arithmetic import choose_precision, seed_fold
from trainers.learning.learner import Learner, learn_stages
from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.network.chat import load_chat
from trainers.llm_finetuning.network.language_model import LanguageModel, load_base, prepare_libraries
from trainers.llm_finetuning.questions.base_model import ADAPTER_WEIGHTS, find_base
from trainers.llm_finetuning.questions.table import Question, normalise_prompt, read_prepared
from trainers.llm_finetuning.scoring.judge import build_judge
from trainers.llm_finetuning.stages.fine_tuning import FineTuning
from trainers.llm_finetuning.stages.grpo import RewardLearner
from trainers.llm_finetuning.stages.sft import SupervisedLearner

_LEARNERS: Mapping[str, type[SupervisedLearner] | type[RewardLearner]] = {
    "sft": SupervisedLearner,
    "grpo": RewardLearner,
}


def train_fold(config: Config, split: Split, context: FoldContext) -> None:
    """Trains the stages of one fold, validates, saves and answers; called on every rank.

    Raises:
        JudgeError: answers could not be judged.
    """
    torch.set_num_threads(context.num_threads)
    seed_fold(config.training.seed, split.fold)
    fold = _set_up(config, split, context)
    if context.world_size > 1:  # the same first adapter on every rank, other dropout
        seed_fold(config.training.seed, split.fold, context.rank)
    stages: list[Learner] = [_LEARNERS[name](fold) for name in config.training.stages]
    fold.num_steps = sum(stage.num_steps for stage in stages)
    learn_stages(*stages)


def _set_up(config: Config, split: Split, context: FoldContext) -> FineTuning:
    prepare_libraries()
    tables = context.retry_while_unavailable("reading the questions", partial(_read_tables, context.inputs))
    precision = choose_precision(config.training.precision, context.device)
    folder = find_base(config.model)
    base = load_base(folder, precision)
    model = LanguageModel(base, config.lora)
    model.to(context.device)
    if config.training.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    template = context.inputs / "chat_template.jinja"
    chat = load_chat(
        folder, model.ends, config.data.system_prompt, config.data.max_prompt_tokens,
        template.read_text() if template.exists() else None,
    )  # fmt: skip
    if config.model.adapter:
        model.load_adapter(_read_adapter(context.inputs / "adapter"))
    beginning = {name: value.clone() for name, value in model.adapter_state().items()}
    rows = _divide(tables, split)
    judge = build_judge(config.judge, context.cache, context.touch)
    return FineTuning(config, split, context, model, chat, folder, rows, precision, judge, beginning)


def _read_tables(inputs: Path) -> dict[str, list[Question]]:
    return {
        name: read_prepared(path) for name in ("train", "test", "sft") if (path := inputs / f"{name}.parquet").exists()
    }


def _read_adapter(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load((folder / ADAPTER_WEIGHTS).read_bytes())
    return tensors


def _divide(tables: Mapping[str, Sequence[Question]], split: Split) -> dict[str, list[Question]]:
    """The fold's questions. Of further ones with responses those are left out that ask what the fold holds out."""
    by_id = {one.id: one for one in tables["train"]}
    parts = {"train": split.train_ids, "validation": split.validation_ids, "blend": split.blend_ids}
    rows = {name: [by_id[row_id] for row_id in ids.tolist()] for name, ids in parts.items()}
    rows["test"] = list(tables.get("test", ()))
    held_out = {normalise_prompt(one.prompt) for name in ("validation", "blend", "test") for one in rows[name]}
    further = [one for one in tables.get("sft", ()) if normalise_prompt(one.prompt) not in held_out]
    rows["sft"] = [one for one in (*rows["train"], *further) if one.response is not None]
    return rows
