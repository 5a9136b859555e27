"""The sections of a config that decide what a U-Net learns. Plain dataclasses: no torch, no pandas."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from trainers.learning.config_sections import ADVICE, OptimizerSection, TrainingSection
from trainers.reading.picture_rules import MAX_PICTURE_PIXELS, WHITE, PictureRules
from trainers.reading.table_files import TableFormat
from trainers.values import check_number, refuse

MOST_CLASSES = 255  # a mask is held in bytes, and 255 marks pixels that count nowhere


@dataclass(frozen=True)
class DataConfig:
    """Where pictures and masks are, and what the masks' values mean. A picture and its mask have the same name, but for
    its ending."""

    ROWS_FROM: ClassVar = (
        "root",
        "images",
        "masks",
        "test_images",
        "test_masks",
        "table",
        "split_column",
        "max_rows",
        "classes",
        "mask_suffix",
        "ignore_value",
        "encoding",
        "separator",
    )

    root: str | None = None
    """Folder with the picture folders. Without it the project makes pictures of its own."""
    images: str = "images"
    """Folder of the pictures to learn from (PNG, JPEG, TIFF, ...; 8 or 16 bits; grey, or colour with `channels=3`),
    below `root`."""
    masks: str = "masks"
    """Folder of their masks: a single channel (or a palette) of class numbers, as large as the picture."""
    mask_suffix: str = ""
    """What a mask's name has behind its picture's: `_mask` where x_mask.png belongs to x.jpg."""
    test_images: str = "test_images"
    """Folder of the pictures to predict. May be absent."""
    test_masks: str = "test_masks"
    """Folder of their masks. May be absent: then there is no score of the ensemble on them."""
    table: str | None = None
    """Table (.csv or .parquet, below `root`) with further columns of the pictures; only pictures that it names are
    used."""
    encoding: str | None = None
    """Of a CSV table, such as cp1252; None: UTF-8, or UTF-16 where the file begins with its mark."""
    separator: str | None = None
    """Between the cells of a CSV table (`tab` is one); None: found in its header."""
    id_column: str = "id"
    """Its column with a picture's name without the ending."""
    split_column: str | None = None
    """Its column that says which pictures of `images` are to be predicted only: those with `test_split`."""
    test_split: str = "test"
    """The value of `split_column` that marks them."""
    group_column: str | None = None
    """Its column with what is never split between folds, such as the patient (`folds.kind=grouped`)."""
    group_pattern: str | None = None
    """Instead of a table: a regular expression whose first group, found in a picture's name, is what is never split,
    such as '^(patient[0-9]+)_'."""
    near_duplicates: bool = False
    """Look also for pictures that are nearly the same (saved again, resized, slightly cropped, mirrored)."""
    fold_column: str | None = None
    """Its column with the user's own folds, from 0; -1 marks pictures that always train, -2 the blend set
    (`folds.kind=predefined`)."""
    classes: int = 2
    """Number of classes, the background included. 2: one probability a pixel."""
    mask_values: tuple[int, ...] = ()
    """The values in the masks that mean class 0, 1, ...; empty: 0, 1, 2, ..., or with two classes 0 and 1, 255 or
    65535."""
    ignore_value: int | None = None
    """The value in the masks of pixels that count nowhere: not in the loss, nor in Dice, IoU and class weights."""
    soft_masks: bool = False
    """Two classes: values in between are allowed (smooth edges, JPEG); those above half of the largest are foreground.
    """
    channels: Literal[1, 3] = 1
    """1: pictures are read as grey (of colours their luminance); 3: as RGB."""
    bit_depth: int | None = None
    """Bits in use of pictures with 16 bits that do not say it themselves (8, 10, 12, 14, 16); None: the fewest that
    hold all their values."""
    background: tuple[int, ...] = WHITE
    """What transparent pictures are laid on: red, green and blue, from 0 to 255."""
    max_pixels: int = MAX_PICTURE_PIXELS
    """Of a picture or mask; larger ones are refused unread."""
    size: int = 512
    """Side in pixels of the squares that are trained on."""
    scaling: Literal["keep", "fit"] = "keep"
    """keep: pixels stay as they are; of a larger picture a square is drawn anew for each epoch, and predictions are
    made of squares that overlap. fit: a picture is scaled, undistorted, so that its longer side has `size` pixels. A
    smaller one is padded with what counts nowhere."""
    max_rows: int | None = None
    """Learn from the first so many pictures only."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a picture that cannot be learned from: stop, or go on without it and list it."""

    @property
    def folder(self) -> Path:
        """`root`, once the inventory knows it."""
        assert self.root is not None
        return Path(self.root)

    def __post_init__(self) -> None:
        check_number("data.classes", self.classes, least=2, most=MOST_CLASSES - 1)  # the background included
        check_number("data.size", self.size, least=32, unit="pixels")
        check_number("data.max_rows", self.max_rows, least=1, instead="none")
        if self.mask_values and len(set(self.mask_values)) != self.classes:
            expected = f"{self.classes} different values, one for each class of data.classes={self.classes}"
            raise refuse("data.mask_values", self.mask_values, expected)
        if self.soft_masks and (self.classes != 2 or self.mask_values[:1] not in ((), (0,))):
            raise refuse(
                "data.soft_masks",
                self.soft_masks,
                f"two classes, with 0 as the background; found data.classes={self.classes} and "
                f"data.mask_values={list(self.mask_values)}",
            )
        if self.ignore_value is not None and self.ignore_value in self.mask_values:
            raise refuse(
                "data.ignore_value",
                self.ignore_value,
                f"none of data.mask_values={list(self.mask_values)}, the classes",
            )
        self.picture_rules, self.table_format  # noqa: B018  (they check their fields)
        for name in ("images", "masks"):
            if not getattr(self, name):
                raise refuse(f"data.{name}", getattr(self, name), "the name of a folder below data.root")
        columns = {name: getattr(self, name) for name in ("split_column", "group_column", "fold_column")}
        if self.table is None and any(columns.values()):
            name = next(name for name, value in columns.items() if value)
            raise refuse(f"data.{name}", columns[name], "none without a table; set data.table")
        if self.group_pattern is not None:
            _check_pattern(self.group_pattern, self.group_column)

    @property
    def picture_rules(self) -> PictureRules:
        """What files do not say. Of runs from before bits in use were found, 16 bits are read as a whole."""
        return PictureRules(self.bit_depth or 16, self.background, self.max_pixels)

    @property
    def table_format(self) -> TableFormat:
        """What the table does not say."""
        return TableFormat(self.encoding, self.separator)

    @property
    def outputs(self) -> int:
        """Channels of the model's output: one for two classes, else one for each."""
        return 1 if self.classes == 2 else self.classes


