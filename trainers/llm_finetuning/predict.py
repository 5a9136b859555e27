"""Answers new questions with the models that folds have kept: one base, and their adapters one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from trainers.interface import AnsweredQuestion, BlockAnswers, DataError, TrainedModel
from trainers.learning.arithmetic import choose_precision, use_deterministic_algorithms
from trainers.learning.config_sections import read_sections
from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.network.chat import load_chat
from trainers.llm_finetuning.network.language_model import LanguageModel, build_base, prepare_libraries
from trainers.llm_finetuning.questions.table import Question, from_table
from trainers.llm_finetuning.stages.evaluation import Examiner


class Predictor:
    """The models of all folds on one device.

    Args:
        models: what was saved of each; all have one base.
        rows: where the questions come from.
        device: cpu or cuda:0.
        num_threads: of torch.

    Raises:
        DataError: the models do not have one base.
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
        return BlockAnswers(ids, [self._answer(model, questions) for model in self.models])

    def _answer(self, model: TrainedModel, questions: Sequence[Question]) -> list[AnsweredQuestion]:
        self.model.load_adapter({name: value.to(self.device) for name, value in model.tensors.items()})
        examiner = Examiner(self.model, self.chat, _read_config(model), model.description["fold"], lambda: None)
        answers, samples = examiner.answer_all(questions), examiner.sample_all(questions)
        return [
            AnsweredQuestion(
                one.id,
                one.prompt,
                one.type,
                one.gold_answer,
                model.description["model"],
                answer,
                drawn,
                group=one.group,
            )
            for one, answer, drawn in zip(questions, answers, samples, strict=True)
        ]


def _read_config(model: TrainedModel) -> Config:
    return read_sections(Config, model.description["config"])
