"""What stays the same while a fold is fine-tuned: its questions, its model, and how to validate, save and predict."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainers.interface import (
    CheckpointName,
    FoldContext,
    RowsName,
    Split,
)
from trainers.llm_finetuning.config import Config
from trainers.llm_finetuning.network.chat import TOKENIZER_FILES, Chat
from trainers.llm_finetuning.network.language_model import LanguageModel
from trainers.llm_finetuning.questions.table import Question
from trainers.llm_finetuning.scoring.judge import Judge
from trainers.llm_finetuning.stages.evaluation import Examiner, judge_or_fail, summarise
from trainers.predictions import Answer, AnsweredQuestion
from trainers.storage.whole_files import sha256_file

BASE, SFT_ONLY, SFT_GRPO, GRPO_ONLY = "base_model", "sft_only", "sft_grpo", "grpo_only"


@dataclass
class FineTuning:
    """A fold.

    Attributes:
        folder: of the base model.
        rows: questions that train, validate, blend and test, by these names; `sft`: those of the supervised stage.
        beginning: the adapter that the fold begins with; of an adapter of the user's a supervised stage made it.
        judge: None: there is none.
    """

    CHOSEN_BY: ClassVar = "val/reward"

    config: Config
    split: Split
    context: FoldContext
    model: LanguageModel
    chat: Chat
    folder: Path
    rows: Mapping[str, Sequence[Question]]
    precision: torch.dtype
    judge: Judge | None = None
    beginning: Mapping[str, Tensor] = field(default_factory=dict)
    shared: dict[str, str] | None = None

    def trained_state(self) -> dict[str, Tensor]:
        """The adapter."""
        return self.model.adapter_state()

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `trained_state` gave."""
        self.model.load_adapter(state)

    def score(self, metrics: Mapping[str, float]) -> float:
        """What the last stage is chosen by."""
        return -metrics[self.CHOSEN_BY]

    def validate(self) -> dict[str, float]:
        """Rewards of the likeliest answers to the validation questions, by rule."""
        questions = self.share(self.rows["validation"])
        answers = self.gather(self.examiner.answer_all(questions), len(self.rows["validation"]))
        scoring = self.config.scoring
        form = sum(one.format_score for one in answers) / len(answers)
        accuracy = sum(bool(one.is_correct) for one in answers) / len(answers)
        return {
            "val/format_reward": form,
            "val/accuracy_reward": accuracy,
            "val/reward": scoring.format_weight * form + scoring.accuracy_weight * accuracy,
            "val/format_accuracy": sum(one.format_score == 1 for one in answers) / len(answers),
            "val/answer_accuracy": accuracy,
        }

    @property
    def examiner(self) -> Examiner:
        """Asks the model as it is now."""
        return Examiner(self.model, self.chat, self.config, self.split.fold, self.context.touch)

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This rank's."""
        return items[self.context.rank :: self.context.world_size]

    def gather(self, own: Sequence[Any], total: int) -> list[Any]:
        """What all ranks have of their `share`, in order."""
        ranks = self.context.world_size
        if ranks == 1:
            return list(own)
        parts: list[Any] = [None] * ranks
        dist.all_gather_object(parts, list(own))
        return [parts[place % ranks][place // ranks] for place in range(total)]

    @property
    def reference(self) -> dict[str, Tensor]:
        """The adapter that GRPO stays near: the supervised stage's, or the one that the fold begins with."""
        if "sft" not in self.config.training.stages:
            return {name: value.clone() for name, value in self.beginning.items()}
        device = self.context.device
        return {name: value.to(device) for name, value in self.context.load_checkpoint("sft").items()}

    @property
    def name(self) -> str:
        """What the fold's model is called in an ablation."""
        stages = self.config.training.stages
        if "grpo" not in stages:
            return SFT_ONLY
        return SFT_GRPO if "sft" in stages or self.config.model.adapter else GRPO_ONLY

    def save(self, name: CheckpointName, epoch: int, metrics: dict[str, float]) -> None:
        """Writes a checkpoint: the adapter, and all that is needed to ask it, but the base's weights, which all folds
        share."""
        if self.shared is None:
            self.shared = self._share_base()
        description = {
            "family": "llm_finetuning",
            "fold": self.split.fold,
            "epoch": epoch,
            "metrics": {key: value for key, value in metrics.items() if key.startswith("val/")},
            "model_summary": {},
            "model": self.name,
            "reference": SFT_ONLY if self.name == SFT_GRPO else BASE,
            "shared_tensors": self.shared,
            "base": self.model.describe_base(),
            "end_ids": list(self.chat.end_ids),
            "config": asdict(self.config),
        }
        with tempfile.TemporaryDirectory(prefix="ray-kfold-") as folder:
            self._write_files(Path(folder))
            self.context.save_checkpoint(name, self.trained_state(), description, files=Path(folder))

    def _share_base(self) -> dict[str, str]:
        whole = self.folder / "model.safetensors"
        if whole.exists():
            return self.context.share_file("base_model", whole, sha256_file(whole))
        tensors, seen = {}, set[int]()
        for name, value in self.model.base_state().items():
            if value.data_ptr() not in seen:  # tied weights are kept once
                seen.add(value.data_ptr())
                tensors[name] = value
        return self.context.share_tensors("base_model", tensors)

    def _write_files(self, folder: Path) -> None:
        """The tokenizer, and the adapter's shape in PEFT's form."""
        for name in TOKENIZER_FILES:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, folder / name)
        if self.config.model.chat_template:
            (folder / "chat_template.jinja").write_text(self.chat.tokenizer.chat_template)
        self.model.peft.peft_config["default"].save_pretrained(str(folder))

    def predict_checkpoints(self) -> None:
        """Loads best and final again, from the files, and answers all questions that do not train; beside them the
        models that they came from."""
        before = {part: self._ask_before(part) for part in ("validation", "blend") if self.rows[part]}
        names: tuple[CheckpointName, ...] = ("best", "final")
        states = {name: self.context.load_checkpoint(name) for name in names}
        is_same = all(torch.equal(states["best"][key], value) for key, value in states["final"].items())
        parts: tuple[RowsName, ...] = ("validation", "blend", "test")
        answered: dict[RowsName, list[AnsweredQuestion]] = {}
        for name in names:
            if not (answered and is_same):  # else the best is the last, and has answered already
                self.load_trained_state({key: value.to(self.context.device) for key, value in states[name].items()})
                answered = {
                    part: list(self._answer(self.share(self.rows[part]), before.get(part, {})))
                    for part in parts
                    if self.rows[part]
                }
            for part, answers in answered.items():
                ids = np.array([one.id for one in self.rows[part]], dtype=str)
                self.context.save_predictions(name, part, ids, answers)
            if name == "best":
                self._record(self.rows["validation"], answered["validation"])

    def _ask_before(self, part: str) -> dict[str, list[Answer]]:
        """The likeliest answers of the base and, behind GRPO, of the reference, to this rank's questions."""
        questions = self.share(self.rows[part])
        with self.model.without_adapter():
            found = {BASE: self._judge(questions, self.examiner.answer_all(questions))}
        if self.name == SFT_GRPO:
            with self.model.with_adapter(self.reference):
                found[SFT_ONLY] = self._judge(questions, self.examiner.answer_all(questions))
        return found

    def _answer(self, questions: Sequence[Question], before: Mapping[str, list[Answer]]) -> Iterator[AnsweredQuestion]:
        answers = self._judge(questions, self.examiner.answer_all(questions))
        samples, letters = self.examiner.sample_all(questions), self.examiner.weigh_letters(questions)
        for place, one in enumerate(questions):
            yield AnsweredQuestion(
                row_id=one.id,
                question=one.prompt,
                type=one.type,
                gold_answer=one.gold_answer,
                model=self.name,
                answer=answers[place],
                samples=samples[place],
                before={name: found[place] for name, found in before.items()},
                group=one.group,
                letters=letters[place],
            )

    def _judge(self, questions: Sequence[Question], answers: list[Answer]) -> list[Answer]:
        """The answers with the judge's scores, where there is one.

        Raises:
            JudgeError: more judgements failed than may.
        """
        if self.judge is None:
            return answers
        return judge_or_fail(self.judge, questions, answers, self.config.judge.most_failures)

    def _record(self, questions: Sequence[Question], answered: Sequence[AnsweredQuestion]) -> None:
        """The accuracies of all models on the held-out questions."""
        everyone = self.gather(answered, len(questions))
        metrics = summarise(questions, [one.answer for one in everyone], self.name)
        for name in everyone[0].before if everyone else ():
            metrics |= summarise(questions, [one.before[name] for one in everyone], name)
        sampled = [sample for one in everyone for sample in one.samples]
        if sampled:
            right = sum(bool(one.is_correct) for one in sampled) / len(sampled)
            metrics[f"{self.name}/sampled_answer_accuracy"] = right
        failures = sum(one.answer.judge_score is None for one in everyone) if self.judge is not None else 0
        self.context.log(self.num_steps, metrics | ({"judge_failures": failures} if self.judge else {}))

    num_steps: int = 0  # of all stages
