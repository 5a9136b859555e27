"""TensorBoard's event files of a run, made from its metric records row by row (`tracking.tensorboard`). Loads no
TensorBoard. Used by the publisher process alone.

A record has one file, and a row is one event with all its numbers. So the whole events of a file say how many rows are
there: the publisher that comes after a killed one cuts off a torn event and goes on behind it, and no step is twice.

A file is a sequence of frames: length of the content (8 bytes, little-endian), its checksum, the content, its checksum.
The content is a protobuf message `Event`: wall_time = 1, step = 2, file_version = 3, summary = 5; a summary's values
are its field 1, each with tag = 1 and simple_value = 2.
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import RecordReader
from ray_jobs.tracking.wandb_runs import WandbRun

_NAME = "events.out.tfevents.0.kfold"
_FRAME_BYTES = 16  # around the content
_MOST = 3.4e38  # of a float of 32 bits


class BoardFile:
    """The event file of a record, in a folder that TensorBoard shows as a run.

    Args:
        folder: the run.
        spec: whose record it is; its key names the folder below `tensorboard/`.
    """

    def __init__(self, folder: RunFolder, spec: WandbRun) -> None:
        self.key, self.path = spec.key, folder.tensorboard / spec.key / _NAME
        num_events, end = count_events(self.path)
        if self.path.exists():
            os.truncate(self.path, end)
        # The first event names the version.
        self.reader = RecordReader(spec.record, max(0, num_events - 1))

    def publish_new(self) -> int:
        """Writes rows that have come; returns how many.

        Raises:
            OSError: the disk does not take them.
        """
        rows = self.reader.read_new()
        if rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if not file.tell():
                    file.write(_frame(_pack(3, b"brain.Event:2")))
                for row in rows:
                    file.write(_frame(encode_row(row)))
        return len(rows)

    def close(self) -> None:
        """Lets go of the record."""
        self.reader.close()


def count_events(path: Path) -> tuple[int, int]:
    """Whole events of a file, and the place behind the last one; none of a file that is not there."""
    number = end = 0
    if not path.exists():
        return number, end
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while len(header := file.read(12)) == 12 and header[8:] == _checksum(header[:8]):
            following = end + _FRAME_BYTES + struct.unpack("<Q", header[:8])[0]
            if following > size:
                break
            file.seek(following)
            number, end = number + 1, following
    return number, end


def encode_row(row: Mapping[str, Any]) -> bytes:
    """A row of a record as an event: its numbers, and true and false as 1 and 0. Texts, tables and pictures are left
    out, and what no float of 32 bits can hold."""
    values = b"".join(
        _pack(1, _pack(1, name.encode()) + b"\x15" + struct.pack("<f", value))
        for name, value in row.items()
        if name not in ("step", "global_step", "time") and isinstance(value, (int, float)) and abs(value) < _MOST
    )
    step = b"\x10" + _varint(row["global_step"])
    return b"\x09" + struct.pack("<d", row["time"]) + step + _pack(5, values)


def _frame(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _pack(field: int, content: bytes) -> bytes:
    """A field of bytes in a protobuf message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    groups = max(1, math.ceil(number.bit_length() / 7))
    parts = [number >> 7 * place & 0x7F for place in range(groups)]
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])


def _build_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [rest >> 1 ^ (0x82F63B78 if rest & 1 else 0) for rest in table]
    return table


_TABLE = _build_table()


def _checksum(content: bytes) -> bytes:
    """CRC-32C (Castagnoli), rotated and shifted as TensorFlow's records have it."""
    rest = 0xFFFFFFFF
    for byte in content:
        rest = _TABLE[(rest ^ byte) & 0xFF] ^ rest >> 8
    rest ^= 0xFFFFFFFF
    return struct.pack("<I", ((rest >> 15 | rest << 17) + 0xA282EAD8) & 0xFFFFFFFF)
