"""The U-Net: an encoder of double convolutions, a bottleneck, and a decoder that joins what the encoder saw on each
scale.

Shape suffixes: B pictures, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.learning.model import Model


class DoubleConvolution(nn.Sequential):
    """Twice: a 3×3 convolution without bias, batch normalisation, ReLU."""

    def __init__(self, num_in: int, num_out: int) -> None:
        layers: list[nn.Module] = []
        for channels in (num_in, num_out):
            layers += [
                nn.Conv2d(channels, num_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(num_out),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(Model):
    """Logits of each pixel, for pictures of any size.

    Args:
        channels: of the picture.
        outputs: channels of the logits.
        features: channels of the encoder's stages; the bottleneck has twice the last.
    """

    def __init__(self, channels: int, outputs: int, features: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.decoder, self.upsampling = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for num_in, num_out in zip([channels, *features], features, strict=False):
            self.encoder.append(DoubleConvolution(num_in, num_out))
        self.bottleneck = DoubleConvolution(features[-1], 2 * features[-1])
        width = 2 * features[-1]
        for number in reversed(features):
            self.upsampling.append(nn.ConvTranspose2d(width, number, 2, stride=2))
            self.decoder.append(DoubleConvolution(2 * number, number))
            width = number
        self.head = nn.Conv2d(features[0], outputs, 1)

    @property
    def multiple(self) -> int:
        """Sides are padded with zeros to a multiple of this, and the logits cut back."""
        return 1 << len(self.encoder)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        height, width = images_BCHW.shape[-2:]
        values = functional.pad(images_BCHW, (0, -width % self.multiple, 0, -height % self.multiple))
        passed = []
        for stage in self.encoder:
            values = stage(values)
            passed.append(values)
            values = functional.max_pool2d(values, 2)
        values = self.bottleneck(values)
        for enlarge, stage, kept in zip(self.upsampling, self.decoder, reversed(passed), strict=True):
            values = stage(torch.cat([kept, enlarge(values)], dim=1))
        logits_BCHW: Tensor = self.head(values)
        return logits_BCHW[..., :height, :width]

    def count_parameters(self) -> dict[str, int]:
        """`total_params`, `trainable_params`, `frozen_params`."""
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        total, trainable = sum(n for n, _ in counts), sum(n for n, learns in counts if learns)
        return {"total_params": total, "trainable_params": trainable, "frozen_params": total - trainable}


def to_probability(logits_BCHW: Tensor) -> Tensor:
    """Probabilities in the logits' shape: of one channel that the pixel is foreground, of several of each class."""
    return torch.sigmoid(logits_BCHW) if logits_BCHW.shape[1] == 1 else torch.softmax(logits_BCHW, 1)
