"""The sections of a config that decide what a CLIP regressor (or classifier) learns. Plain dataclasses: no torch, no
pandas."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from trainers.learning.config_sections import ADVICE, OptimizerSection, TrainingSection
from trainers.reading.picture_rules import MAX_PICTURE_PIXELS, WHITE, PictureRules
from trainers.reading.table_files import TableFormat
from trainers.values import check_number, refuse


@dataclass(frozen=True)
class DataConfig:
    """Where the rows are and what their columns mean."""

    ROWS_FROM: ClassVar = (
        "root", "train_table", "test_table", "target", "task", "id_column", "max_rows", "encoding", "separator"
    )  # fmt: skip

    root: str | None = None
    """Folder with the tables and the picture folders, here or in object storage (s3://bucket/folder). Without it the
    project makes data of its own."""
    train_table: str = "train_val.csv"
    """Table of the rows to learn from (.csv or .parquet), below `root`."""
    encoding: str | None = None
    """Of CSV tables, such as cp1252; None: UTF-8, or UTF-16 where the file begins with its mark."""
    separator: str | None = None
    """Between the cells of CSV tables (`tab` is one); None: found in the header."""
    test_table: str = "test.csv"
    """Table of the rows to predict. May be absent: the run then ends with out-of-fold results."""
    train_pictures: str = "train_val"
    """Folder of `<id>.jpg` (or .png, .webp, .tif, ...) of the training rows; empty: no pictures are used."""
    test_pictures: str = "test"
    """Folder of the test rows' pictures."""
    bit_depth: int | None = None
    """Bits in use of pictures with 16 bits that do not say it themselves (8, 10, 12, 14, 16); None: the fewest that
    hold all their values."""
    background: tuple[int, ...] = WHITE
    """What transparent pictures are laid on: red, green and blue, from 0 to 255."""
    max_pixels: int = MAX_PICTURE_PIXELS
    """Of a picture; larger ones are refused unread."""
    target: str = "views"
    """Column to predict: a number, zero or larger, or a class."""
    task: Literal["auto", "regression", "classification"] = "auto"
    """Whether the target is a number or a class; auto: a class where most cells are no numbers. Without a training
    table the folders of pictures are classes: root/<class>/*.png."""
    id_column: str = "id"
    """Column that names a row, and its picture."""
    text_columns: tuple[str, ...] = ("title", "description")
    """Columns joined, in this order, into the text; empty: no text is used."""
    date_column: str | None = "date"
    """Column with the date from which the age in years is taken; None: no age."""
    numeric_columns: tuple[str, ...] = ()
    """Further numbers that join the age in its head; an empty cell counts as missing (the median stands for it).
    `yt_link_count`, `url_count` and `has_yt_link` are made from the
    text where the table has no such column."""
    group_column: str | None = None
    """Rows with the same value here stay on one side of a fold (`folds.kind=grouped`)."""
    fold_column: str | None = None
    """The user's own folds, from 0; -1 marks rows that always train, -2 the blend set (`folds.kind=predefined`)."""
    near_duplicates: bool = False
    """Look also for rows with nearly the same picture (saved again, resized, slightly cropped, mirrored) or text: each
    picture is decoded once before the run starts."""
    reference_date: str | None = None
    """Date from which ages are counted; None: the newest training row of the fold. Never today."""
    clean_text: bool = True
    """Replace links in texts by [YT_LINK] and [URL]."""
    max_rows: int | None = None
    """Learn from the first so many rows of the training table only."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a training row that cannot be used: stop, or go on without it and list it."""

    @property
    def folder(self) -> Path:
        """`root`, once the inventory knows it."""
        assert self.root is not None
        return Path(self.root)

    @property
    def picture_rules(self) -> PictureRules:
        """What files of pictures do not say."""
        return PictureRules(self.bit_depth, self.background, self.max_pixels)

    @property
    def table_format(self) -> TableFormat:
        """What tables do not say."""
        return TableFormat(self.encoding, self.separator)

    def __post_init__(self) -> None:
        self.picture_rules, self.table_format  # noqa: B018  (they check their fields)
        check_number("data.max_rows", self.max_rows, least=1, instead="none")
        inputs = {*self.text_columns, *self.numeric_columns, self.date_column}
        if both := sorted(name for name in {self.target, self.fold_column} & inputs if name is not None):
            raise ValueError(
                f"column {both[0]!r} is data.target or data.fold_column, and an input: expected one of both; take it "
                "out of data.text_columns, data.numeric_columns or data.date_column"
            )
        if not (self.train_pictures or self.text_columns or self.date_column or self.numeric_columns):
            raise ValueError(
                "no data.train_pictures, data.text_columns, data.date_column or data.numeric_columns: expected at "
                "least "
                "one input; set one of them"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The encoders and the heads on them."""

    clip: str = "ViT-L-14"
    """Name of an open_clip model, or of one in `trainers/clip_regression/model_configs/`."""
    pretrained: str | None = None
    """open_clip weight tag (`openai`, `laion2b_s32b_b82k`, ...) or a weights file; None: random weights."""
    quick_gelu: bool | None = None
    """Whether the weights were trained with QuickGELU, as OpenAI's were; None: as the tag says (a file does not say).
    """
    freeze: bool = True
    """Keep the encoders as they are and train only the heads."""
    allow_random_frozen: bool = False
    """Permit `freeze` without weights (for speed tests: random features)."""
    hidden_dim: int = 256
    """Width of the hidden layer of each head; 0: a linear head."""
    dropout: float = 0.1
    """Dropout before each head's last layer."""
    num_age_bins: int = 32
    """Quantile bins of the piecewise-linear encoding of each number."""
    token_dropout: float = 0.0
    """Share of a training text's tokens that is blanked at random, drawn anew for each row and epoch."""

    def __post_init__(self) -> None:
        if self.freeze and not self.pretrained and not self.allow_random_frozen:
            raise refuse(
                "model.pretrained",
                self.pretrained,
                "weights with model.freeze=true; set model.pretrained=openai, or model.freeze=false, or "
                "model.allow_random_frozen=true to train on random features",
            )
        for name in ("dropout", "token_dropout"):
            check_number(f"model.{name}", getattr(self, name), least=0, below=1, unit="a share")
        check_number("model.num_age_bins", self.num_age_bins, least=1)
        check_number("model.hidden_dim", self.hidden_dim, least=0)


@dataclass(frozen=True)
class TrainingConfig(TrainingSection):
    """How long and in which portions."""

    horizontal_flip: bool = True
    """Flip half of the training pictures, drawn anew for each row and epoch. Never validation or test pictures."""
    ema_decay: float = 0.0
    """Above 0: validate and save an exponential moving average of the weights with this decay."""
    picture_cache_gib: float = 16.0
    """Decoded pictures are kept below `run.storage`, for all folds, epochs, members and runs, if all of a run fit into
    this size; else each is decoded whenever it is needed. (Frozen encoders need each once.)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("training.ema_decay", self.ema_decay, least=0, below=1)


@dataclass(frozen=True)
class FeaturesConfig:
    """What frozen encoders make of a row is computed once and kept below `run.storage` for all folds, epochs, members
    and runs."""

    cache: bool = True
    """false: frozen encoders run again for each row in each epoch."""
    num_views: int = 2
    """Versions of a training row that are encoded if it is to be augmented: a picture as it is and flipped (there are
    no more), a text as it is and with other tokens blanked in each further version. 1: rows are not augmented."""

    def __post_init__(self) -> None:
        check_number("features.num_views", self.num_views, least=1)


@dataclass(frozen=True)
class OptimizerConfig(OptimizerSection):
    """AdamW and its schedule."""

    lr: float = 1e-4
    """Peak learning rate."""
    weight_decay: float = 1e-2
    """Decoupled weight decay, on matrices only (not on biases, norms and the modality weights)."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised of numbers; `loss.py` has the formulas. Of classes it is the cross-entropy."""

    kind: Literal["mse", "msle", "rmsle", "weighted_mse"] = "mse"
    """mse: on the standardised log target."""
    weight_lambda: float = 1.0
    """weighted_mse: largest extra weight of rows with many views."""
    weight_ramp_fraction: float = 0.5
    """weighted_mse: share of all steps over which lambda rises from 0."""
    weight_center: float = 15.0
    """weighted_mse: log1p of the target at which half of the extra weight is reached."""


@dataclass(frozen=True)
class Config:
    """Everything that decides what a fold of this family learns."""

    PACKAGES: ClassVar = ("torchvision", "open_clip_torch", "timm", "pillow")
    SEED: ClassVar = "training.seed"
    NOT_TRAINED_BY: ClassVar = ("training.eval_batch_size", "training.picture_cache_gib", "data.max_pixels")
    ADVICE: ClassVar = ADVICE

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    @property
    def PREDICTS(self) -> str:  # noqa: N802 named as in the other families, where it is a constant
        """The kind of predictions; with `auto` that of the inventory's config is meant."""
        return "classes" if self.data.task == "classification" else "number"


def has_encoders(config: Config) -> bool:
    """Whether there is anything to encode."""
    return bool(config.data.train_pictures or config.data.text_columns)


def is_cached(config: Config) -> bool:
    """Whether this config trains on features of frozen encoders."""
    return config.model.freeze and config.features.cache and has_encoders(config)
