"""The supervised stage: the model learns to say the responses of the training questions.

Shape suffixes: B questions, T tokens, K tokens of a response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trainers.learning.arithmetic import sum_over_ranks
from trainers.learning.batches import cut
from trainers.learning.learner import Learner
from trainers.learning.optimizer_state import without_compiler
from trainers.llm_finetuning.network.language_model import lay_out
from trainers.llm_finetuning.questions.table import Question
from trainers.llm_finetuning.stages.fine_tuning import FineTuning

_FORM = "<think></think><answer>{}</answer>"


@dataclass(frozen=True)
class Taught:
    """Prompts and responses, tokens of each, and how many tokens the responses of the whole step have, on all ranks."""

    prompts: list[list[int]]
    responses: list[list[int]]
    num_tokens: Tensor


class SupervisedLearner(Learner):
    """The mean cross entropy over the responses' tokens of a step, whichever rank they are on."""

    fold: FineTuning
    MEASURES_GRADIENTS: ClassVar = True

    def __init__(self, fold: FineTuning) -> None:
        config, sft = fold.config, fold.config.sft
        learning = [one for one in fold.model.parameters() if one.requires_grad]
        adam = without_compiler(torch.optim.AdamW)(learning, lr=sft.lr, weight_decay=sft.weight_decay)
        training = SimpleNamespace(epochs=sft.epochs, batch_size=sft.batch_size, seed=config.training.seed)
        self.taught = _encode(fold, fold.rows["sft"])
        super().__init__(
            fold,
            adam,
            len(fold.rows["sft"]),
            stage="sft",
            training=training,
            schedule=sft,
            num_steps=sft.steps,
            evaluate_every=sft.evaluate_every,
        )

    def read_batches(self, epoch: int, portions: list[np.ndarray]) -> Iterator[Taught]:
        """The tokens of each batch's questions."""
        for rows in portions:
            prompts, responses = zip(*(self.taught[row] for row in rows.tolist()), strict=True)
            yield Taught(list(prompts), list(responses), torch.zeros(()))

    def split_batch(self, batch: Taught, share_B: np.ndarray) -> list[tuple[Taught, np.ndarray]]:
        """Parts of `training.micro_batch_size` questions."""
        counted = sum(len(one) for one, share in zip(batch.responses, share_B, strict=True) if share > 0)
        total = sum_over_ranks(torch.tensor(float(counted), device=self.fold.context.device))
        size = self.config.training.micro_batch_size or len(share_B)
        return [
            (Taught([batch.prompts[n] for n in part], [batch.responses[n] for n in part], total), share_B[part])
            for part in cut(np.arange(len(share_B)), size)
        ]

    def find_loss(self, batch: Taught, share_B: np.ndarray) -> Tensor:
        """This rank's sum over tokens, divided by the tokens of all ranks."""
        device = self.fold.context.device
        ids_BT, mask_BT, counts_BK = lay_out(batch.prompts, batch.responses, self.fold.chat.pad_id)
        counts_BK = counts_BK * torch.from_numpy(share_B > 0)[:, None]
        log_probs_BK, _ = self.parallel(ids_BT.to(device), mask_BT.to(device), counts_BK.shape[1])
        loss: Tensor = -(log_probs_BK * counts_BK.to(device)).sum() / batch.num_tokens
        return loss

    def describe_step(self, loss: Tensor) -> dict[str, Tensor | float]:
        """With the gradients' norm."""
        found = super().describe_step(loss)
        assert self.grad_norm is not None, "measured"
        return found | {"train/grad_norm": self.grad_norm / self.fold.context.world_size}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean cross entropy over the tokens of the validation questions' responses; where one has none, of its
        right answer in the form that is asked for."""
        fold, device = self.fold, self.fold.context.device
        fold.model.eval()
        taught = _encode(fold, fold.share(fold.rows["validation"]))
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for part in cut(np.arange(len(taught)), self.config.training.eval_batch_size):
            prompts, responses = zip(*(taught[row] for row in part.tolist()), strict=True)
            ids_BT, mask_BT, counts_BK = lay_out(prompts, responses, fold.chat.pad_id)
            log_probs_BK, _ = fold.model(ids_BT.to(device), mask_BT.to(device), counts_BK.shape[1])
            counts_BK = counts_BK.to(device)
            sums += torch.stack([-(log_probs_BK * counts_BK).double().sum(), counts_BK.double().sum()])
            fold.context.touch()
        total, count = sum_over_ranks(sums).tolist()
        return {"val/loss_epoch": total / count}

    def score(self, metrics: Mapping[str, float]) -> float:
        """The loss."""
        return metrics["val/loss_epoch"]

    def end(self) -> None:
        """Keeps what GRPO begins with and stays near."""
        self.fold.save("sft", self.epoch, {})


def _encode(fold: FineTuning, questions: Sequence[Question]) -> list[tuple[list[int], list[int]]]:
    """Prompt and response of each question; what is longer than `sft.max_tokens` is cut at its end."""
    most, encoded = fold.config.sft.max_tokens, []
    for one in questions:
        response = one.response if one.response is not None else _FORM.format(one.gold_answer)
        prompt = fold.chat.encode_prompt(one.prompt)[: most - 1]
        encoded.append((prompt, fold.chat.encode_response(one.prompt, response)[: most - len(prompt)]))
    return encoded
