"""A block of the transformer: attention and SwiGLU, shifted, scaled and gated by time and label (adaLN-Zero).

Shape suffixes: B pictures, T tokens, D channels, E heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.pixel_diffusion.network.embeddings import turn_pairs
from trainers.pixel_diffusion.network.shapes import Shape

_EPSILON = 1e-6


class RMSNorm(nn.Module):
    """Values over their root mean square, times a learned weight; computed in float32 (Zhang and Sennrich 2019,
    https://arxiv.org/abs/1910.07467)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, values: Tensor) -> Tensor:
        """Of the same shape and type."""
        wide = values.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + _EPSILON)
        return (wide * self.weight.float()).to(values.dtype)


def modulate(values_BTD: Tensor, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
    """Scaled and shifted by what belongs to each picture."""
    return values_BTD * (1 + scale_BD[:, None]) + shift_BD[:, None]


class Attention(nn.Module):
    """Self-attention whose queries and keys are normalised in each head and then turned by their places."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.query_norm, self.key_norm = RMSNorm(shape.head_width), RMSNorm(shape.head_width)
        self.out = nn.Linear(shape.width, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTD: Tensor, rotation: Tensor) -> Tensor:
        """(B, T, D)."""
        batch, length, width = tokens_BTD.shape
        parts = self.qkv(tokens_BTD).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query_BETD, key_BETD, value_BETD = parts.unbind(0)
        query_BETD = turn_pairs(self.query_norm(query_BETD).float(), rotation).to(value_BETD.dtype)
        key_BETD = turn_pairs(self.key_norm(key_BETD).float(), rotation).to(value_BETD.dtype)
        mixed_BETD = functional.scaled_dot_product_attention(query_BETD, key_BETD, value_BETD)
        attended_BTD: Tensor = self.out(mixed_BETD.transpose(1, 2).reshape(batch, length, width))
        dropped_BTD: Tensor = self.dropout(attended_BTD)
        return dropped_BTD


class SwiGLU(nn.Module):
    """down(silu(gate) · up), of which gate and up are one map (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, 2 * shape.hidden)
        self.down = nn.Linear(shape.hidden, shape.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """(B, T, D)."""
        gate, up = self.up(tokens_BTD).chunk(2, dim=-1)
        mapped_BTD: Tensor = self.down(self.dropout(functional.silu(gate) * up))
        return mapped_BTD


class Block(nn.Module):
    """Attention and SwiGLU, each within a gate that begins at zero (Peebles and Xie 2022,
    https://arxiv.org/abs/2212.09748)."""

    def __init__(self, shape: Shape, number: int) -> None:
        super().__init__()
        dropout = shape.dropout if shape.has_dropout(number) else 0.0
        self.attention_norm, self.attention = RMSNorm(shape.width), Attention(shape, dropout)
        self.mlp_norm, self.mlp = RMSNorm(shape.width), SwiGLU(shape, dropout)
        self.modulation = nn.Linear(shape.width, 6 * shape.width)

    def forward(self, tokens_BTD: Tensor, condition_BD: Tensor, rotation: Tensor) -> Tensor:
        """(B, T, D).

        Args:
            tokens_BTD: what goes in.
            condition_BD: of time and label, behind its SiLU.
            rotation: of `build_rotation`, of as many tokens.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition_BD).chunk(6, dim=1)
        attended = self.attention(modulate(self.attention_norm(tokens_BTD), shift, scale), rotation)
        tokens_BTD = tokens_BTD + gate[:, None] * attended
        mapped = self.mlp(modulate(self.mlp_norm(tokens_BTD), mlp_shift, mlp_scale))
        said_BTD: Tensor = tokens_BTD + mlp_gate[:, None] * mapped
        return said_BTD
