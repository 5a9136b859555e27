"""GPT-2's decoder (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"): norms before attention
and feed-forward layers, learned positions, and the embedding as the output layer.

Shape suffixes: B rows, T places, D width, H heads, V tokens of the vocabulary, P tokens of a portion.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.gpt_pretraining.config import ModelConfig
from trainers.learning.model import Model

NOTHING = -1  # a target that counts nowhere
_SPREAD = 0.02  # standard deviation of initial weights


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        B, T, D = hidden_BTD.shape
        parts = self.qkv(hidden_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        result: Tensor = self.out(mixed.transpose(1, 2).reshape(B, T, D))
        return result


class Block(nn.Module):
    """Attention and feed-forward layers, each added to what comes in."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, bias=config.bias)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, bias=config.bias)
        self.up = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.down = nn.Linear(4 * config.width, config.width, bias=config.bias)
        self.gelu, self.drop = "tanh" if config.gelu == "tanh" else "none", nn.Dropout(config.dropout)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        hidden_BTD = hidden_BTD + self.drop(self.attention(self.norm1(hidden_BTD)))
        wide = functional.gelu(self.up(self.norm2(hidden_BTD)), approximate=self.gelu)
        result: Tensor = hidden_BTD + self.drop(self.down(wide))
        return result


class Gpt(Model):
    """The decoder.

    Args:
        config: its sizes.
        vocabulary: tokens; rows of the embedding beyond them are in no softmax.
        loss_tokens: whose logits are in memory at the same time while it learns.
    """

    def __init__(self, config: ModelConfig, vocabulary: int, loss_tokens: int = 8192) -> None:
        super().__init__()
        self.config, self.vocabulary, self.loss_tokens = config, vocabulary, loss_tokens
        rows = math.ceil(vocabulary / config.pad_vocabulary) * config.pad_vocabulary
        self.tokens = nn.Embedding(rows, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=config.bias)
        self._initialise()

    def _initialise(self) -> None:
        """Normal weights; those of layers that are added to what comes in are smaller, the more there are."""
        residual = _SPREAD / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                is_residual = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(parameter, 0.0, residual if is_residual else _SPREAD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def count_parameters(self) -> dict[str, int]:
        """All are trained."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return {"total_params": total, "trainable_params": total, "frozen_params": 0}

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """The nats of each target, (B, T) float32, 0 where it counts nowhere; without targets the logits of the next
        token after the last place, (B, V) float32."""
        hidden_BTD = self.embed(tokens_BT)
        if targets_BT is None:
            return self.find_logits(hidden_BTD[:, -1])
        flat_SD, targets_S = hidden_BTD.flatten(0, 1), targets_BT.flatten()
        if len(flat_SD) <= self.loss_tokens or not torch.is_grad_enabled():
            parts = [self._find_nats(*part) for part in self._cut(flat_SD, targets_S)]
        else:
            parts = [_without_keeping(self._find_nats, *part) for part in self._cut(flat_SD, targets_S)]
        return torch.cat(parts).view(targets_BT.shape)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """What the last norm gives at each place, (B, T, D)."""
        places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        hidden_BTD = self.drop(self.tokens(tokens_BT) + self.positions(places_T))
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD)
        result: Tensor = self.norm(hidden_BTD)
        return result

    def find_logits(self, hidden_PD: Tensor) -> Tensor:
        """Of each token of the vocabulary, (P, V) float32."""
        return functional.linear(hidden_PD, self.tokens.weight[: self.vocabulary]).float()

    def _cut(self, flat_SD: Tensor, targets_S: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(flat_SD.split(self.loss_tokens), targets_S.split(self.loss_tokens), strict=True))

    def _find_nats(self, hidden_PD: Tensor, targets_P: Tensor) -> Tensor:
        logits_PV = self.find_logits(hidden_PD)
        return functional.cross_entropy(logits_PV, targets_P, reduction="none", ignore_index=NOTHING)


def _without_keeping(find: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """Computes something and forgets what lies between; it is computed again for the gradients."""
    from torch.utils.checkpoint import checkpoint

    found: Tensor = checkpoint(find, *parts, use_reentrant=False, preserve_rng_state=False)
    return found


def count_flops_per_token(model: Gpt) -> float:
    """Of a training step: 6 for each parameter but the positions, and attention without regard to causality (as
    nanoGPT, after Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B)."""
    config = model.config
    parameters = model.count_parameters()["total_params"] - config.context * config.width
    return 6 * parameters + 12 * config.layers * config.width * config.context


def find_peak_flops(device: str) -> float | None:
    """Dense bf16 operations a second of a GPU as its maker says; None: not known."""
    if not device.startswith("cuda"):
        return None
    name = torch.cuda.get_device_name(device)
    peaks = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}
    return next((peak for known, peak in peaks.items() if known in name), None)
