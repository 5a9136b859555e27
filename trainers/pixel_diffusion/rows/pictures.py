"""The pictures of a table as arrays: decoded once into files that all folds, members and runs of a storage share and
map into memory.

Shape suffixes: B pictures, N rows, C colours, H height, W width.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trainers.interface import DataError, FoldContext, Split
from trainers.pixel_diffusion.config import DataConfig
from trainers.pixel_diffusion.rows.rows_file import Rows
from trainers.pixel_diffusion.rows.scan import digest_picture
from trainers.pixel_diffusion.rows.squares import read_square
from trainers.reading.data_folder import name_view
from trainers.reading.picture_files import load_decoders
from trainers.reading.pictures import UnusableError
from trainers.storage.row_blocks import Part, RowBlocks, fill, place_remotely

COLOURS = 3


class Pictures:
    """The rows of a table, and their pictures.

    Args:
        rows: of the table.
        data: how they are read.
        context: of the fold.
    """

    def __init__(self, rows: Rows, data: DataConfig, context: FoldContext) -> None:
        self.rows, self.data, self.context = rows, data, context
        seen = {"size": data.size, "background": list(data.background), "bit_depth": data.bit_depth}
        folder = context.cache / "squares" / name_view(seen, {})
        shape = (COLOURS, data.size, data.size)
        remote = place_remotely(folder, context)
        self.blocks = RowBlocks(folder, rows.digests_NK, shape, np.uint8, remote)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions_B: np.ndarray) -> np.ndarray:
        """These pictures, (B, C, H, W) uint8."""
        return self.blocks.take(positions_B)

    def decode(self, positions_B: np.ndarray) -> tuple[np.ndarray, list[str | None]]:
        """From their files, as `Part` wants them.

        Raises:
            DataError: one is not the picture that was checked.
        """
        with ThreadPoolExecutor(self.context.num_threads) as pool:
            squares = list(
                pool.map(self._read, [self.rows.paths[place] for place in positions_B.tolist()], positions_B)
            )
        return np.stack(squares), [None] * len(squares)

    def _read(self, path: str, place: int) -> np.ndarray:
        try:
            content = Path(path).read_bytes()
            if digest_picture(content) == self.rows.digests_NK[place].tobytes():
                return read_square(content, self.data.size, self.data.picture_rules)
            found = "has another content"
        except (OSError, UnusableError) as error:
            found = str(error)
        raise DataError(f"{path} was changed since the run began: it {found}; put it back, or begin another run")


def open_pictures(tables: dict[str, Rows], data: DataConfig, split: Split, context: FoldContext) -> dict[str, Pictures]:
    """The pictures of tables, decoded where nobody has done so; every fold does a part."""
    load_decoders()
    opened = {name: Pictures(rows, data, context) for name, rows in tables.items()}
    fill([Part(one.blocks, one.decode) for one in opened.values()], "decoding", split, context)
    return opened
