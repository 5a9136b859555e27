"""What GRPO minimises (Shao et al. 2024, https://arxiv.org/abs/2402.03300), with the choices that others made since.

Shape suffixes: B answers, G answers to one question, K tokens of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

_LEAST_DEVIATION = 1e-4

LossKind = Literal["grpo", "dr_grpo", "dapo"]
Scale = Literal["group", "batch", "none"]


def find_advantages(reward_B: np.ndarray, num_generations: int, scale: Scale) -> np.ndarray:
    """What each answer's reward exceeds the mean of its group by, (B,), divided by a standard deviation: of its group,
    of all, or by none (Liu et al. 2025, "Dr. GRPO", https://arxiv.org/abs/2503.20783, divide by none)."""
    reward_QG = np.asarray(reward_B, np.float64).reshape(-1, num_generations)
    advantage_QG = reward_QG - reward_QG.mean(axis=1, keepdims=True)
    if scale == "group":
        advantage_QG = advantage_QG / (reward_QG.std(axis=1, ddof=1, keepdims=True) + _LEAST_DEVIATION)
    elif scale == "batch":
        advantage_QG = advantage_QG / (reward_QG.std(ddof=1) + _LEAST_DEVIATION)
    advantage_B: np.ndarray = advantage_QG.ravel()
    return advantage_B


def count_without_signal(reward_B: np.ndarray, num_generations: int) -> float:
    """Share of the groups whose answers are all worth the same: nothing is learned from them."""
    reward_QG = np.asarray(reward_B).reshape(-1, num_generations)
    return float((np.ptp(reward_QG, axis=1) < 1e-9).mean())


@dataclass(frozen=True)
class TokenLosses:
    """Of each token of answers, (B, K)."""

    loss_BK: Tensor
    kl_BK: Tensor
    is_clipped_BK: Tensor


def find_token_losses(
    log_probs_BK: Tensor, old_BK: Tensor, reference_BK: Tensor, advantage_B: Tensor, clip: float, kl_coef: float
) -> TokenLosses:
    """The clipped surrogate and the divergence from the reference.

    The divergence is k3 = e^d - d - 1, d the reference's log-probability minus the policy's (Schulman 2020), times the
    ratio of new and old probability: without this factor its gradient is biased, even where the ratio is 1.

    Args:
        log_probs_BK: of the policy, with gradient.
        old_BK: of the policy that has answered.
        reference_BK: of the reference.
        advantage_B: of each answer.
        clip: bounds of the ratio are 1 - clip and 1 + clip.
        kl_coef: weight of the divergence.
    """
    ratio_BK = torch.exp(log_probs_BK - old_BK)
    advantage_B1 = advantage_B[:, None]
    cut_BK = ratio_BK.clamp(1 - clip, 1 + clip)
    surrogate_BK = torch.minimum(ratio_BK * advantage_B1, cut_BK * advantage_B1)
    distance_BK = reference_BK - log_probs_BK
    kl_BK = torch.exp(distance_BK) - distance_BK - 1
    is_clipped_BK = ((ratio_BK < 1 - clip) & (advantage_B1 < 0)) | ((ratio_BK > 1 + clip) & (advantage_B1 > 0))
    return TokenLosses(-surrogate_BK + kl_coef * ratio_BK * kl_BK, kl_BK.detach(), is_clipped_BK)


def weigh_tokens(counts_BK: np.ndarray, kind: LossKind, max_new_tokens: int) -> np.ndarray:
    """The weight of each token in the loss of a step, (B, K); it is the sum over all of weight and loss.

    Args:
        counts_BK: 1 where a token counts, of all answers of the step.
        kind: grpo: mean over each answer, then over answers; dapo (Yu et al. 2025, https://arxiv.org/abs/2503.14476):
            mean over all tokens; dr_grpo: sum divided by answers and longest answer.
        max_new_tokens: of an answer.
    """
    counts_BK = np.asarray(counts_BK, np.float64)
    if kind == "dapo":
        weights_BK: np.ndarray = counts_BK / max(counts_BK.sum(), 1)
    elif kind == "dr_grpo":
        weights_BK = counts_BK / (len(counts_BK) * max_new_tokens)
    else:
        weights_BK = counts_BK / np.maximum(counts_BK.sum(axis=1, keepdims=True), 1) / len(counts_BK)
    return weights_BK
