from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from trainers.families import Advice


@dataclass(frozen=True)
class DataConfig:
    ROWS_FROM: ClassVar = ("root", "train_table", "test_table", "target", "id_column")

    root: str | None = None
    """Folder of the tables."""
    train_table: str = "train_val.csv"
    """Rows to learn from."""
    test_table: str = "test.csv"
    """Rows to predict."""
    target: str = "views"
    """Column to predict."""
    id_column: str = "id"
    """Column that names a row."""
    columns: tuple[str, ...] = ("date",)
    """Numbers; of a date its digits."""
    twins: str | None = None
    """Column by which rows are compared when leaks are looked for."""


@dataclass(frozen=True)
class ModelConfig:
    strength: float = 1.0
    """Of the ridge."""
    pause_s: float = 0.0
    """Before the only step."""


@dataclass(frozen=True)
class Config:
    PREDICTS: ClassVar = "number"
    PACKAGES: ClassVar = ("packaging",)
    NOT_TRAINED_BY: ClassVar = ()
    ADVICE: ClassVar = Advice(memory="use fewer columns", loss="use other columns")

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
