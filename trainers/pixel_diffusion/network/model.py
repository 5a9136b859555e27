"""The network: from a noisy picture, its time and its label to the clean picture.

Li and He 2025, "Back to Basics: Let Denoising Generative Models Denoise", https://arxiv.org/abs/2511.13720.

Shape suffixes: B pictures, T tokens, D channels, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.learning.model import Model
from trainers.pixel_diffusion.network.blocks import Block, RMSNorm, modulate
from trainers.pixel_diffusion.network.embeddings import (
    PatchEmbedding,
    TimeEmbedding,
    build_rotation,
    build_sine_table,
    cut_patches,
    join_patches,
)
from trainers.pixel_diffusion.network.shapes import Shape

COLOURS = 3
_SMALL = 0.02  # standard deviation of what does not begin by Xavier's rule


class FinalLayer(nn.Module):
    """Tokens to patches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = RMSNorm(shape.width)
        self.modulation = nn.Linear(shape.width, 2 * shape.width)
        self.head = nn.Linear(shape.width, shape.patch**2 * COLOURS)

    def forward(self, tokens_BTD: Tensor, condition_BD: Tensor) -> Tensor:
        """(B, T, pixels of a patch)."""
        shift, scale = self.modulation(condition_BD).chunk(2, dim=1)
        patches: Tensor = self.head(modulate(self.norm(tokens_BTD), shift, scale))
        return patches


class Denoiser(Model):
    """The transformer.

    Args:
        shape: its sizes.
        size: side of the square pictures in pixels; patches divide it.
        num_classes: labels from 0; `num_classes` itself means "no label".
    """

    sine_TD: Tensor
    rotation: Tensor
    class_places: nn.Parameter | None

    def __init__(self, shape: Shape, size: int, num_classes: int) -> None:
        super().__init__()
        self.shape, self.size, self.num_classes = shape, size, num_classes
        side = size // shape.patch
        self.patches = PatchEmbedding(shape.patch**2 * COLOURS, shape.bottleneck, shape.width)
        self.time = TimeEmbedding(shape.width)
        self.labels = nn.Embedding(num_classes + 1, shape.width)
        places = nn.Parameter(torch.empty(shape.class_tokens, shape.width)) if shape.class_tokens else None
        self.register_parameter("class_places", places)
        self.blocks = nn.ModuleList(Block(shape, number) for number in range(shape.depth))
        self.final = FinalLayer(shape)
        self.register_buffer("sine_TD", build_sine_table(side, side, shape.width), persistent=False)
        rotation = build_rotation(side, side, shape.head_width, shape.class_tokens)
        self.register_buffer("rotation", rotation, persistent=False)
        self._set_initial_values()

    def forward(self, noisy_BCHW: Tensor, time_B: Tensor, label_B: Tensor) -> Tensor:
        """The clean pictures, (B, C, H, W), from -1 to 1.

        Args:
            noisy_BCHW: of the same shape.
            time_B: from 0, noise, to 1.
            label_B: int64, `num_classes`: none.
        """
        shape = self.shape
        label_BD = self.labels(label_B)
        condition_BD = functional.silu(self.time(time_B) + label_BD)
        tokens_BTD = self.patches(cut_patches(noisy_BCHW, shape.patch)) + self.sine_TD
        rotation = self.rotation[:, shape.class_tokens :]
        for number, block in enumerate(self.blocks):
            if number == shape.join_block and self.class_places is not None:
                joined = label_BD[:, None] + self.class_places
                tokens_BTD, rotation = torch.cat([joined.to(tokens_BTD.dtype), tokens_BTD], dim=1), self.rotation
            tokens_BTD = block(tokens_BTD, condition_BD, rotation)
        patches = self.final(tokens_BTD[:, shape.class_tokens :], condition_BD)
        return join_patches(patches.float(), shape.patch, self.size, self.size)

    def count_parameters(self) -> dict[str, int]:
        """All are trained; the sine table and the rotation are no parameters."""
        total = sum(parameter.numel() for parameter in self.parameters())
        return {"total_params": total, "trainable_params": total, "frozen_params": 0}

    def _set_initial_values(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for weight in (self.labels.weight, self.class_places, self.time.first.weight, self.time.second.weight):
            if weight is not None:
                nn.init.normal_(weight, std=_SMALL)
        for linear in self._list_zeros():
            nn.init.zeros_(linear.weight)

    def _list_zeros(self) -> Iterator[nn.Linear]:
        """What begins at zero, so that at first all pictures are grey and each block changes nothing."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block.modulation
        yield from (self.final.modulation, self.final.head)
