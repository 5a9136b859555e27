"""Answers that the model gives: the likeliest ones, or samples that depend on a key and the question alone.

Sampling is by the Gumbel-max trick (Maddison et al. 2014, https://arxiv.org/abs/1411.0030): of log-probabilities with
Gumbel noise the largest is a draw from the distribution. The noise comes from a generator of the sample's own, keyed by
(seed, question, sample), so a sample is the same alone and among others, and no generator's state has to be saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from trainers.llm_finetuning.network.chat import Chat
from trainers.llm_finetuning.network.language_model import LanguageModel

_SMALLEST = 1e-20


class DrawByKey(LogitsProcessor):
    """Adds Gumbel noise to log-probabilities at a temperature, so that the likeliest token is a draw.

    Args:
        keys: of each sequence of the batch, any text.
        temperature: above 0.
    """

    def __init__(self, keys: Sequence[str], temperature: float) -> None:
        digests = [hashlib.sha256(key.encode()).digest()[:16] for key in keys]
        self.generators = [np.random.Generator(np.random.Philox(key=int.from_bytes(one, "little"))) for one in digests]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token, of which the largest is taken."""
        drawn = np.stack([one.random(scores.shape[1], dtype=np.float32) for one in self.generators])
        uniform_BV = torch.from_numpy(drawn).clamp_(_SMALLEST, 1 - 6e-8).to(scores.device)
        noisy: Tensor = torch.log_softmax(scores.float() / self.temperature, -1) - torch.log(-torch.log(uniform_BV))
        return noisy


def choose_width(num_tokens: int) -> int:
    """To how many tokens a prompt is filled up: powers of two to 64, then multiples of 64. It depends on the prompt
    alone, because the width of a batch changes last bits."""
    return max(8, 1 << (num_tokens - 1).bit_length()) if num_tokens <= 64 else -(-num_tokens // 64) * 64


@torch.no_grad()
def generate(
    model: LanguageModel,
    chat: Chat,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    keys: Sequence[str] | None = None,
    temperature: float = 1.0,
    touch: Callable[[], None] = lambda: None,
) -> list[list[int]]:
    """The answers' tokens, each with its end unless it was cut, in the order of the prompts.

    Args:
        model: the model.
        chat: says what ends an answer.
        prompts: tokens of each.
        max_new_tokens: of an answer.
        batch_size: answers at once.
        keys: of each prompt, from which its sample is drawn; None: the likeliest tokens are taken.
        temperature: of samples.
        touch: called after each batch.
    """
    was_training = model.training
    model.eval()
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda row: choose_width(len(prompts[row])))
    for rows in _cut_by_width(order, prompts, batch_size):
        noise = None if keys is None else DrawByKey([keys[row] for row in rows], temperature)
        found = _generate(model.peft, chat, [prompts[row] for row in rows], max_new_tokens, noise)
        for row, answer in zip(rows, found, strict=True):
            answers[row] = answer
        touch()
    model.train(was_training)
    return answers


def _cut_by_width(order: Sequence[int], prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else None
        same = last is not None and choose_width(len(prompts[last[0]])) == choose_width(len(prompts[row]))
        if last is not None and same and len(last) < batch_size:
            last.append(row)
        else:
            batches.append([row])
    return batches


def _generate(
    peft: Any, chat: Chat, prompts: Sequence[Sequence[int]], max_new_tokens: int, noise: LogitsProcessor | None
) -> list[list[int]]:
    width = choose_width(len(prompts[0]))
    ids_BT = torch.full((len(prompts), width), chat.pad_id, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask_BT[row, width - len(prompt) :] = 1
    device = next(peft.parameters()).device
    how = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=max_new_tokens, pad_token_id=chat.pad_id, eos_token_id=list(chat.end_ids)
    )
    found_BT = peft.generate(
        input_ids=ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        generation_config=how,
        logits_processor=LogitsProcessorList([noise] if noise else []),
    )
    return [_cut_end(row, chat.end_ids) for row in found_BT[:, width:].tolist()]


def _cut_end(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """What is behind an answer's end is filling."""
    ends = [place for place, one in enumerate(ids) if one in end_ids]
    return ids[: ends[0] + 1] if ends else ids
