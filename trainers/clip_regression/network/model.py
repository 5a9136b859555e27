"""The CLIP regressor: open_clip's encoders, a head for each modality, and the weights that mix them.

    ẑ = alpha · image + beta · text + gamma · age,      alpha + beta + gamma = 1, learnable (a softmax)

A modality that the data does not have has no head and weight 0. Without pictures and texts there are no encoders.

Shape suffixes: B rows, C channels, H height, W width, L text tokens, D embedding, N encoded numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainers.clip_regression.config import ModelConfig
from trainers.learning.model import Model

MODALITIES = ("image", "text", "age")
ENCODE_ROWS = 32  # of one pass of frozen encoders outside of training


if TYPE_CHECKING:

    class Clip(nn.Module):
        """An encoder of pictures and texts: open_clip's `CLIP` or `CustomTextCLIP`, which have no types."""

        def encode_image(self, images_BCHW: Tensor) -> Tensor: ...
        def encode_text(self, tokens_BL: Tensor) -> Tensor: ...


def averages_tokens(architecture: dict[str, Any]) -> bool:
    """Whether open_clip leaves the text encoder unpooled: it is averaged over its tokens then."""
    return bool(architecture["text_cfg"].get("pool_type") == "none")


def text_encoder(clip: Clip, *, average: bool) -> Callable[[Tensor], Tensor]:
    """(B, L) tokens to (B, D) features."""

    def encode(tokens_BL: Tensor) -> Tensor:
        features = clip.encode_text(tokens_BL)
        if not average:
            return features
        is_token_BL1 = (tokens_BL != 0).unsqueeze(-1)
        return (features * is_token_BL1).sum(1) / is_token_BL1.sum(1)

    return encode


def encode_fixed(encode: Callable[[Tensor], Tensor], inputs_B: Tensor) -> Tensor:
    """Encodes in passes of exactly ENCODE_ROWS rows, the last one padded: a row's bits depend on the shape of the pass,
    and must not on its neighbours."""
    parts = []
    for part_B in inputs_B.split(ENCODE_ROWS):
        num_absent = ENCODE_ROWS - len(part_B)
        padded_B = torch.cat([part_B, part_B[:1].expand(num_absent, *part_B.shape[1:])]) if num_absent else part_B
        parts.append(encode(padded_B)[: len(part_B)])
    return torch.cat(parts)


def _encode(encode: Callable[[Tensor], Tensor], inputs_B: Tensor, *, is_fixed: bool) -> Tensor:
    return encode_fixed(encode, inputs_B) if is_fixed and len(inputs_B) else encode(inputs_B)


class Head(nn.Sequential):
    """Norm, dropout, one hidden layer (or none), one number a row, or one for each class."""

    def __init__(self, width: int, model: ModelConfig, *, norm: bool = True, num_outputs: int = 1) -> None:
        hidden = model.hidden_dim
        layers: list[nn.Module] = [nn.LayerNorm(width), nn.Dropout(model.dropout)] if norm else []
        if hidden:
            layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(model.dropout)]
        super().__init__(*layers, nn.Linear(hidden or width, num_outputs))


