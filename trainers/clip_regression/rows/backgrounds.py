"""The pictures of rows as people see them, small."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.rows_file import place_rows, read_pictures
from trainers.reading.pictures import UnusableError, decode_rgb
from trainers.storage.mapped_table import open_table
from trainers.storage.remote_files import read_all

_LONGEST = 256  # pixels of the longer side


def open_small_pictures(data: DataConfig, inputs: Path, table: str) -> Callable[[str], np.ndarray | None]:
    """A function of a row's id that gives its picture, (H, W, 3) uint8; None of a row without a usable one.

    Args:
        data: of the run, resolved.
        inputs: where its rows were written.
        table: train or test.
    """
    path = place_rows(inputs, data, table)
    position = {row_id: number for number, row_id in enumerate(open_table(path)["id"].to_pylist())}

    def show(row_id: str) -> np.ndarray | None:
        (content,) = read_all(read_pictures(path, np.array([position[row_id]])))
        if content is None:
            return None
        try:
            picture = decode_rgb(io.BytesIO(content), data.picture_rules)
        except UnusableError:
            return None
        picture.thumbnail((_LONGEST, _LONGEST))
        return np.asarray(picture)

    return show
