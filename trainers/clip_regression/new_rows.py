"""New rows to predict: found, checked before anything is launched, and read in blocks. Light: no torch.

No more of a table is in memory than a block, but for 8 bytes a row while ids are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from trainers.clip_regression.config import Config, DataConfig
from trainers.clip_regression.rows.problems import Problems, check_ids, check_unique
from trainers.clip_regression.rows.table import check_columns, check_one_picture, list_inputs, open_pictures
from trainers.interface import DataError
from trainers.reading.picture_files import PictureFolder
from trainers.reading.table_files import is_table_name
from trainers.reading.tables import check_lines, read_blocks
from trainers.storage.object_storage import is_uri

PLACES = "a table (.csv, .parquet) or a folder with one"
_ROWS_AT_ONCE = 8192
_MOST_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class NewRows:
    """A table of rows to predict, as several models read it.

    Attributes:
        path: the table.
        data: of each model; its root and test table are this table's.
        columns: that some model reads, in the table's order.
        batch_rows: blocks of a multiple of so many rows are predicted with the bits that the table has as a whole
            (unless models have batch sizes that agree only in tens of thousands of rows: then some rows' last digits
            differ).
        pictures: their folder, below the table's or anywhere; None: `data.test_pictures`.
    """

    PROBLEMS: ClassVar = (
        "a picture, a date or a number that cannot be used, and were predicted without it (mean colour, median)"
    )

    path: Path
    data: tuple[DataConfig, ...]
    columns: tuple[str, ...]
    batch_rows: int
    pictures: str | None = None

    @property
    def id_column(self) -> str:
        """The column of the rows' ids."""
        return self.data[0].id_column

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        """What the first model looks at: by name the columns of a block that hold it. Its picture a row finds by its
        id."""
        data = self.data[0]
        texts = tuple(name for name in data.text_columns if name in self.columns)
        dates = (data.date_column,) if data.date_column in self.columns else ()
        found: dict[str, tuple[str, ...]] = {"picture": (data.id_column,)} if data.train_pictures else {}
        found |= {"text (all columns)": texts} if len(texts) > 1 else {}
        numbers = (name for name in data.numeric_columns if name in self.columns)
        return found | {name: (name,) for name in (*texts, *dates, *numbers) if name is not None}

    def with_pictures(self, folder: Path) -> NewRows:
        """The same columns, with the pictures of a folder; for blocks whose ids name these."""
        return replace(self, pictures=str(folder))

    def check(self) -> int:
        """Reads the whole table and looks at its ids.

        Returns:
            How many rows it has.

        Raises:
            DataError: it cannot be read, has no rows, or ids that are missing, unsafe, there twice or with several
                pictures.
        """
        check_lines(self.path, self.data[0].table_format)
        fatal, hashes, num_rows = Problems(self.path), [], 0
        folders = self.open_folders()
        for ids in self._read_ids():
            check_ids(ids, fatal, num_rows)
            for folder in folders.values():
                check_one_picture(ids, folder, fatal, num_rows)
            hashes.append(pd.util.hash_array(ids, categorize=False))
            num_rows += len(ids)
        if not num_rows:
            raise DataError(f"{self.path} holds no row: expected rows below the header")
        self._check_unique(np.concatenate(hashes), fatal)
        if fatal.found:
            raise DataError(f"{self.path} cannot be used:\n{fatal.describe(num_rows)}\nCorrect the table")
        return num_rows

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """The table in blocks of text columns, in order."""
        for frame in read_blocks(self.path, num_rows, self.columns, self.data[0].table_format):
            fields = [pa.field(name, pa.string()) for name in frame.columns]
            yield pa.Table.from_pandas(frame, pa.schema(fields), preserve_index=False)

    def open_folders(self) -> dict[str, PictureFolder]:
        """The picture folders that some model needs, by `data.test_pictures`.

        Raises:
            DataError: one is not there.
        """
        named = {data.test_pictures: data for data in self.data if data.train_pictures}
        place = {name: self.pictures or name for name in named}
        opened = {name: open_pictures(data, place[name], self.path.name) for name, data in named.items()}
        return {name: folder for name, folder in opened.items() if folder is not None}

    def _read_ids(self) -> Iterator[np.ndarray]:
        for frame in read_blocks(self.path, _ROWS_AT_ONCE, self.columns, self.data[0].table_format):
            yield frame[self.data[0].id_column].to_numpy(object)

    def _check_unique(self, hash_N: np.ndarray, fatal: Problems) -> None:
        """Only rows with the hash of another are read again and compared."""
        values, counts = np.unique(hash_N, return_counts=True)
        is_suspect_N = np.isin(hash_N, values[counts > 1])
        if not is_suspect_N.any():
            return
        suspects, start = [], 0
        for ids in self._read_ids():
            suspects += ids[is_suspect_N[start : start + len(ids)]].tolist()
            start += len(ids)
        check_unique(suspects, np.flatnonzero(is_suspect_N).tolist(), fatal)


def find_train_rows(config: Config) -> NewRows:
    """The run's own training table, as new rows.

    Raises:
        DataError: the rows have no table, or are in object storage.
    """
    data = config.data
    assert data.root is not None
    if is_uri(data.root) or not data.train_table:
        raise DataError(f"data.root={data.root}: expected a folder on this machine with a table of training rows")
    as_new = replace(data, test_table=data.train_table)
    return replace(find_new_rows([replace(config, data=as_new)], Path(data.root)), pictures=data.train_pictures or None)


def find_new_rows(configs: Sequence[Config], place: Path) -> NewRows:
    """Finds the table and looks at its columns.

    Args:
        configs: of the models that predict.
        place: a table, whose folder holds the picture folder `data.test_pictures`; or a folder with `data.test_table`.

    Raises:
        DataError: there is no table, or it lacks columns.
    """
    first = configs[0].data
    if place.is_dir() and not first.test_table:
        raise DataError(
            f"--data={place} is a folder: expected a table, as the run has no data.test_table; name the table itself"
        )
    path = (place / first.test_table if place.is_dir() else place).absolute()
    if not path.is_file() or not is_table_name(path):
        raise DataError(
            f"{path}: {'expected another file' if path.is_file() else 'no such file'}; set --data to a .csv or "
            ".parquet file, or to a folder that holds "
            f"{first.test_table or 'one'}"
        )
    header = next(read_blocks(path, 1, given=first.table_format))
    placed = [replace(config.data, root=str(path.parent), test_table=path.name) for config in configs]
    for data in placed:
        check_columns(path, header, data, is_test=True)
    read = {name for data in placed for names in list_inputs(data).values() for name in names}
    read |= {name for data in placed for name in data.numeric_columns}
    columns = tuple(name for name in header.columns if name in read)
    sizes = [config.training.eval_batch_size for config in configs]
    batch_rows = math.lcm(*sizes)
    return NewRows(path, tuple(placed), columns, batch_rows if batch_rows <= _MOST_BATCH_ROWS else max(sizes))
