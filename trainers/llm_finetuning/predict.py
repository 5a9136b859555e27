"""Answers new questions with the models that folds have kept: one base, and their adapters one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save
from torch import Tensor

from trainers.interface import DataError, TrainedModel
from trainers.learning.arithmetic import choose_precision, use_deterministic_algorithms
from trainers.learning.config_sections import read_sections
from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.network.chat import load_chat
from trainers.llm_finetuning.network.language_model import LanguageModel, build_base, prepare_libraries
from trainers.llm_finetuning.questions.base_model import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from trainers.llm_finetuning.questions.table import Question, from_table
from trainers.llm_finetuning.stages.evaluation import Examiner
from trainers.predictions import Answer, AnsweredQuestion, BlockAnswers
from trainers.storage.whole_files import write_whole

SOUP = "soup"


class Predictor:
    """The models of all folds on one device.

    Args:
        models: what was saved of each; all have one base.
        rows: where the questions come from.
        device: cpu or cuda:0.
        num_threads: of torch.

    Raises:
        DataError: the models do not have one base, or adapters of one shape.
    """

    def __init__(self, models: Sequence[TrainedModel], rows: Any, device: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        use_deterministic_algorithms()
        prepare_libraries()
        first = models[0]
        bases = {str(one.description["shared_tensors"].get("sha256")) for one in models}
        if len(bases) > 1:
            raise DataError(f"the models stand on {len(bases)} different bases: expected one; combine them apart")
        config = _read_config(first)
        if len(shapes := {repr(_read_config(one).lora) for one in models}) > 1:
            raise DataError(
                f"the models have adapters of {len(shapes)} shapes (lora.r, lora.alpha, ...): expected one; combine "
                "them apart (ensemble.members)"
            )
        base = build_base(first.description["base"], first.shared, choose_precision(config.training.precision, device))
        self.model = LanguageModel(base, config.lora).to(device)
        self.models, self.device = models, device
        with tempfile.TemporaryDirectory(prefix="ray-kfold-") as folder:
            for name, content in first.files.items():
                Path(folder, name).write_bytes(content)
            asked = (config.data.system_prompt, config.data.max_prompt_tokens)
            self.chat = load_chat(Path(folder), first.description["end_ids"], *asked)

    def predict(self, block: pa.Table) -> BlockAnswers:
        """Answers a block that `NewRows.read` gave."""
        questions = from_table(block)
        ids = np.array([one.id for one in questions], dtype=str)
        answered = [self.answer(model, questions, model.description["model"], {}) for model in self.models]
        return BlockAnswers(ids, answered)

    def answer(
        self,
        model: TrainedModel | None,
        questions: Sequence[Question],
        name: str,
        before: Mapping[str, Sequence[Answer]],
    ) -> list[AnsweredQuestion]:
        """The answers of a model, or of the weights that there are, with those of the models before it.

        Args:
            model: None: within `with_soup`.
            questions: to answer.
            name: what the model is called.
            before: answers of others, by their names.
        """
        examiner = self._examine(model)
        answers, samples = examiner.answer_all(questions), examiner.sample_all(questions)
        letters = examiner.weigh_letters(questions)
        return [
            AnsweredQuestion(
                row_id=one.id,
                question=one.prompt,
                type=one.type,
                gold_answer=one.gold_answer,
                model=name,
                answer=answers[place],
                samples=samples[place],
                before={earlier: found[place] for earlier, found in before.items()},
                group=one.group,
                letters=letters[place],
            )
            for place, one in enumerate(questions)
        ]

    def ask(self, model: TrainedModel, questions: Sequence[Question]) -> list[Answer]:
        """The likeliest answers of a model."""
        return self._examine(model).answer_all(questions)

    def ask_base(self, questions: Sequence[Question]) -> list[Answer]:
        """The likeliest answers without an adapter."""
        with self.model.without_adapter():
            return self._examine(None).answer_all(questions)

    def with_soup(self, models: Sequence[TrainedModel]) -> AbstractContextManager[None]:
        """Within it the weights are the mean of those of these models, adapters merged (Wortsman et al. 2022, "Model
        soups", https://arxiv.org/abs/2203.05482). Of adapters that is no mean of their factors."""
        return self.model.with_mean_of([self._place(model) for model in models])

    def save_merged(self, models: Sequence[TrainedModel], folder: Path) -> None:
        """Writes one model in Hugging Face's form, with its tokenizer: the mean of these models' merged weights."""
        with self.with_soup(models):
            self.model.save_base(folder)
        for name, content in models[0].files.items():
            if name != ADAPTER_CONFIG:
                write_whole(folder / name, content)

    def save_adapter(self, model: TrainedModel, folder: Path) -> None:
        """Writes a model's adapter in PEFT's form, with its tokenizer."""
        for name, content in {**model.files, ADAPTER_WEIGHTS: save(dict(model.tensors))}.items():
            write_whole(folder / name, content)

    def _examine(self, model: TrainedModel | None) -> Examiner:
        if model is not None:
            self.model.load_adapter(self._place(model))
        known = model or self.models[0]
        return Examiner(self.model, self.chat, self.read_config(known), known.description["fold"], lambda: None)

    def _place(self, model: TrainedModel) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in model.tensors.items()}

    def read_config(self, model: TrainedModel) -> Config:
        """The config that a model was trained by."""
        return _read_config(model)


class Soup(Predictor):
    """One model: its weights are the mean of those of all folds, adapters merged. Arguments as of `Predictor`."""

    def predict(self, block: pa.Table) -> BlockAnswers:
        """Answers a block that `NewRows.read` gave."""
        questions = from_table(block)
        with self.with_soup(self.models):
            answered = self.answer(None, questions, SOUP, {})
        return BlockAnswers(np.array([one.id for one in questions], dtype=str), [answered])


def _read_config(model: TrainedModel) -> Config:
    return read_sections(Config, model.description["config"])
