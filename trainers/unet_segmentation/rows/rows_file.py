"""The checked pictures of a run: what the driver leaves to the folds, and how they read it back. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainers.interface import DataError
from trainers.reading.data_folder import name_view
from trainers.reading.picture_rules import WHITE
from trainers.reading.pictures import UnusableError
from trainers.storage.mapped_table import new_table
from trainers.unet_segmentation.config import DataConfig
from trainers.unet_segmentation.rows.pictures import (
    decode_mask,
    decode_picture,
    scale_mask,
    scale_picture,
    to_classes,
)

DIGEST_BYTES = 16
# 16 bits were read as a whole before bits in use were found; 8 says that there are none.
_LATER = {
    "mask_suffix": ("",),
    "ignore_value": (None,),
    "encoding": (None,),
    "separator": (None,),
    "bit_depth": (None, 8, 16),
    "background": (WHITE,),
}


@dataclass(frozen=True)
class Rows:
    """Pictures and, where there are any, their masks.

    Attributes:
        ids: (N,) str, their names without the ending.
        pictures, masks: (N,) paths; None: no mask.
        picture_digests, mask_digests: (N,) of the files' bytes; b"": no mask.
        height, width: (N,) of the pictures.
        sums_NC, squares_NC: of the pictures' values from 0 to 1, by channel.
        counts_NC: pixels of each class, without those that count nowhere.
    """

    ids: np.ndarray
    pictures: list[str]
    masks: list[str | None]
    picture_digests: list[bytes]
    mask_digests: list[bytes]
    height: np.ndarray
    width: np.ndarray
    sums_NC: np.ndarray
    squares_NC: np.ndarray
    counts_NC: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: np.ndarray) -> Rows:
        """Some of the rows."""
        chosen: dict[str, Any] = {}
        for name, values in vars(self).items():
            chosen[name] = (
                values[positions] if isinstance(values, np.ndarray) else [values[i] for i in positions.tolist()]
            )
        return Rows(**chosen)

    @property
    def foreground(self) -> np.ndarray:
        """(N,) share of the pixels that are not background."""
        share_N: np.ndarray = self.counts_NC[:, 1:].sum(1) / np.maximum(1, self.counts_NC.sum(1))
        return share_N


def place_rows(inputs: Path, data: DataConfig, table: str) -> Path:
    """Where the rows of a table (train or test) are below a run's folder of inputs, for those who read them by this
    config."""
    seen = {name: value for name, value in asdict(data).items() if name not in ("max_pixels", "near_duplicates")}
    return inputs / f"{table}-{name_view(seen, _LATER)}.arrow"


def write_rows(path: Path, rows: Rows) -> None:
    """Writes rows for the folds.

    Raises:
        OSError: the storage does not take it.
    """
    columns = {
        name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in vars(rows).items()
    }
    table = pa.table(columns)
    with new_table(path, table.schema) as writer:
        writer.write_table(table)


def read_rows(path: Path) -> Rows:
    """The rows of such a file.

    Raises:
        OSError: it is not there.
    """
    with pa.OSFile(str(path)) as file:
        columns: dict[str, Any] = pa.ipc.open_file(file).read_all().to_pydict()
    listed = ("pictures", "masks", "picture_digests", "mask_digests")
    rows: dict[str, Any] = {name: cells if name in listed else np.array(cells) for name, cells in columns.items()}
    return Rows(**rows)


def digest(content: bytes) -> bytes:
    """A hash of a file's bytes."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def read_picture(rows: Rows, row: int, data: DataConfig) -> np.ndarray:
    """A picture at the scale that is trained on, (C, H, W) uint8 or uint16.

    Raises:
        OSError: it cannot be read.
        DataError: it is not what was checked.
    """
    content = _read(rows.pictures[row], rows.picture_digests[row])
    return scale_picture(decode_picture(content, data.channels, data.picture_rules).values_CHW, data)


def read_mask(rows: Rows, row: int, data: DataConfig, *, scaled: bool) -> np.ndarray | None:
    """A mask of class numbers, (H, W) uint8, as large as its picture or at the scale that is trained on; None: there is
    none.

    Raises:
        OSError: it cannot be read.
        DataError: it is not what was checked.
    """
    mask = rows.masks[row]
    if mask is None:
        return None
    mask_HW = to_classes(decode_mask(_read(mask, rows.mask_digests[row]), data), data)
    return scale_mask(mask_HW, data) if scaled else mask_HW


def find_positions(rows: Rows, ids: Sequence[str]) -> np.ndarray:
    """Where these ids are among the rows, (n,)."""
    position = {row_id: index for index, row_id in enumerate(rows.ids.tolist())}
    return np.array([position[row_id] for row_id in ids], int)


def _read(path: str, known: bytes) -> bytes:
    content = Path(path).read_bytes()
    if digest(content) != known:
        raise DataError(f"{path} was changed while the run works; put the old one back, or use another run.name")
    return content


def show_picture(rows: Rows, row: int, data: DataConfig) -> np.ndarray:
    """A picture as it is, for a person: (H, W, 3) uint8, of 16 bits the range that it uses.

    Raises:
        OSError, DataError: as `read_picture`.
    """
    try:
        content = _read(rows.pictures[row], rows.picture_digests[row])
        return to_screen(decode_picture(content, 3, data.picture_rules).values_CHW)
    except UnusableError as error:
        raise DataError(f"{rows.pictures[row]} {error}") from None


def to_screen(picture_CHW: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a picture with three channels."""
    if picture_CHW.dtype == np.uint16:
        low, high = int(picture_CHW.min()), int(picture_CHW.max())
        picture_CHW = ((picture_CHW - low) * (255.0 / max(1, high - low))).astype(np.uint8)
    return np.ascontiguousarray(picture_CHW.transpose(1, 2, 0))
