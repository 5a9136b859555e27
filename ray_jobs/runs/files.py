"""Files of a run: written whole or not at all.

A file is written under another name, synced and renamed. JSON that decides how a run goes on holds a checksum of
itself: a flipped bit must not become another config or position.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ensemble.predictions import PredictionError, read_table
from ray_jobs.config.json_fields import Record, from_json, to_json
from ray_jobs.errors import RunFolderError
from trainers.interface import FORMULA
from trainers.storage.whole_files import appearing_whole, sha256_file, write_whole

_CHECKSUM = "checksum"  # of a JSON file, in itself


def append_whole(file: int, content: bytes, path: Path) -> None:
    """Adds to an `O_APPEND` file in one write; a part that a full disk took is cut off again.

    Raises:
        OSError: the disk does not take it.
    """
    written = os.write(file, content)
    if written != len(content):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, f"only {written} of {len(content)} bytes could be written", str(path))


def write_json(path: Path, value: Any, *, checksum: bool = False, confirm: Callable[[], object] | None = None) -> None:
    """Writes JSON, whole.

    Args:
        path, confirm: as in `appearing_whole`.
        value: what JSON can hold.
        checksum: a mapping gets a checksum of itself, which `read_json` compares.
    """
    if checksum:
        value = {**value, _CHECKSUM: _hash_json(value)}
    write_whole(path, (json.dumps(value, indent=2) + "\n").encode(), confirm=confirm)


def read_json(path: Path, **default: Any) -> Any:
    """Reads JSON; with `default=...` a missing or damaged file gives that value.

    Raises:
        RunFolderError: the file is missing or no JSON or its checksum does not match, and no default was given.
    """
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict) and _CHECKSUM in value and value.pop(_CHECKSUM) != _hash_json(value):
            raise ValueError("its checksum does not match")
        return value
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError) as error:
        if default:
            return default["default"]
        raise RunFolderError(f"{path} is missing or damaged: {error}") from None


def write_record(path: Path, record: Any, *, checksum: bool = False) -> None:
    """Writes a dataclass as JSON, whole; arguments as in `write_json`."""
    write_json(path, to_json(record), checksum=checksum)


def read_record(path: Path, kind: type[Record]) -> Record:
    """Reads a dataclass from JSON.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        return from_json(kind, read_json(path))
    except (TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path} is missing or damaged: {error}") from None


def find_record(path: Path, kind: type[Record]) -> Record | None:
    """As `read_record`; None: the file is missing or damaged."""
    try:
        return read_record(path, kind)
    except RunFolderError:
        return None


def _hash_json(value: Mapping[str, Any]) -> str:
    """A checksum of what JSON makes of a mapping, whatever the order of its keys."""
    text = json.dumps(json.loads(json.dumps(value)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_parquet(path: Path, table: pa.Table) -> None:
    """Writes a Parquet table, whole."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def join_parquet(path: Path, parts: Sequence[Path]) -> None:
    """Makes a Parquet table of others, whole; a part is in memory at a time, and becomes a row group.

    Raises:
        RunFolderError: a part is missing or damaged.
    """
    with appearing_whole(path) as file, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for part in parts:
            table = read_parquet(part)
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)


def read_parquet(path: Path) -> pa.Table:
    """Reads a Parquet table.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    try:
        return read_table(path)
    except PredictionError as error:
        raise RunFolderError(str(error)) from None


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a CSV table, whole; floats with all their digits. What a spreadsheet would run gets an apostrophe before
    it; ids, which hold no formula, stay as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow(escape_formula(cell) if isinstance(cell, str) else cell for cell in row)
    write_whole(path, text.getvalue().encode())


def escape_formula(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet runs."""
    text = cell.replace("\r", " ")  # which Python before 3.13 does not quote
    return FORMULA.sub(lambda formula: f"{formula.group()[:-1]}'{formula.group()[-1]}", text)


def share_whole(source: Path, path: Path, sha256: str) -> None:
    """Makes a file of another folder appear here, too, without a copy where the file system can do that.

    Raises:
        RunFolderError: the file is not what its checksum says; it is removed, so that it will be made again.
        OSError: the storage does not take it.
    """
    if path.exists() and (path.samefile(source) or sha256_file(path) == sha256):
        return
    if sha256_file(source) != sha256:
        source.unlink()
        raise RunFolderError(f"{source} was damaged and is removed; the same command makes it again")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        with appearing_whole(path) as file, source.open("rb") as whole:
            shutil.copyfileobj(whole, file)
        return
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # where both names were the same file already, nothing was renamed
