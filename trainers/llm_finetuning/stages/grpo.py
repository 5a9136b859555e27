"""GRPO: the model answers the training questions, several times each, and learns from what an answer is worth beside
the others.

Answers are drawn by keys of (seed, fold, generation, question, sample), so nothing depends on random generators; what
was drawn and is not used up yet is in the resume point.

Shape suffixes: B answers, K tokens of an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainers.interface import ResumePoint
from trainers.learning.batches import cut
from trainers.learning.learner import Learner
from trainers.learning.optimizer_state import split_by_prefix, without_compiler
from trainers.llm_finetuning.network.language_model import lay_out
from trainers.llm_finetuning.stages.drawing import Drawing
from trainers.llm_finetuning.stages.fine_tuning import FineTuning
from trainers.llm_finetuning.stages.grpo_loss import (
    count_without_signal,
    find_token_losses,
    weigh_tokens,
)
from trainers.llm_finetuning.stages.rollouts import Rollouts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rewarded:
    """This rank's answers of a step.

    Attributes:
        prompts: tokens of each answer's question.
        rows: of the answers among the generation's.
        weights_BK: of each token in the loss.
        share_BK: of each token in the mean over all tokens of the step.
    """

    prompts: list[list[int]]
    rows: np.ndarray
    weights_BK: np.ndarray
    share_BK: np.ndarray


class RewardLearner(Learner):
    """Policy steps on groups of answers."""

    fold: FineTuning
    MEASURES_GRADIENTS: ClassVar = True

    def __init__(self, fold: FineTuning) -> None:
        config, grpo = fold.config, fold.config.grpo
        learning = [one for one in fold.model.parameters() if one.requires_grad]
        adam = without_compiler(torch.optim.AdamW)(learning, lr=grpo.lr, weight_decay=grpo.weight_decay)
        training = SimpleNamespace(epochs=1, batch_size=grpo.batch_size, seed=config.training.seed)
        self.rollouts: Rollouts | None = None
        self.drawing = Drawing(fold, is_reused=grpo.steps_per_generation * grpo.iterations > 1)
        self.sums: dict[str, Tensor] = {}
        self.num_silent = 0  # steps without any signal
        # The learner's own order of rows is not looked at: questions are chosen by the number of a generation.
        super().__init__(
            fold,
            adam,
            grpo.batch_size * grpo.steps,
            stage="grpo",
            training=training,
            schedule=grpo,
            num_steps=grpo.steps,
            evaluate_every=grpo.evaluate_every,
        )

    @property
    def steps_per_generation(self) -> int:
        """Steps that learn from the answers of one generation."""
        steps: int = self.config.grpo.steps_per_generation * self.config.grpo.iterations
        return steps

    def begin(self) -> None:
        """Takes the model as it is as the reference, and out of it all dropout."""
        self.drawing.reference = self.fold.reference
        self.fold.load_trained_state(self.drawing.reference)
        self.fold.model.stop_dropout()

    def describe_point(self) -> ResumePoint:
        """With the answers that are not used up."""
        point = super().describe_point()
        if self.rollouts is None or self.step % self.steps_per_generation == 0:
            return point
        kept = {f"rollouts/{name}": value for name, value in self.rollouts.pack().items()}
        return replace(point, tensors={**point.tensors, **kept}, facts={**point.facts, "num_silent": self.num_silent})

    def resume(self, point: ResumePoint) -> None:
        """Takes up the state of an earlier attempt."""
        self.drawing.reference = self.fold.reference
        self.fold.model.stop_dropout()
        super().resume(point)
        kept = split_by_prefix(point.tensors).get("rollouts")
        self.rollouts = None if kept is None else Rollouts.unpack(kept)
        self.num_silent = point.facts.get("num_silent", 0)

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[Rewarded]:
        """The answers of each step; where a generation begins they are drawn, by the model as it is by then."""
        for step in range(self.step, self.step + len(portions)):
            generation, place = divmod(step, self.steps_per_generation)
            if place == 0:
                self.rollouts = self.drawing.draw(generation)
            yield self._pick(generation, place % self.config.grpo.steps_per_generation)

    def _pick(self, generation: int, part: int) -> Rewarded:
        """This rank's answers of a step, from the generation's."""
        assert self.rollouts is not None, "drawn, or taken up with the resume point"
        grpo, rollouts, fold = self.config.grpo, self.rollouts, self.fold
        chosen, each = self.drawing.choose(generation), grpo.num_generations
        first = part * grpo.batch_size
        step = slice(first * each, (first + grpo.batch_size) * each)
        counts_BK = (rollouts.tokens_BK[step] >= 0).numpy().astype(np.float64)
        share_BK = counts_BK / counts_BK.sum()
        if grpo.mask_truncated:
            counts_BK = counts_BK * (1 - rollouts.is_cut_B[step].numpy())[:, None]
        weights_BK = weigh_tokens(counts_BK, grpo.loss, self.config.generation.max_new_tokens)
        places = list(fold.share(range(grpo.batch_size)))
        is_filler = not places
        rows = np.array([place * each + sample for place in places or [0] for sample in range(each)])
        prompts = [self.drawing.prompts[chosen[first + row // each]] for row in rows]
        scale = 0.0 if is_filler else 1.0
        return Rewarded(prompts, first * each + rows, weights_BK[rows] * scale, share_BK[rows] * scale)

    def split_batch(self, batch: Rewarded, share_B: np.ndarray) -> list[tuple[Rewarded, np.ndarray]]:
        """Parts of `training.micro_batch_size` answers."""
        self.sums = {}
        number = len(batch.rows)
        return [
            (Rewarded([batch.prompts[n] for n in part], batch.rows[part], batch.weights_BK[part], batch.share_BK[part]),
             share_B)
            for part in cut(np.arange(number), self.config.training.micro_batch_size or number)
        ]  # fmt: skip

    def find_loss(self, batch: Rewarded, share_B: np.ndarray) -> Tensor:
        """This rank's part of the weighted sum over tokens."""
        assert self.rollouts is not None, "of the batch"
        rollouts, grpo, device = self.rollouts, self.config.grpo, self.fold.context.device
        rows, answers = batch.rows.tolist(), self.rollouts.list_answers(batch.rows.tolist())
        ids_BT, mask_BT, counts_BK = lay_out(batch.prompts, answers, self.fold.chat.pad_id)
        width = counts_BK.shape[1]
        log_probs_BK, entropy_BK = self.parallel(
            ids_BT.to(device), mask_BT.to(device), width, self.config.generation.temperature, measures_entropy=True
        )
        old_BK = log_probs_BK.detach() if self.steps_per_generation == 1 else rollouts.old_BK[rows, :width].to(device)
        reference_BK = rollouts.reference_BK[rows, :width].to(device) if grpo.kl_coef else log_probs_BK.detach()
        advantage_B = rollouts.advantage_B[rows].float().to(device)
        found = find_token_losses(log_probs_BK, old_BK, reference_BK, advantage_B, grpo.clip, grpo.kl_coef)
        weights_BK, share_BK = (
            torch.from_numpy(values_BK[:, :width]).float().to(device)
            for values_BK in (batch.weights_BK, batch.share_BK)
        )
        values = {"kl_divergence": found.kl_BK, "entropy": entropy_BK, "clip_ratio": found.is_clipped_BK.float()}
        for name, values_BK in values.items():
            part = (torch.where(share_BK > 0, values_BK, 0.0) * share_BK).sum()
            self.sums[name] = self.sums[name] + part if name in self.sums else part
        return (torch.where(weights_BK > 0, found.loss_BK, 0.0) * weights_BK).sum()

    def describe_step(self, loss: Tensor) -> dict[str, Tensor | float]:
        """Rewards, lengths, signal and divergence beside the loss, which is near 0 by its construction."""
        assert self.rollouts is not None, "of the step"
        assert self.grad_norm is not None, "measured"
        grpo, rollouts = self.config.grpo, self.rollouts
        size = grpo.batch_size * grpo.num_generations
        part = (self.step - 1) % self.steps_per_generation % grpo.steps_per_generation
        rows = slice(part * size, (part + 1) * size)
        reward_B, length_B = rollouts.reward_B[rows], (rollouts.tokens_BK[rows] >= 0).sum(1).double()
        silent = count_without_signal(reward_B.numpy(), grpo.num_generations)
        self._warn_of_silence(silent)
        found: dict[str, Tensor | float] = {
            "reward": float(reward_B.mean()),
            "reward_std": float(reward_B.view(-1, grpo.num_generations).std(1).mean()),
            "format_reward": float(rollouts.format_B[rows].mean()),
            "accuracy_reward": float(rollouts.accuracy_B[rows].mean()),
            "frac_reward_zero_std": silent,
            "completions/mean_length": float(length_B.mean()),
            "completions/max_length": float(length_B.max()),
            "completions/clipped_ratio": float(rollouts.is_cut_B[rows].mean()),
            "train/grad_norm": self.grad_norm / self.fold.context.world_size,
        }
        return super().describe_step(loss) | found | self.sums

    def _warn_of_silence(self, share: float) -> None:
        if share < 1:
            return
        self.num_silent += 1
        if self.num_silent == 1:
            logger.warning(
                "step %d of GRPO has no signal: all answers to each question are worth the same. More answers "
                "(grpo.num_generations), a higher generation.temperature, or questions that are answered right "
                "at times would give one; further such steps are counted by frac_reward_zero_std",
                self.step,
            )

    def end(self) -> None:
        """Says how many steps had no signal."""
        if self.num_silent:
            logger.warning("%d of %d steps of GRPO had no signal", self.num_silent, self.num_steps)
