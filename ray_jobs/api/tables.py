"""What a script gives as data, as a file that the same call finds again: named by its content, below the storage's
cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ray_jobs.errors import RunError
from trainers.interface import DataError
from trainers.own_trainer.config import DataConfig
from trainers.own_trainer.inventory import to_parquet
from trainers.own_trainer.table import find_train_table
from trainers.reading.tables import list_names, read_typed
from trainers.storage.object_storage import is_uri
from trainers.storage.whole_files import write_whole

GROUP, TIME, FOLD = "__group__", "__time__", "__fold__"  # columns for what a script gives as arrays


@dataclass
class ScriptTable:
    """A table of a script: where it lies, or what it holds.

    Attributes:
        place: the file, folder or URI; None: it was given as rows.
        added: columns that the script gives beside it.
    """

    place: str | None
    frame: pd.DataFrame | None = None
    added: dict[str, np.ndarray] = field(default_factory=dict)

    def read(self, data: DataConfig) -> pd.DataFrame:
        """The rows.

        Raises:
            DataError, RunError: it cannot be read here.
        """
        if self.frame is None:
            assert self.place is not None
            if is_uri(self.place):
                raise RunError(
                    f"data={self.place}: folds of a splitter and arrays need the rows here; give a DataFrame"
                )
            as_text = [data.id_column] if data.id_column else []
            path = find_train_table(replace(data, root=self.place))
            self.frame = read_typed(path, data.table_format, as_text=as_text)
        return self.frame

    def add(self, name: str, values: Any, what: str, data: DataConfig) -> str:
        """Takes in a column that is given beside the table; returns its name."""
        column = np.asarray(values)
        if column.shape != (len(frame := self.read(data)),):
            raise RunError(f"{what} has the shape {column.shape}: expected one value for each of the {len(frame)} rows")
        self.added[name] = column
        return name

    def settle(self, cache: Path, data: DataConfig) -> str:
        """The place of a file with all of it."""
        if self.place is not None and not self.added:
            return self.place
        frame = self.read(data)
        if clash := [name for name in self.added if name in frame]:
            raise RunError(f"the table has a column {clash[0]!r}: rename it")
        return str(write_by_content(frame.assign(**self.added), cache, "train"))


def open_table(data: Any, what: str = "data") -> ScriptTable:
    """What a script has given: a DataFrame, a Ray dataset, a path, or a URI.

    Raises:
        RunError: it is something else.
    """
    if isinstance(data, (str, os.PathLike)):
        place = os.fspath(data)
        return ScriptTable(place if is_uri(place) else str(Path(place).expanduser().absolute()))
    if type(data).__module__.startswith("ray.data"):
        data = data.to_pandas()
    if not isinstance(data, pd.DataFrame):
        raise RunError(
            f"{what} is a {type(data).__name__}: expected a DataFrame, a Ray dataset, or the path of a CSV or Parquet "
            "file or of a folder with one"
        )
    frame = data.reset_index() if data.index.name is not None and data.index.name not in data else data
    frame = _with_usual_types(frame.reset_index(drop=True))
    frame.columns = frame.columns.map(str)
    if frame.columns.has_duplicates:
        raise RunError(f"{what} has several columns of one name: {list_names(frame)}")
    return ScriptTable(None, frame)


def _with_usual_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of Arrow's types, as Ray Data gives them, as they are read from a file: lists of those cannot be."""
    of_arrow = [name for name, kind in frame.dtypes.items() if isinstance(kind, pd.ArrowDtype)]
    if not of_arrow:
        return frame
    table = pa.Table.from_pandas(frame[of_arrow], preserve_index=False).replace_schema_metadata(None)
    return frame.assign(**table.to_pandas())


def write_by_content(frame: pd.DataFrame, cache: Path, what: str) -> Path:
    """Writes a table below the cache, unless it is there.

    Raises:
        RunError: a column has values of several types.
    """
    try:
        content = to_parquet(frame, what)
    except DataError as error:
        raise RunError(str(error)) from None
    path = cache / "tables" / f"{hashlib.sha256(content).hexdigest()[:16]}.parquet"
    if not path.exists():
        write_whole(path, content)
    return path


def number_folds(
    splitter: Any, frame: pd.DataFrame, target: str, groups: Any, features: Sequence[str]
) -> tuple[np.ndarray, int]:
    """The fold that validates each row by a scikit-learn splitter, -1 where none does, (N,); and how many there are.

    Raises:
        RunError: two folds validate a row, or a fold does not train on all the rows that it does not validate.
    """
    fold_N = np.full(len(frame), -1)
    splits = list(splitter.split(frame[list(features)], frame[target], groups))
    name = type(splitter).__name__
    for fold, (train, validation) in enumerate(splits):
        if (twice := fold_N[validation] >= 0).any():
            raise RunError(
                f"{name} validates {twice.sum()} rows of fold {fold} in an earlier fold, too: expected a splitter that "
                "validates each row at most once, such as KFold"
            )
        if len(train) + len(validation) != len(frame):
            raise RunError(
                f"fold {fold} of {name} trains on {len(train)} rows and validates {len(validation)} of {len(frame)}: "
                "expected folds that train on all the rows that they do not validate; for rows in the order of time "
                "give time=... and an integer"
            )
        fold_N[validation] = fold
    return fold_N, len(splits)
