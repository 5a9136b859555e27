"""The schema of files of predicted maps: a row of a table each, its probabilities and its true classes as PNG pictures
within.

| column        | meaning |
|---|---|
| id, member, repeat, fold, checkpoint, in_sample | as in files of numbers, see `predictions.py` |
| channels, height, width | of the map |
| probability   | PNG, 8 bits, the channels one below the other: byte b stands for probabilities from b/256 to
                (b+1)/256, so 128 and above is a half and above |
| target        | PNG, 8 bits: the true class of each place, 255 where it counts nowhere; null where it is unknown |

Shape suffixes: M models, C channels, H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from ensemble.predictions import SCHEMA, PredictionError, read_table

Image.preinit()  # else Pillow imports its modules when a thread first writes a picture
_KEPT = ("id", "member", "repeat", "fold", "checkpoint", "in_sample")
MAP_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in _KEPT),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("channels", "height", "width")),
        pa.field("probability", pa.binary(), nullable=False),
        pa.field("target", pa.binary()),
    ]
)
ROWS_AT_ONCE = 8


@dataclass(frozen=True)
class EncodedMap:
    """A row's map as a file holds it."""

    row_id: str
    shape: tuple[int, int, int]
    probability: bytes
    target: bytes | None


@dataclass(frozen=True)
class StoredMap:
    """A row's map as it is read: probabilities (C, H, W) float32 and, where they are known, true classes (H, W)
    uint8."""

    row_id: str
    fold: int
    probability_CHW: np.ndarray
    target_HW: np.ndarray | None
    member: str = "main"
    checkpoint: str = "best"


def encode_map(row_id: str, probability_CHW: np.ndarray, target_HW: np.ndarray | None) -> EncodedMap:
    """A map in 8 bits.

    Raises:
        PredictionError: a probability is NaN or not from 0 to 1.
    """
    if not ((probability_CHW >= 0) & (probability_CHW <= 1)).all():
        raise PredictionError(f"id {row_id!r}: probabilities are NaN or not from 0 to 1")
    channels, height, width = probability_CHW.shape
    levels = np.minimum(probability_CHW * 256, 255).astype(np.uint8).reshape(channels * height, width)
    return EncodedMap(
        row_id, (channels, height, width), to_png(levels), None if target_HW is None else to_png(target_HW)
    )


def decode_map(probability: bytes, channels: int) -> np.ndarray:
    """Probabilities of such a picture, (C, H, W) float32, each the middle of what its byte stands for."""
    levels = _from_png(probability)
    return ((levels.astype(np.float32) + 0.5) / 256).reshape(channels, -1, levels.shape[1])


def _from_png(content: bytes) -> np.ndarray:
    """What `to_png` has made, however large: `Image.open` takes more than 180 million pixels for an attack, which many
    classes have."""
    return np.asarray(PngImageFile(io.BytesIO(content)))


def build_map_table(maps: list[EncodedMap], *, fold: int, checkpoint: str, member: str = "main") -> pa.Table:
    """A table of one model's maps."""
    n = len(maps)
    columns = [
        pa.array([one.row_id for one in maps], pa.string()),
        pa.array([member] * n, pa.string()),
        pa.array([0] * n, pa.int32()),
        pa.array([fold] * n, pa.int32()),
        pa.array([checkpoint] * n, pa.string()),
        pa.array([False] * n),
        *(pa.array([one.shape[axis] for one in maps], pa.int32()) for axis in range(3)),
        pa.array([one.probability for one in maps], pa.binary()),
        pa.array([one.target for one in maps], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, schema=MAP_SCHEMA)


def read_maps(path: Path) -> Iterator[StoredMap]:
    """The maps of a file, a few in memory at a time.

    Raises:
        PredictionError: it is no such file.
    """
    try:
        file = pq.ParquetFile(path)
        if missing := [name for name in MAP_SCHEMA.names if name not in file.schema_arrow.names]:
            raise PredictionError(
                f"{path}: no column {', '.join(map(repr, missing))}; the table has "
                f"{', '.join(map(repr, file.schema_arrow.names))}; expected a file of maps"
            )
        for batch in file.iter_batches(ROWS_AT_ONCE):
            for row in batch.to_pylist():
                target = None if row["target"] is None else _from_png(row["target"])
                probability_CHW = decode_map(row["probability"], row["channels"])
                yield StoredMap(row["id"], row["fold"], probability_CHW, target, row["member"], row["checkpoint"])
    except (OSError, SyntaxError, ValueError, pa.ArrowInvalid) as error:
        raise PredictionError(f"{path} is missing or damaged: {error}") from None


def read_together(files: Sequence[Sequence[Path]]) -> Iterator[tuple[StoredMap, np.ndarray]]:
    """What M models say of the same rows, row by row in the first one's order: its map, and the probabilities of all,
    (M, C, H, W).

    A model whose rows have another order, as on another division of them, is held in memory as it is in its files.

    Args:
        files: of each model those that hold its rows, one after the other.

    Raises:
        PredictionError: they are no such files, or do not hold the same rows.
    """
    ids = [[row_id for path in paths for row_id in _read_ids(path)] for paths in files]
    for number, own in enumerate(ids):
        if own != ids[0] and (other := set(own) ^ set(ids[0]) or len(own) - len(ids[0])):
            raise PredictionError(f"the maps of model {number} are not of the rows of model 0: {other!s:.200}")
    others = [
        (one.probability_CHW for path in paths for one in read_maps(path))
        if own == ids[0]
        else _read_in_order(paths, ids[0])
        for own, paths in zip(ids[1:], files[1:], strict=True)
    ]
    for first, *more in zip((one for path in files[0] for one in read_maps(path)), *others, strict=True):
        yield first, np.stack([first.probability_CHW, *more])


def _read_ids(path: Path) -> list[str]:
    try:
        with pq.ParquetFile(path) as file:
            ids: list[str] = file.read(["id"])["id"].to_pylist()
            return ids
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise PredictionError(f"{path} is missing or damaged: {error}") from None


def _read_in_order(paths: Sequence[Path], ids: Sequence[str]) -> Iterator[np.ndarray]:
    stored: dict[str, tuple[bytes, int]] = {}
    for path in paths:
        table = read_table(path).select(["id", "probability", "channels"])
        stored |= {row["id"]: (row["probability"], row["channels"]) for row in table.to_pylist()}
    for row_id in ids:
        yield decode_map(*stored[row_id])


def to_png(values: np.ndarray) -> bytes:
    """A picture, (H, W) or (H, W, 3) uint8, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()
