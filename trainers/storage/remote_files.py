"""Files in object storage as a model family reads them: listed, read with further tries, and kept on this machine by
their content.

Whoever reads an object leaves a copy at `<copies>/<first two digits>/<hash of its content>`, so that a later pass, fold
or run on the same machine (or on any, where the folder is shared) need not fetch it again; as long as the disk has room
to spare. A copy counts only if its content still has that hash.

Refuses what is wrong with the place or the keys at once; waits READ_PATIENCE_S for a network that is away.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# Here, because threads read objects, and a thread must not import anything.
from pyarrow.fs import FileInfo, FileSelector, FileSystem

from trainers.interface import DataError
from trainers.storage.object_storage import NO_ANSWER, WHAT_TO_CHECK, open_place

DIGEST_BYTES = 16
READ_RETRY_TIMEOUT_S = 60.0
THREADS = 16  # reading one small object is waiting for the network
SPARE_BYTES = 2 * 2**30  # no copy takes the last of a disk: checkpoints come first
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
# What no further try will mend, as pyarrow has it in its messages.
_REFUSALS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT|"
    r"MISSING_AUTHENTICATION|NO_SUCH_BUCKET|HTTP status 30\d|HTTP status 40[0-7]"
)
Result = TypeVar("Result")


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
            OSError: the storage has not given it for READ_PATIENCE_S.
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


def read_object(uri: str, patience_s: float = READ_RETRY_TIMEOUT_S) -> bytes:
    """An object's content.

    Raises:
        FileNotFoundError: there is none.
        OSError: the storage has not given it for `patience_s`.
        DataError: the storage refuses to.
    """
    folder, _, name = uri.rpartition("/")

    def read() -> bytes:
        files, path = _open(folder)
        with files.open_input_stream(f"{path}/{name}", compression=None) as stream:
            content: bytes = stream.read()
            return content

    return ask_storage(uri, read, patience_s)


def put_object(uri: str, content: bytes, patience_s: float = READ_RETRY_TIMEOUT_S) -> None:
    """Writes an object; it appears whole.

    Raises:
        OSError, DataError: as `read_object`.
    """
    folder, _, name = uri.rpartition("/")

    def put() -> None:
        files, path = _open(folder)
        with files.open_output_stream(f"{path}/{name}", compression=None) as stream:
            stream.write(content)

    ask_storage(uri, put, patience_s)


def find_object(uri: str) -> FileInfo | None:
    """Size and time of an object; None: there is none.

    Raises:
        OSError, DataError: as `read_object`.
    """
    folder, _, name = uri.rpartition("/")

    def find() -> FileInfo:
        files, path = _open(folder)
        return files.get_file_info(f"{path}/{name}")

    found = ask_storage(uri, find)
    return found if found.is_file else None


def list_objects(folder: str, patience_s: float = READ_RETRY_TIMEOUT_S) -> dict[str, FileInfo]:
    """The objects right below a folder, by name; none where there is no such folder.

    Raises:
        OSError, DataError: as `read_object`.
    """

    def find() -> list[FileInfo]:
        files, path = _open(folder)
        found: list[FileInfo] = files.get_file_info(FileSelector(path, allow_not_found=True))
        return found

    return {found.base_name: found for found in ask_storage(folder, find, patience_s) if found.is_file}


def bucket_exists(uri: str) -> bool:
    """Whether the bucket of a place is there, as far as these keys may ask."""
    files, path = _open(uri)
    try:
        return bool(files.get_file_info(path.partition("/")[0]).type.name != "NotFound")
    except OSError:
        return True


def ask_storage(uri: str, ask: Callable[[], Result], patience_s: float = READ_RETRY_TIMEOUT_S) -> Result:
    """Reads or writes, again and again while the network or the server is the cause that it fails.

    Raises:
        FileNotFoundError: what is asked for is not there.
        OSError: with a number that says "away", after `patience_s`.
        DataError: the keys or the place are refused.
    """
    began, pause_s = time.monotonic(), _FIRST_PAUSE_S
    while True:
        try:
            return ask()
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", uri) from None
        except ValueError as error:  # of a malformed place
            raise DataError(str(error)) from None
        except OSError as error:
            if _REFUSALS.search(str(error)):
                raise DataError(f"{uri}: the storage refuses: {_shorten(error)}. {WHAT_TO_CHECK}") from None
            if time.monotonic() - began > patience_s:
                raise OSError(
                    NO_ANSWER, f"object storage has not answered for {patience_s:g} s: {_shorten(error)}", uri
                ) from None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _shorten(error: OSError) -> str:
    return re.sub(r" \(Request ID: [^)]*\)", "", str(error))[:300].rstrip(".")


def _open(folder: str) -> tuple[FileSystem, str]:
    return _connect(folder, tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@functools.lru_cache(maxsize=32)
def _connect(folder: str, _environment: tuple[tuple[str, str], ...]) -> tuple[FileSystem, str]:
    """One connection for a folder, as long as the environment says the same."""
    return open_place(folder)
