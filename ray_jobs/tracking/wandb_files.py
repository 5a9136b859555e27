"""W&B's local `.wandb` files: what they hold, and cutting off what a kill left half-written.

A file begins with a header of 7 bytes; then come blocks of 32 KiB (counted from the file's start) of LevelDB's log
format: chunks of crc32 (4 bytes), length (2) and kind (1: whole record, 2: first, 3: middle, 4: last part of one),
little-endian; less than 7 bytes at a block's end are padding. A record is a protobuf message (wandb_internal.proto).
https://github.com/google/leveldb/blob/main/doc/log_format.md"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER_BYTES, _BLOCK_BYTES = 7, 32 * 1024
_CHUNK = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class WandbFile:
    """What a `.wandb` file holds.

    Attributes:
        num_rows: history rows.
        last_step: step of the last of them; -1: none.
    """

    num_rows: int
    last_step: int


def read_wandb_file(path: Path) -> WandbFile:
    """Reads a `.wandb` file up to its last whole record."""
    # wandb is loaded by those who need it.
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # made by protoc

    num_rows, last_step = 0, -1
    for _, content in _records(path.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("history"):
            num_rows, last_step = num_rows + 1, record.history.step.num
    return WandbFile(num_rows, last_step)


def find_wandb_files(folder: Path, run_id: str, *, offline_only: bool = False) -> list[Path]:
    """The local files of a W&B run, oldest first; each session of a publisher has one."""
    kind = "offline-run" if offline_only else "*run"
    return sorted(folder.glob(f"{kind}-*-{run_id}/run-{run_id}.wandb"), key=lambda path: path.stat().st_mtime)


def repair_wandb_files(folder: Path, run_id: str) -> list[str]:
    """Cuts torn tails and removes files without a record, which would block `wandb sync`. Nobody may write them now.

    Returns:
        What was done, for people.
    """
    done = []
    for path in find_wandb_files(folder, run_id):
        end = _HEADER_BYTES
        for end, _ in _records(path.read_bytes()):  # noqa: B007
            pass
        torn = path.stat().st_size - end
        if end <= _HEADER_BYTES:
            shutil.rmtree(path.parent)
            done.append(f"removed {path.parent.name}: it held no record")
        elif torn:
            with path.open("r+b") as content:
                content.truncate(end)
            done.append(f"cut {torn} bytes of a torn record from {path.name}")
    return done


def mark_as_synced(folder: Path, run_id: str) -> None:
    """Lets `wandb sync` leave out the local files of a run whose rows the server is known to hold."""
    for path in find_wandb_files(folder, run_id):
        path.with_name(path.name + ".synced").touch()


def _records(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(end position, bytes) of each whole record; ends at the first chunk that is cut off or damaged."""
    position = _HEADER_BYTES
    parts: list[bytes] = []
    while True:
        left_in_block = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left_in_block < _CHUNK.size:
            position += left_in_block
        if position + _CHUNK.size > len(content):
            return
        checksum, length, kind = _CHUNK.unpack_from(content, position)
        body = content[position + _CHUNK.size : position + _CHUNK.size + length]
        if len(body) < length or kind not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or _checksum(kind, body) != checksum:
            return
        position += _CHUNK.size + length
        parts = [body] if kind in (_WHOLE, _FIRST) else [*parts, body]
        if kind in (_WHOLE, _LAST):
            yield position, b"".join(parts)


def _checksum(kind: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(bytes([kind])))
