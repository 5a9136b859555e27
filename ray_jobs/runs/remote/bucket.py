"""The objects of a run in object storage, by their names below the run's URI. Knows nothing of what is in them.

All that it asks of a storage is `Objects` of `trainers/storage/objects.py`: get, put on a condition, list, look,
delete, and whether the bucket is there. Whoever has other objects than a server's gives them to `Bucket`, or puts
another `open_objects` into this module.

Whatever the storage refuses is an OSError that the folds wait for, as for a disk that is away.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray_jobs.errors import StorageError
from trainers.storage.object_storage import WHAT_TO_CHECK, split_uri
from trainers.storage.objects import NoConditionsError, Objects, Stored, Version, open_objects
from trainers.storage.whole_files import appearing_whole

_AT_ONCE = 8
_TRIES, _PAUSE_S = 3, 0.3  # of what was listed and is being replaced
_PATIENCE_S = 1.0  # of one request; the run's own patience comes on top


class Bucket:
    """Objects below a URI; each appears whole. May be used by several threads.

    Args:
        uri: `s3://bucket/prefix`.
        objects: what is there; None: what `open_objects` finds.

    Raises:
        StorageError: the URI is malformed.
    """

    def __init__(self, uri: str, objects: Objects | None = None) -> None:
        self.uri = uri.rstrip("/")
        try:
            self.objects = objects or open_objects(self.uri, _PATIENCE_S)
        except ValueError as error:
            raise StorageError(str(error)) from None

    def check(self) -> None:
        """Raises StorageError, which says what to do, where the bucket cannot be read."""
        try:
            is_there = self.objects.exists()
        except OSError as error:
            raise StorageError(self.advise(error)) from None
        if not is_there:
            raise StorageError(
                f"run.storage={self.uri}: no such bucket {split_uri(self.uri)[1]!r}; create it, or set run.storage to "
                "another"
            )

    def advise(self, error: Exception) -> str:
        """What to do about a storage that refuses."""
        what = f"{error.filename} cannot be used: {error.strerror}" if isinstance(error, OSError) else error
        return f"{what}. {WHAT_TO_CHECK}; they must allow to list, read, write and delete"

    def list(self, below: str = "") -> dict[str, int]:
        """{name: bytes} of all objects, or of those below a folder."""
        return {name: stored.size for name, stored in self.objects.list(below).items()}

    def measure(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        stored = self.objects.look(name)
        return None if stored is None else stored.size

    def read(self, name: str) -> bytes:
        """An object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.read_version(name)[0]

    def read_version(self, name: str) -> tuple[bytes, Version]:
        """An object, and what tells it from those that will have its name.

        Raises:
            FileNotFoundError: there is none.
        """
        content = io.BytesIO()
        version = self.objects.get(name, content).version
        return content.getvalue(), version

    def find(self, name: str) -> bytes | None:
        """An object; None where there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes | Path) -> Version:
        """Puts an object, whole."""
        return self.objects.put(name, content)

    def replace(self, name: str, content: bytes | Path, known: Version) -> Version:
        """Puts an object over the one that is known, or where none is (`ABSENT`); over any where the storage knows no
        conditions.

        Raises:
            ChangedError: another is there, or none. Nothing was put.
        """
        try:
            return self.objects.put(name, content, only_if=known)
        except NoConditionsError:
            return self.write(name, content)

    def download(self, name: str, path: Path) -> Version:
        """Makes a file of an object appear whole.

        Raises:
            FileNotFoundError: there is none.
        """
        with appearing_whole(path) as file:
            return self.objects.get(name, file).version

    def delete(self, names: Iterable[str]) -> None:
        """Removes objects, in this order; one that is not there is no error."""
        for name in names:
            self.objects.delete(name)

    def look(self, name: str) -> Stored | None:
        """An object without its content; None where there is none."""
        return self.objects.look(name)


def do_all(do: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Does it for each item, several at once; the first error ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(do, items):
            pass


def read_steadily(read: Callable[[], Any]) -> Any:
    """Reads what consists of several objects; once more where one was replaced between listing and reading."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(FileNotFoundError):
            return read()
        time.sleep(_PAUSE_S)
    return read()
