"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes, *, confirm: Callable[[], object] | None = None) -> None:
    """Writes a file that appears whole; arguments as in `appearing_whole`."""
    with appearing_whole(path, confirm=confirm) as file:
        file.write(content)


@contextlib.contextmanager
def appearing_whole(
    path: Path, *, ending: str = ".tmp", confirm: Callable[[], object] | None = None
) -> Iterator[BinaryIO]:
    """A file to write to that appears whole, if there is no error: temporary name, fsync, rename, fsync of the folder.

    Args:
        path: the file.
        ending: of the temporary name. What ends with .tmp below a run is removed when its next driver starts.
        confirm: called just before the rename; raises an error where this process may not write the file any more. A
            successor makes this fail first, then removes what is unfinished (`remove_unfinished`): whenever this
            process stands still, it never replaces what its successor has written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{ending}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if confirm is not None:
            confirm()
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # of a full disk only the number is known
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_unfinished(path: Path) -> None:
    """Removes what other processes were about to put in a file's place."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        left.unlink(missing_ok=True)
