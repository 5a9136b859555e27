"""The objects of a run in object storage, by their names below the run's URI. Knows nothing of what is in them.

Whatever the storage refuses becomes an OSError that the folds wait for, as for a disk that is away.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray_jobs.errors import StorageError
from trainers.storage.object_storage import NO_ANSWER, WHAT_TO_CHECK, open_place
from trainers.storage.whole_files import appearing_whole

_AT_ONCE = 8
_TRIES, _PAUSE_S = 3, 0.3  # of what was listed and is being replaced


class Bucket:
    """Objects below a URI; each appears whole. May be used by several threads.

    Args:
        uri: `s3://bucket/prefix`.

    Raises:
        StorageError: it is malformed.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        try:
            self.files, self.path = open_place(self.uri)
        except ValueError as error:
            raise StorageError(str(error)) from None

    def check(self) -> None:
        """Raises StorageError, which says what to do, where the bucket cannot be read."""
        from pyarrow.fs import FileType

        name = self.path.partition("/")[0]
        try:
            with self._as_os_errors(""):
                is_there = self.files.get_file_info(name).type != FileType.NotFound
        except OSError as error:
            raise StorageError(self.advise(error)) from None
        if not is_there:
            raise StorageError(
                f"run.storage={self.uri}: no such bucket {name!r}; create it, or set run.storage to another"
            )

    def advise(self, error: Exception) -> str:
        """What to do about a storage that refuses."""
        what = f"{error.filename} cannot be used: {error.strerror}" if isinstance(error, OSError) else error
        return f"{what}. {WHAT_TO_CHECK}; they must allow to list, read, write and delete"

    def list(self, below: str = "") -> dict[str, int]:
        """{name: bytes} of all objects, or of those below a folder."""
        from pyarrow.fs import FileSelector, FileType

        start = f"{self.path}/{below}".rstrip("/")
        with self._as_os_errors(below):
            found = self.files.get_file_info(FileSelector(start, allow_not_found=True, recursive=True))
        return {one.path[len(self.path) + 1 :]: one.size for one in found if one.type == FileType.File}

    def measure(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        from pyarrow.fs import FileType

        with self._as_os_errors(name):
            found = self.files.get_file_info(f"{self.path}/{name}")
        return found.size if found.type == FileType.File else None

    def read(self, name: str) -> bytes:
        """An object. pyarrow asks for its size first: of one that is replaced by a longer one then, it would give a
        part.

        Raises:
            FileNotFoundError: there is none.
        """
        while True:
            with self._as_os_errors(name), self.files.open_input_stream(f"{self.path}/{name}") as stream:
                content: bytes = stream.read()
            if self.measure(name) in (len(content), None):
                return content

    def find(self, name: str) -> bytes | None:
        """An object; None where there is none."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Puts an object, whole."""
        with self._as_os_errors(name), self.files.open_output_stream(f"{self.path}/{name}") as stream:
            stream.write(content)

    def upload(self, path: Path, name: str) -> None:
        """Puts a file."""
        to = f"{self.path}/{name}"
        with path.open("rb") as file, self._as_os_errors(name), self.files.open_output_stream(to) as stream:
            shutil.copyfileobj(file, stream, 1 << 22)

    def download(self, name: str, path: Path, num_bytes: int) -> None:
        """Makes a file of an object appear whole, which had so many bytes when it was listed.

        Raises:
            FileNotFoundError: it was removed or replaced meanwhile.
        """
        origin = f"{self.path}/{name}"
        with appearing_whole(path) as file, self._as_os_errors(name), self.files.open_input_stream(origin) as stream:
            shutil.copyfileobj(stream, file, 1 << 22)
            if file.tell() not in (num_bytes, self.measure(name)):
                raise FileNotFoundError

    def delete(self, names: Iterable[str]) -> None:
        """Removes objects, in this order; one that is not there is no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError), self._as_os_errors(name):
                self.files.delete_file(f"{self.path}/{name}")

    @contextlib.contextmanager
    def _as_os_errors(self, name: str) -> Iterator[None]:
        """pyarrow's errors, which have no number, as those of a storage that is away, with the object's URI."""
        uri = f"{self.uri}/{name}".rstrip("/")
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", uri) from None
        except OSError as error:
            if error.errno is not None and error.errno != errno.EIO:  # of the disk
                raise
            raise OSError(NO_ANSWER, f"{error}".partition(" (Request ID")[0], uri) from None


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
