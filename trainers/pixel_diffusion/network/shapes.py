"""How large the named models are. No torch.

Sizes of Li and He 2025, https://arxiv.org/abs/2511.13720, table 9; B/4, B/64 and G are of the paper alone, the others
of its program (https://github.com/LTH14/JiT), too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from trainers.values import check_number, refuse, suggest


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer.

    Attributes:
        depth, width, heads: blocks, channels of a token, heads of attention.
        bottleneck: channels between a patch's pixels and its token.
        patch: side of a patch in pixels.
        class_tokens: tokens of the label that are put before the patches' tokens.
        join_block: the block, from 0, before which they are.
        dropout: in the middle half of the blocks.
    """

    depth: int
    width: int
    heads: int
    bottleneck: int
    patch: int
    class_tokens: int
    join_block: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("depth", "heads", "bottleneck", "patch"):
            check_number(f"model.{name}", getattr(self, name), least=1)
        check_number("model.class_tokens", self.class_tokens, least=0)
        check_number("model.dropout", self.dropout, least=0, below=1)
        if self.width < 1 or self.width % (4 * self.heads):
            raise refuse(
                "model.width", self.width, f"a multiple of {4 * self.heads}, four times model.heads={self.heads}"
            )
        if not 0 <= self.join_block < self.depth:
            raise refuse(
                "model.join_block", self.join_block, f"0 to {self.depth - 1}, a block of model.depth={self.depth}"
            )

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        """Channels within the SwiGLU: two thirds of four times the width, rounded down."""
        return int(4 * self.width * 2 / 3)

    def has_dropout(self, block: int) -> bool:
        """Whether a block, from 0, is in the middle half."""
        return self.depth // 4 <= block < self.depth // 4 * 3

    def describe(self) -> dict[str, Any]:
        """Its values by name."""
        return asdict(self)

    def count_flops(self, num_patches: int) -> float:
        """Floating-point operations of a forward pass of one picture, two for each multiplication and addition, of all
        matrix products of the blocks and of both patch maps."""
        pixels, tokens = 3 * self.patch**2, num_patches + self.class_tokens
        maps = num_patches * (pixels * self.bottleneck + self.bottleneck * self.width + self.width * pixels)
        per_token = 4 * self.width**2 + 3 * self.width * self.hidden
        total = float(maps)
        for block in range(self.depth):
            length = tokens if block >= self.join_block else num_patches
            total += length * per_token + 2 * length**2 * self.width + 6 * self.width**2
        return 2 * total


_B = Shape(depth=12, width=768, heads=12, bottleneck=128, patch=16, class_tokens=32, join_block=4)
_L = Shape(depth=24, width=1024, heads=16, bottleneck=128, patch=16, class_tokens=32, join_block=8)
_H = Shape(depth=32, width=1280, heads=16, bottleneck=256, patch=16, class_tokens=32, join_block=10, dropout=0.2)
_G = Shape(depth=40, width=1664, heads=16, bottleneck=256, patch=16, class_tokens=32, join_block=10, dropout=0.2)
SHAPES = {
    f"JiT-{letter}/{patch}": replace(shape, patch=patch)
    for letter, shape, patches in (
        ("B", _B, (4, 16, 32, 64)),
        ("L", _L, (16, 32)),
        ("H", _H, (16, 32)),
        ("G", _G, (16, 32)),
    )
    for patch in patches
}
SIZES = tuple(field.name for field in fields(Shape))


def find_shape(name: str, given: dict[str, Any]) -> Shape:
    """The sizes of a named model with those that are given in place of its own.

    Args:
        name: of the model.
        given: sizes by name; None: the named model's.

    Raises:
        ValueError: there is no such model, or sizes do not fit.
    """
    if name not in SHAPES:
        raise refuse("model.name", name, f"one of {', '.join(SHAPES)}{suggest(name, SHAPES)}")
    return replace(SHAPES[name], **{size: value for size, value in given.items() if value is not None})
