"""Draws the answers of a generation and marks them, and measures them by the policy and by the reference.

Shape suffixes: B answers, K tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from trainers.learning.batches import cut
from trainers.llm_finetuning.network.generation import generate
from trainers.llm_finetuning.network.language_model import lay_out
from trainers.llm_finetuning.questions.table import Question
from trainers.llm_finetuning.scoring.judge import Asked
from trainers.llm_finetuning.scoring.rewards import Reward, score_completion
from trainers.llm_finetuning.stages.fine_tuning import FineTuning
from trainers.llm_finetuning.stages.grpo_loss import find_advantages
from trainers.llm_finetuning.stages.rollouts import Rollouts, choose_questions, to_block, to_float_block


class Drawing:
    """Who draws answers of a fold's model to its training questions.

    Args:
        fold: whose.
        is_reused: whether answers are learned from more than once, so that the policy changes meanwhile.
    """

    def __init__(self, fold: FineTuning, *, is_reused: bool) -> None:
        self.fold, self.config, self.is_reused = fold, fold.config, is_reused
        self.questions = fold.rows["train"]
        self.prompts = [fold.chat.encode_prompt(one.prompt) for one in self.questions]
        self.reference: Mapping[str, Tensor] = {}

    def choose(self, generation: int) -> list[int]:
        """Numbers of the questions of a generation."""
        number = self.config.grpo.batch_size * self.config.grpo.steps_per_generation
        seed, fold = self.config.training.seed, self.fold.split.fold
        return choose_questions(seed, fold, len(self.questions), generation * number, number)

    def draw(self, generation: int) -> Rollouts:
        """Draws and marks the answers of a generation; each rank those of its questions."""
        fold, each, chosen = self.fold, self.config.grpo.num_generations, self.choose(generation)
        seed = f"{self.config.training.seed}/{fold.split.fold}/grpo/{generation}"
        mine = [
            (number, f"{seed}/{place}/{self.questions[number].id}/{sample}")
            for place, number in fold.share(list(enumerate(chosen)))
            for sample in range(each)
        ]
        answers = generate(
            fold.model,
            fold.chat,
            [self.prompts[number] for number, _ in mine],
            max_new_tokens=self.config.generation.max_new_tokens,
            batch_size=self.config.training.eval_batch_size,
            keys=[key for _, key in mine],
            temperature=self.config.generation.temperature,
            touch=fold.context.touch,
        )
        numbers = [number for number, _ in mine]
        rewards = self._mark([self.questions[number] for number in numbers], answers)
        old, reference = self._find_log_probs(numbers, answers)
        own = list(zip(answers, rewards, old, reference, strict=True))
        groups = fold.gather([own[at : at + each] for at in range(0, len(own), each)], len(chosen))
        return self._join([one for group in groups for one in group])

    def _mark(self, questions: Sequence[Question], answers: Sequence[list[int]]) -> list[Reward]:
        """By rule; with a judge the accuracy is its score.

        Raises:
            JudgeError: an answer could not be judged.
        """
        texts = [self.fold.chat.decode(answer) for answer in answers]
        rewards = [score_completion(text, one.gold) for text, one in zip(texts, questions, strict=True)]
        if self.fold.judge is None:
            return rewards
        asked = [Asked(one.prompt, one.gold_answer or "", text) for one, text in zip(questions, texts, strict=True)]
        scores = self.fold.judge.require_all(asked)
        return [replace(reward, accuracy=score) for reward, score in zip(rewards, scores, strict=True)]

    @torch.no_grad()
    def _find_log_probs(
        self, numbers: Sequence[int], answers: Sequence[list[int]]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of each answer's tokens by the policy and by the reference. Where answers are used once, the policy's are
        those of the step itself."""
        nothing = [np.zeros(0, np.float32)] * len(answers)
        old = self._measure(numbers, answers) if self.is_reused else nothing
        if not self.config.grpo.kl_coef:
            return old, nothing
        with self.fold.model.with_adapter(self.reference):
            return old, self._measure(numbers, answers)

    def _measure(self, numbers: Sequence[int], answers: Sequence[list[int]]) -> list[np.ndarray]:
        fold, device = self.fold, self.fold.context.device
        found = []
        for part in cut(np.arange(len(answers)), self.config.training.micro_batch_size or len(answers)):
            own = [answers[row] for row in part.tolist()]
            ids_BT, mask_BT, counts_BK = lay_out([self.prompts[numbers[row]] for row in part], own, fold.chat.pad_id)
            values_BK, _ = fold.model(
                ids_BT.to(device), mask_BT.to(device), counts_BK.shape[1], self.config.generation.temperature
            )
            found += [row[: len(one)].cpu().numpy() for row, one in zip(values_BK, own, strict=True)]
            fold.context.touch()
        return found

    def _join(self, everyone: Sequence[tuple[list[int], Reward, np.ndarray, np.ndarray]]) -> Rollouts:
        grpo, scoring = self.config.grpo, self.config.scoring
        answers = [answer for answer, *_ in everyone]
        form_B = np.array([reward.format_score for _, reward, *_ in everyone])
        accuracy_B = np.array([reward.accuracy for _, reward, *_ in everyone])
        reward_B = scoring.format_weight * form_B + scoring.accuracy_weight * accuracy_B
        tokens_BK = to_block(answers)
        is_cut_B = np.array([not self.fold.chat.is_ended(answer) for answer in answers], np.float64)
        # Advantages are of a step's answers: "batch" means these.
        size = grpo.batch_size * grpo.num_generations
        parts = [
            find_advantages(reward_B[at : at + size], grpo.num_generations, grpo.scale_advantages)
            for at in range(0, len(reward_B), size)
        ]
        arrays = (form_B, accuracy_B, reward_B, np.concatenate(parts), is_cut_B)
        width = tokens_BK.shape[1]
        log_probs = (to_float_block([one[part] for one in everyone], width) for part in (2, 3))  # type: ignore[misc]
        return Rollouts(tokens_BK, *map(torch.from_numpy, arrays), *log_probs)
