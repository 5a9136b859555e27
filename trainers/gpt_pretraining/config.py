"""The sections of a config that decide what a GPT learns. Plain dataclasses: no torch, no pandas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainers.families import Advice
from trainers.learning.config_sections import OptimizerSection, TrainingSection
from trainers.reading.table_files import TableFormat
from trainers.values import check_choice, check_number, refuse

END_OF_TEXT = "<|endoftext|>"
Separator = Literal["auto", "end_of_text", "line", "blank_line", "file"]
TokenizerKind = Literal["bpe", "bytes", "characters", "file"]


@dataclass(frozen=True)
class DataConfig:
    """Where the documents are. A row is a document."""

    ROWS_FROM: ClassVar = (
        "root",
        "train",
        "test",
        "separator",
        "text_column",
        "id_column",
        "max_rows",
        "encoding",
    )

    root: str | None = None
    """A file of documents, or the folder with them. Without it the project makes tales whose entropy is known."""
    train: str = ""
    """File or folder below `root` with the documents to learn from: .txt, .jsonl, .csv or .parquet, also packed (.gz).
    Empty: one that is named train, or all that there are."""
    test: str = ""
    """Likewise the documents that are only scored. Empty: one that is named test or valid. May be absent."""
    separator: Separator = "auto"
    """What ends a document of a text file: the words <|endoftext|>, a line, a blank line, or the file. auto: the words
    where they are found, else the file."""
    text_column: str = "text"
    """Of .jsonl and tables: the column with the text."""
    id_column: str | None = "id"
    """Their column with a document's name; where it is absent documents are numbered."""
    group_column: str | None = None
    """Their column with what is never split between folds, such as the author (`folds.kind=grouped`)."""
    fold_column: str | None = None
    """Their column with the user's own folds, from 0; -1 marks documents that always train, -2 the blend set
    (`folds.kind=predefined`)."""
    floor_column: str | None = None
    """Their column with a document's true entropy in nats, where it is known: losses are shown above it, too."""
    encoding: str | None = None
    """Of text files and CSV tables, such as cp1252; None: UTF-8."""
    near_texts: float = 0.5
    """Documents whose word 5-grams overlap by this Jaccard index are nearly the same: the report tells of them, and
    `folds.on_leak=group` keeps them in one fold. 0: they are not looked for, which saves a second or two for each
    megabyte."""
    max_megabytes: float = 64.0
    """Of a document; a larger one is a bad row."""
    max_rows: int | None = None
    """Learn from the first so many documents only."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a document that is empty, too large or not in its encoding: stop, or go on without it and list
    it."""

    def __post_init__(self) -> None:
        check_choice("data.separator", self.separator, ("auto", "end_of_text", "line", "blank_line", "file"))
        check_number("data.max_rows", self.max_rows, least=1, instead="none")
        check_number("data.near_texts", self.near_texts, least=0, most=1)
        check_number("data.max_megabytes", self.max_megabytes, above=0)
        if not self.text_column:
            raise refuse("data.text_column", self.text_column, "the name of a column")
        self.table_format  # noqa: B018  (it checks its fields)

    @property
    def table_format(self) -> TableFormat:
        """What a CSV table does not say."""
        return TableFormat(self.encoding, None)


@dataclass(frozen=True)
class TokenizerConfig:
    """How texts become tokens: the same for all folds and members, or neither losses nor averages could be compared."""

    kind: TokenizerKind = "bpe"
    """bpe: byte-level byte pair encoding, learned from the training documents; bytes; characters: those of the training
    documents; file: of `path`."""
    vocabulary: int = 4096
    """Of bpe: its size at most, the end of a text included."""
    path: str | None = None
    """Of file: a tokenizer.json, or a folder with one or with GPT-2's files (vocab.json or encoder.json, and merges.txt
    or vocab.bpe)."""
    learned_megabytes: float = 100.0
    """Of bpe: learned from so much of the training text at most, from its beginning."""

    def __post_init__(self) -> None:
        check_choice("tokenizer.kind", self.kind, ("bpe", "bytes", "characters", "file"))
        check_number("tokenizer.vocabulary", self.vocabulary, least=257)  # the bytes and the end of a text
        check_number("tokenizer.learned_megabytes", self.learned_megabytes, above=0)
        if (self.kind == "file") != (self.path is not None):
            raise refuse("tokenizer.path", self.path, "a place with tokenizer.kind=file, and none with another kind")


