"""The sections of a config that decide what a user's own trainer learns. Plain dataclasses: no torch, no pandas."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from trainers.families import Advice
from trainers.own_trainer.example import Options
from trainers.own_trainer.users_code.options import as_options
from trainers.reading.table_files import TableFormat

Task = Literal["auto", "regression", "classification"]


@dataclass(frozen=True)
class DataConfig:
    """Where the rows are and what their columns mean."""

    ROWS_FROM: ClassVar = (
        "root", "train_table", "test_table", "target", "id_column", "group_column", "time_column", "fold_column",
        "encoding", "separator", "on_bad_row",
    )  # fmt: skip

    root: str | None = None
    """The table of the rows to learn from (.csv, .parquet), or a folder that holds it. Without it the project makes
    data of its own."""
    train_table: str = ""
    """Its name, where `root` is a folder; empty: train.csv, train_val.csv or train.parquet, or the only table there."""
    test_table: str = ""
    """Table of the rows to predict, beside the other one or with its whole path; empty: test.csv or test.parquet, where
    `root` is a folder that holds one."""
    target: str = "price"
    """Column to predict."""
    id_column: str | None = None
    """Column that names a row; None: the number of the row in its table, from 0."""
    group_column: str | None = None
    """Rows with the same value here stay on one side of a fold (`folds.kind=grouped`)."""
    time_column: str | None = None
    """Dates or numbers by which rows are ordered (`folds.kind=time`)."""
    fold_column: str | None = None
    """The user's own folds, from 0; -1 marks rows that always train, -2 the blend set (`folds.kind=predefined`)."""
    encoding: str | None = None
    """Of CSV tables, such as cp1252; None: UTF-8, or UTF-16 where the file begins with its mark."""
    separator: str | None = None
    """Between the cells of CSV tables (`tab` is one); None: found in the header."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a training row without a target: stop, or go on without it and list it."""

    @property
    def table_format(self) -> TableFormat:
        """What tables do not say."""
        return TableFormat(self.encoding, self.separator)

    @property
    def roles(self) -> dict[str, str]:
        """The columns that are no features, each with the field that names it; the target is the first."""
        fields = ("target", "id_column", "group_column", "time_column", "fold_column")
        return {name: f"data.{one}" for one in fields if (name := getattr(self, one))}

    def __post_init__(self) -> None:
        self.table_format  # noqa: B018  (it checks its fields)
        others = (self.id_column, self.group_column, self.time_column, self.fold_column)
        if not self.target or self.target in others:
            raise ValueError(f"data.target={self.target!r}: expected the name of a column that is nothing else, too")


@dataclass(frozen=True)
class ModelConfig:
    """What is learned."""

    task: Task = "auto"
    """auto: regression, which wants a target of numbers. classification: any target, `--config-name=own_classifier`.
    """
    seed: int = 0
    """Of the random generators of Python, NumPy and torch, and of `fold.seed`; each fold derives its own."""
    source_sha256: str | None = None
    """SHA-256 of the function's source. It is found, not set: a run that is continued with a changed function says
    so."""

    def __post_init__(self) -> None:
        if self.task not in ("auto", "regression", "classification"):
            raise ValueError(f"model.task={self.task!r}: expected auto, regression or classification")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"model.seed={self.seed}: expected at least 0 and below {2**32}")


@dataclass(frozen=True)
class TrainerConfig:
    """Who trains a fold."""

    path: str | None = None
    """The function, or an estimator, as FILE.py:NAME or package.module:NAME; None: the example,
    trainers/own_trainer/example.py."""
    folder: str | None = None
    """Where the function runs, for relative paths, on machines that have this folder. It is found: where the command
    is typed."""


@dataclass(frozen=True)
class Config:
    """Everything that decides what a fold of this family learns."""

    PACKAGES: ClassVar = ()
    SEED: ClassVar = "model.seed"
    # A changed function is told when a run is continued, and not refused: its fields are `my`.
    NOT_TRAINED_BY: ClassVar = ("trainer.path", "trainer.folder", "model.source_sha256")
    CHANGES: ClassVar = {
        "model.source_sha256": "the function has changed since the run began: folds that are finished are kept as they "
        "are, and the others are trained by it as it is now. Another run.name begins anew"
    }
    USES_SEVERAL_GPUS: ClassVar = True  # the function may: all that its worker has are visible to it
    ADVICE: ClassVar = Advice(memory="let the function use less of it", loss="look at what the function has logged")

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    my: Any = field(default_factory=Options)

    def __post_init__(self) -> None:
        if isinstance(self.my, dict):
            is_example = self.trainer.path is None
            object.__setattr__(self, "my", Options(**self.my) if is_example else as_options(self.my))
        elif not dataclasses.is_dataclass(self.my):
            raise ValueError(f"my={self.my!r}: expected a dataclass of the function's own options")

    def __reduce__(self) -> Any:
        """Travels with the options' names and values: their class is in a file of the user's, which another process
        cannot import."""
        return Config, (self.data, self.model, self.trainer, dataclasses.asdict(self.my))

    @property
    def PREDICTS(self) -> str:  # noqa: N802 what other families have as a constant
        """The kind of predictions."""
        return "classes" if self.model.task == "classification" else "number"