class ClipRegressor(Model):
    """Predicts the standardised log target, or a logit of each class, from picture, text and encoded numbers.

    Args:
        clip: open_clip's encoders; None where all rows come as features of frozen ones, or where there is nothing to
            encode.
        architecture: their config; None where there is nothing to encode.
        model: heads, freezing.
        has_image, has_text: whether the data has these modalities.
        age_width: columns of the encoded numbers; 0: none.
        num_absent_params: parameters of encoders that are not here.
        num_outputs: of a row: 1, or the number of classes.
    """

    def __init__(
        self,
        clip: Clip | None,
        architecture: dict[str, Any] | None,
        model: ModelConfig,
        *,
        has_image: bool,
        has_text: bool,
        age_width: int,
        num_absent_params: int = 0,
        num_outputs: int = 1,
    ) -> None:
        super().__init__()
        width = architecture["embed_dim"] if architecture else 0
        self.clip, self.frozen, self.num_absent_params = clip, model.freeze, num_absent_params
        self.average_tokens = architecture is not None and averages_tokens(architecture)
        self.heads = nn.ModuleDict()
        if has_image:
            self.heads["image"] = Head(width, model, num_outputs=num_outputs)
        if has_text:
            self.heads["text"] = Head(width, model, num_outputs=num_outputs)
        if age_width:
            self.heads["age"] = Head(age_width, model, norm=False, num_outputs=num_outputs)
        self.num_outputs = num_outputs
        self.weight_logits = nn.Parameter(torch.zeros(len(self.heads)))
        self._freeze_what_does_not_learn()

    def _freeze_what_does_not_learn(self) -> None:
        """Parameters without a gradient would make DDP wait for them: CLIP's own scale, towers without data."""
        if self.clip is None:
            return
        if self.frozen:
            self.clip.requires_grad_(False)
            return
        for name, parameter in self.clip.named_parameters():
            tower = "image" if name.startswith("visual.") else "text"
            if tower not in self.heads or name in ("logit_scale", "logit_bias"):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> ClipRegressor:
        """Frozen encoders stay in evaluation mode: their dropout and statistics belong to their own training."""
        super().train(mode)
        if self.frozen and self.clip is not None:
            self.clip.eval()
        return self

    def modality_weights(self) -> dict[str, Tensor]:
        """alpha, beta, gamma by modality; 0 for one that the data does not have."""
        weights = dict(zip(self.heads, self.weight_logits.detach().softmax(0), strict=True))
        return {name: weights.get(name, torch.zeros((), device=self.weight_logits.device)) for name in MODALITIES}

    def forward(
        self,
        images_BCHW: Tensor | None,
        tokens_BL: Tensor | None,
        numbers_BN: Tensor | None,
        features: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Predicted z, (B,), or logits, (B, C). An input whose modality has no head is None; `features`, (B, D) by
        modality, stand for pictures and texts that were encoded before."""
        return self.mix(self.encode(images_BCHW, tokens_BL) if features is None else features, numbers_BN)

    def encode(self, images_BCHW: Tensor | None, tokens_BL: Tensor | None) -> dict[str, Tensor]:
        """What the encoders make of pictures and texts, (B, D) by modality: the same for all models with the same
        frozen ones."""
        features = {}
        # Training changes no frozen encoder, but a row that is predicted must have the bits that it has among any other
        # rows.
        is_fixed = self.frozen and not self.training
        with torch.no_grad() if self.frozen else nullcontext():
            if "image" in self.heads:
                assert self.clip is not None
                assert images_BCHW is not None
                features["image"] = _encode(self.clip.encode_image, images_BCHW, is_fixed=is_fixed)
            if "text" in self.heads:
                assert self.clip is not None
                assert tokens_BL is not None
                encode = text_encoder(self.clip, average=self.average_tokens)
                features["text"] = _encode(encode, tokens_BL, is_fixed=is_fixed)
        return features

    def mix(self, features: dict[str, Tensor], numbers_BN: Tensor | None) -> Tensor:
        """Predicted z of encoded rows, (B,), or logits, (B, C)."""
        # Mixed precision is for the encoders; heads and mix are small, and half precision would show in the
        # predictions.
        with torch.autocast(self.weight_logits.device.type, enabled=False):
            inputs = features if numbers_BN is None else {**features, "age": numbers_BN}
            outputs = [head(inputs[name].float()) for name, head in self.heads.items()]
            joined = torch.cat(outputs, dim=1) if self.num_outputs == 1 else torch.stack(outputs, dim=2)
            return joined @ self.weight_logits.softmax(0)

    def count_parameters(self) -> dict[str, int]:
        """Parameters: total, trainable, frozen."""
        total = sum(parameter.numel() for parameter in self.parameters()) + self.num_absent_params
        trainable = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return {"total_params": total, "trainable_params": trainable, "frozen_params": total - trainable}

    def trained_state(self) -> dict[str, Tensor]:
        """Everything that this fold changes: parameters and buffers, less frozen encoders."""
        return {k: v for k, v in self.state_dict().items() if not (self.frozen and k.startswith("clip."))}

    def frozen_state(self) -> dict[str, Tensor]:
        """The encoders' tensors if they are frozen: the same in every fold."""
        return {k: v for k, v in self.state_dict().items() if self.frozen and k.startswith("clip.")}
