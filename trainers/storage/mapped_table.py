"""Tables on disk that are opened without being read: a row's bytes come into memory when somebody looks at them, once
for all processes of a machine, and leave it when something else needs the room."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from trainers.storage.whole_files import appearing_whole


@contextlib.contextmanager
def new_table(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchWriter]:
    """A table to write batch by batch (`write_batch`, `write_table`), which appears whole if there is no error.

    Args:
        path: the file.
        schema: its columns; of long texts `pa.large_string()`.
    """
    with appearing_whole(path) as file, pa.ipc.new_file(file, schema) as writer:
        yield writer


def open_table(path: Path) -> pa.Table:
    """Such a table, mapped into memory.

    Raises:
        OSError: it is not there.
    """
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def link_file(source: Path, path: Path) -> None:
    """Makes a file appear under another name too, without a copy where the file system can do that.

    Raises:
        OSError: the storage does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        os.link(source, path)
        return
    with appearing_whole(path) as file, source.open("rb") as content:
        shutil.copyfileobj(content, file)
