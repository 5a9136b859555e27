"""New pictures whose loss is to be measured: found, decoded once before anything is launched, and handed out in blocks.
No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from trainers.interface import DataError
from trainers.pixel_diffusion.config import Config, DataConfig
from trainers.pixel_diffusion.rows.listing import Listing, list_folder, list_rows
from trainers.pixel_diffusion.rows.scan import scan_pictures
from trainers.reading.picture_files import PICTURE_SUFFIXES, is_wanted

PLACES = "a picture, a folder of pictures, or one of folders of classes"


@dataclass(frozen=True)
class NewRows:
    """Pictures to predict.

    Attributes:
        path: the picture, or the folder.
        data: of the models; its root is this folder where it has the run's table.
        batch_rows: blocks of a multiple of so many rows are predicted with the bits that all together have.
    """

    PROBLEMS: ClassVar = "a class that the models do not know, and were predicted without it"

    path: Path
    data: DataConfig
    batch_rows: int

    def check(self) -> int:
        """Decodes every picture.

        Returns:
            How many there are.

        Raises:
            DataError: there is none, or some cannot be used.
        """
        listing = self._list()
        scan_pictures(replace(self.data, root=str(self.path), on_bad_row="error"), listing, "test")
        return len(listing.ids)

    def read(self, num_rows: int) -> Iterator[pa.Table]:
        """Ids, paths and classes (empty: none), in their order: columns id, picture and label."""
        listing = self._list()
        for start in range(0, len(listing.ids), num_rows):
            part = slice(start, start + num_rows)
            columns = {
                "id": listing.ids[part],
                "picture": list(map(str, listing.paths[part])),
                "label": listing.labels[part],
            }
            yield pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()})

    def _list(self) -> Listing:
        if self.data.table is not None:
            return list_rows(self.data)[1]
        if self.path.is_dir():
            return list_folder(self.path)
        return Listing([self.path.stem], [self.path], [""])


def find_new_rows(configs: Sequence[Config], place: Path) -> NewRows:
    """Finds the pictures.

    Args:
        configs: of the models that predict.
        place: a picture, a folder of pictures or of classes, or one with such a folder `data.test_pictures` in it; of
            runs with a table whose rows are divided by `data.split_column` a folder with that table.

    Raises:
        DataError: there is no picture.
    """
    data, place = configs[0].data, place.absolute()
    batch_rows = math.lcm(*(config.training.eval_batch_size for config in configs))
    if place.is_file() and is_wanted(place.name):
        return NewRows(place, data.without_table(), batch_rows)
    if not place.is_dir():
        found = "expected another file" if place.is_file() else "no such file"
        raise DataError(
            f"{place}: {found}; set --data to a picture that ends in {', '.join(PICTURE_SUFFIXES)}, or a folder of them"
        )
    if data.table is not None and data.split_column and (place / data.table).is_file():
        return NewRows(place, replace(data, root=str(place)), batch_rows)
    if data.test_pictures and (place / data.test_pictures).is_dir():
        place = place / data.test_pictures
    rows = NewRows(place, data.without_table(), batch_rows)
    if not list_folder(place).ids:
        raise DataError(f"{place} holds no picture; expected files that end in {', '.join(PICTURE_SUFFIXES)}")
    return rows