def _check_pattern(pattern: str, group_column: str | None) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise refuse("data.group_pattern", pattern, f"a regular expression ({error})") from None
    if groups < 1:
        raise refuse("data.group_pattern", pattern, "a group in brackets, such as '^(patient[0-9]+)_'")
    if group_column:
        raise refuse("data.group_pattern", pattern, f"none with data.group_column={group_column}; set one of them")


@dataclass(frozen=True)
class ModelConfig:
    """The U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597), with batch normalisation and padded
    convolutions."""

    features: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the encoder's stages; the bottleneck has twice the last. Each stage halves the side."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.features) <= 6 or any(number < 1 for number in self.features):
            raise refuse("model.features", self.features, "1 to 6 numbers of channels, at least 1 each")


@dataclass(frozen=True)
class TrainingConfig(TrainingSection):
    """How long and in which portions."""

    epochs: int = 200
    """Passes over the fold's training pictures."""
    batch_size: int = 4
    """Pictures of one optimiser step, over all workers of the fold together."""
    eval_batch_size: int = 8
    """Squares of one forward pass where a picture larger than `data.size` is predicted."""
    horizontal_flip: bool = True
    """Mirror half of the training pictures left to right, drawn anew for each picture and epoch, together with their
    masks."""
    vertical_flip: bool = True
    """Likewise upside down."""
    max_rotation: float = 10.0
    """Likewise turn them by up to so many degrees either way; what comes in from outside counts nowhere."""
    picture_cache_gib: float = 2.0
    """Decoded pictures are kept in memory, if all of a fold's fit into this size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("training.max_rotation", self.max_rotation, least=0, most=180, unit="degrees")


@dataclass(frozen=True)
class OptimizerConfig(OptimizerSection):
    """Adam and its schedule."""

    weight_decay: float = 0.0
    """L2 penalty on the weights."""


@dataclass(frozen=True)
class LossConfig:
    """dice_share · Dice + (1 - dice_share) · cross entropy; `loss.py` has the formulas."""

    dice_share: float = 0.5
    """Share of the Dice loss."""
    smooth: float = 1e-6
    """Added to both sides of the Dice fraction."""
    positive_weight: float | Literal["auto"] = 1.0
    """Weight in the cross entropy of pixels that are not background. auto: as much rarer as each class is than the
    background in the fold's training masks."""

    def __post_init__(self) -> None:
        check_number("loss.dice_share", self.dice_share, least=0, most=1, unit="a share")
        check_number("loss.smooth", self.smooth, above=0)
        check_number("loss.positive_weight", self.positive_weight, above=0, instead="auto")


@dataclass(frozen=True)
class Config:
    """Everything that decides what a fold of this family learns."""

    PREDICTS: ClassVar = "map"
    PACKAGES: ClassVar = ("pillow",)
    SEED: ClassVar = "training.seed"
    # Pictures are normalised by what they are found to be, so that their scale does not matter.
    NOT_TRAINED_BY: ClassVar = (
        "training.eval_batch_size",
        "training.picture_cache_gib",
        "data.max_pixels",
        "data.bit_depth",
    )
    ADVICE: ClassVar = ADVICE

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        smallest = 2 ** len(self.model.features)
        if self.data.size <= smallest:
            raise refuse(
                "data.size",
                self.data.size,
                f"above {smallest} pixels, as each of the {len(self.model.features)} stages of model.features halves "
                "it; raise data.size, or give fewer stages",
            )
