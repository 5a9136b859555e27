"""New rows to predict: found, checked before anything is launched, and read in blocks. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from trainers.interface import DataError
from trainers.own_trainer.config import Config, DataConfig
from trainers.own_trainer.inventory import ROW_ID
from trainers.own_trainer.table import find_test_table, find_train_table, read_rows
from trainers.reading.table_files import is_table_name

PLACES = "a table (.csv, .parquet) or a folder with one that is named test"


@dataclass(frozen=True)
class NewRows:
    """A table of rows to predict.

    Attributes:
        path: the table.
        data: what its columns mean.
        batch_rows: that are predicted together.
    """

    path: Path
    data: DataConfig
    batch_rows: int = 8192
    PROBLEMS: ClassVar = "a problem"

    @property
    def id_column(self) -> str:
        """The column of a block that holds the rows' ids."""
        return ROW_ID

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        """What the models may look at: each column but those of ids, target, groups, times and folds."""
        frame, _ = read_rows(self.path, self.data, is_test=True)
        return {str(name): (str(name),) for name in frame.columns if name not in self.data.roles}

    def check(self) -> int:
        """Reads all of it; returns the number of rows.

        Raises:
            DataError: it is no table, or its ids are not unique.
        """
        return len(read_rows(self.path, self.data, is_test=True)[1])

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """The table in blocks of rows, with their ids."""
        frame, ids = read_rows(self.path, self.data, is_test=True)
        table = pa.Table.from_pandas(frame.assign(**{ROW_ID: ids}), preserve_index=False)
        for start in range(0, len(table), num_rows):
            yield table.slice(start, num_rows)


def find_train_rows(config: Config) -> NewRows:
    """The run's own training table, as new rows."""
    return NewRows(find_train_table(config.data), config.data)


def find_new_rows(configs: Sequence[Config], place: Path) -> NewRows:
    """Finds the table.

    Args:
        configs: of the models that predict.
        place: a table, or a folder with one.

    Raises:
        DataError: there is no table.
    """
    data = configs[0].data
    path = place.absolute()
    if path.is_dir():
        found = find_test_table(replace(data, root=str(path), test_table=""))
        path = found if found is not None else path / "test.csv"
    if not path.is_file() or not is_table_name(path):
        raise DataError(f"{path}: no such file: expected a .csv or .parquet file, or a folder that holds test.csv")
    return NewRows(path, data)
