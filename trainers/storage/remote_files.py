"""Files in object storage as a model family reads them: listed, read, and kept on this machine by their content.

Whoever reads an object leaves a copy at `<copies>/<first two digits>/<hash of its content>`, so that a later pass, fold
or run on the same machine (or on any, where the folder is shared) need not fetch it again; as long as the disk has room
to spare. A copy counts only if its content still has that hash.

Refuses what is wrong with the place or the keys at once; waits PATIENCE_S for a network that is away.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trainers.interface import DataError
from trainers.storage.object_storage import NO_ANSWER, WHAT_TO_CHECK
from trainers.storage.objects import PATIENCE_S, Objects, RefusedError, Stored, open_objects

DIGEST_BYTES = 16
THREADS = 32  # reading one small object is waiting for the network
SPARE_BYTES = 2 * 2**30  # no copy takes the last of a disk: checkpoints come first


@dataclass(frozen=True)
class RemoteFile:
    """An object as it was when it was looked at; what of a `Path` the readers of pictures need.

    Attributes:
        uri: of the object.
        digest: of its content, DIGEST_BYTES.
        copies: folder of copies.
    """

    uri: str
    digest: bytes
    copies: Path

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """Its last part."""
        return self.uri.rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """The content, from a copy if there is one.

        Raises:
            OSError: the storage has not given it for PATIENCE_S.
            DataError: the object has changed.
        """
        with suppress(OSError):
            content = place_copy(self.copies, self.digest).read_bytes()
            if hash_content(content) == self.digest:
                return content
        content = read_object(self.uri)
        if hash_content(content) != self.digest:
            raise DataError(
                f"{self.uri} was changed while the run works; put the old object back, or use another run.name"
            )
        keep_copy(self.copies, self.digest, content)
        return content


def hash_content(content: bytes) -> bytes:
    """What a copy is named after."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def place_copy(copies: Path, digest: bytes) -> Path:
    """Where the copy of a content lies."""
    return copies / digest.hex()[:2] / digest.hex()


def keep_copy(copies: Path, digest: bytes, content: bytes) -> None:
    """Leaves a copy where there is room; without one the object is fetched again. It is not synced: a torn one has
    another hash."""
    path = place_copy(copies, digest)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(copies).free > SPARE_BYTES + len(content):
            try:
                temporary.write_bytes(content)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)


def read_all(files: Sequence[Path | RemoteFile | None]) -> list[bytes | None]:
    """The contents, None where there is no file; objects many at a time.

    Raises:
        OSError, DataError: one cannot be read.
    """
    if not any(isinstance(file, RemoteFile) for file in files):
        return [None if file is None else file.read_bytes() for file in files]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda file: None if file is None else file.read_bytes(), files))


def read_object(uri: str, patience_s: float = PATIENCE_S) -> bytes:
    """An object's content.

    Raises:
        FileNotFoundError: there is none.
        OSError: the storage has not given it for `patience_s`.
        DataError: the storage refuses to.
    """
    content = io.BytesIO()
    with _asking(uri, patience_s) as (objects, name):
        objects.get(name, content)
    return content.getvalue()


def put_object(uri: str, content: bytes, patience_s: float = PATIENCE_S) -> None:
    """Writes an object; it appears whole.

    Raises:
        OSError, DataError: as `read_object`.
    """
    with _asking(uri, patience_s) as (objects, name):
        objects.put(name, content)


def find_object(uri: str) -> Stored | None:
    """Size and time of an object; None: there is none.

    Raises:
        OSError, DataError: as `read_object`.
    """
    with _asking(uri) as (objects, name):
        return objects.look(name)


def list_objects(folder: str, patience_s: float = PATIENCE_S) -> dict[str, Stored]:
    """The objects right below a folder, by name; none where there is no such folder.

    Raises:
        OSError, DataError: as `read_object`.
    """
    with _asking(f"{folder}/", patience_s) as (objects, _):
        return objects.list(deep=False)


def bucket_exists(uri: str) -> bool:
    """Whether the bucket of a place is there, as far as these keys may ask."""
    try:
        return open_objects(uri).exists()
    except OSError:
        return True


@contextmanager
def _asking(uri: str, patience_s: float = PATIENCE_S) -> Iterator[tuple[Objects, str]]:
    """The objects of a URI's folder, and the name in it."""
    folder, _, name = uri.rpartition("/")
    try:
        yield open_objects(folder, patience_s), name
    except FileNotFoundError:
        raise
    except ValueError as error:  # of a malformed place
        raise DataError(str(error)) from None
    except RefusedError as error:
        raise DataError(f"{error.filename}: the storage refuses: {error.strerror}. {WHAT_TO_CHECK}") from None
    except OSError as error:
        what = f"object storage has not answered for {patience_s:g} s: {error.strerror}"
        raise OSError(NO_ANSWER, what, error.filename) from None