@dataclass(frozen=True)
class ModelConfig:
    """GPT-2's decoder (Radford et al. 2019): norms before attention and layers, learned positions, tied embedding."""

    width: int = 512
    """Numbers that stand for a token."""
    layers: int = 6
    """Blocks of attention and feed-forward layers."""
    heads: int = 8
    """Of each attention."""
    context: int = 1024
    """Tokens that the model sees at most."""
    dropout: float = 0.0
    """After embedding, attention and both projections. 0 for much text."""
    gelu: Literal["tanh", "exact"] = "tanh"
    """tanh: the approximation of GPT-2's published weights; exact: with the error function, as in nanoGPT."""
    bias: bool = True
    """Whether linear layers and norms have a bias, as GPT-2's have."""
    pad_vocabulary: int = 1
    """Rows of the embedding are filled up to a multiple of this, such as 64 for a GPU; they are in no softmax."""
    pretrained: str | None = None
    """Folder with a GPT-2 in Hugging Face form (model.safetensors and config.json) to begin with."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "pad_vocabulary"):
            check_number(f"model.{name}", getattr(self, name), least=1)
        check_number("model.context", self.context, least=2)
        check_number("model.dropout", self.dropout, least=0, below=1, unit="a share")
        check_choice("model.gelu", self.gelu, ("tanh", "exact"))
        if self.width % self.heads:
            raise refuse("model.heads", self.heads, f"a divisor of model.width={self.width}")


@dataclass(frozen=True)
class TrainingConfig(TrainingSection):
    """How long and in which portions."""

    epochs: int = 10
    """Passes over the fold's training documents."""
    steps: int | None = None
    """Optimiser steps instead of epochs."""
    batch_size: int = 32
    """Rows of one optimiser step, windows or documents, over all workers of the fold together."""
    rows_at_once: int | None = None
    """Of these, rows of one forward pass on each worker: gradients are added up. Less memory, the same experiment.
    None: all."""
    eval_batch_size: int = 32
    """Windows of one forward pass when documents are scored, on each worker."""
    packing: Literal["stream", "document"] = "stream"
    """stream: documents in a new order each epoch, one after the other, cut into windows of `model.context` tokens.
    document: each row begins with a document, the rest of it is padded; better where documents are short."""
    evaluate_every: int | None = None
    """Also score the validation documents after so many steps."""
    ema_decay: float | None = None
    """Of a moving average of the weights, which is scored and saved in their place."""
    loss_tokens: int = 8192
    """Tokens whose logits are in memory at the same time while the model learns."""
    compile: bool = False
    """Compile the model (torch.compile), on GPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "rows_at_once", "evaluate_every"):
            check_number(f"training.{name}", getattr(self, name), least=1, instead="none")
        check_number("training.loss_tokens", self.loss_tokens, least=1)
        check_number("training.ema_decay", self.ema_decay, above=0, below=1, instead="none")
        check_choice("training.packing", self.packing, ("stream", "document"))


@dataclass(frozen=True)
class OptimizerConfig(OptimizerSection):
    """AdamW and its schedule. The defaults are GPT-2's as nanoGPT has them."""

    lr: float = 6e-4
    """Peak learning rate."""
    weight_decay: float = 0.1
    """How strongly matrices are drawn to zero; norms and biases are not."""
    beta1: float = 0.9
    """Memory of the mean of the gradients."""
    beta2: float = 0.95
    """Memory of their squares; 0.99 for few tokens a step."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warm-up."""
    min_lr_fraction: float = 0.1
    """Of the cosine: the share of the peak at which it ends."""
    warmup_fraction: float = 0.05
    """Share of all steps over which the learning rate rises linearly from 0."""
    warmup_steps: int | None = None
    """Steps of the warm-up instead of a share; at most half of a run's."""
    max_grad_norm: float = 1.0
    """Above 0: gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("optimizer.warmup_steps", self.warmup_steps, least=0, instead="none")
        for name in ("beta1", "beta2"):
            check_number(f"optimizer.{name}", getattr(self, name), least=0, below=1)


@dataclass(frozen=True)
class EvaluationConfig:
    """How a document is scored: alone, each of its tokens once."""

    stride: int | None = None
    """Of a document longer than `model.context`: by how many tokens the next window is further. Smaller: each token has
    more before it, and scoring takes longer. None: half of the context."""

    def __post_init__(self) -> None:
        check_number("evaluation.stride", self.stride, least=1, instead="none")


@dataclass(frozen=True)
class ShardingConfig:
    """What the workers of a fold divide, where it has several."""

    level: Literal["none", "zero1", "zero2", "zero3"] = "none"
    """none: each worker has everything (DDP). zero1: the optimiser's state is divided; zero2: gradients, too; zero3:
    weights, too."""
    group_size: int | None = None
    """Of zero2 and zero3: so many workers, such as those of a machine, divide them, and each such group has the whole
    (hybrid sharding). None, or workers that fill no whole groups: all of the fold are one group."""

    def __post_init__(self) -> None:
        check_choice("sharding.level", self.level, ("none", "zero1", "zero2", "zero3"))
        check_number("sharding.group_size", self.group_size, least=2, instead="none")
        if self.group_size is not None and self.level not in ("zero2", "zero3"):
            raise refuse("sharding.group_size", self.group_size, f"none with sharding.level={self.level}")


@dataclass(frozen=True)
class Config:
    """Everything that decides what a fold of this family learns."""

    PREDICTS: ClassVar = "token_losses"
    PACKAGES: ClassVar = ("tokenizers",)
    SEED: ClassVar = "training.seed"
    NOT_TRAINED_BY: ClassVar = ("training.eval_batch_size", "data.max_megabytes")
    ADVICE: ClassVar = Advice(
        memory="lower training.rows_at_once, training.loss_tokens or training.eval_batch_size",
        loss="lower optimizer.lr or set optimizer.max_grad_norm",
    )

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    sharding: ShardingConfig = field(default_factory=ShardingConfig)

    def __post_init__(self) -> None:
        stride, context = self.evaluation.stride, self.model.context
        if stride is not None and stride > context:
            raise refuse("evaluation.stride", stride, f"at most model.context={context}: no token may be left out")
        if self.training.ema_decay is not None and self.sharding.level in ("zero2", "zero3"):
            raise refuse(
                "training.ema_decay", self.training.ema_decay, f"none with sharding.level={self.sharding.level}"
            )

    @property
    def BEGINS_ALIKE(self) -> bool:  # noqa: N802 named as in the other families, where it is a constant
        """Whether the folds begin with the same weights."""
        return self.model.pretrained is not None

    @property
    def stride(self) -> int:
        """Tokens from window to window of a document that is scored."""
        return self.evaluation.stride or max(1, self.model.context // 2)
