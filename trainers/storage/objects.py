"""The one client of object storage: get, put on a condition, list, delete. Each object appears whole.

Every request that the network or the server fails is repeated here, and nowhere else, for as long as the caller has
patience. Whatever the storage does not do is an OSError with the object's URI, as of a disk: FileNotFoundError,
`RefusedError` for what no further try will mend, `ChangedError` and `NoConditionsError` of a put on a condition.

Threads use this, so all that it needs is imported at the top.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from trainers.storage.aws_profile import read_profile
from trainers.storage.object_storage import NO_ANSWER, split_uri

PATIENCE_S = 60.0
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_PART_BYTES, _MOST_PARTS, _PARTS_AT_ONCE = 8 << 20, 9_000, 4
# What no further try will mend, as obstore has it in its messages. Without keys it asks the address that tells those of
# the machine's role, which is nowhere but in a cloud.
_REFUSALS = re.compile(
    r"status code: (?:30\d|40[0-7])|invalid path|Received redirect|NoSuchBucket|://169\.254\.\S* .*HTTP error"
)
_UNKNOWN = re.compile(r"status code: 501|<Code>NotImplemented")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Version:
    """What tells an object from every other that has had its name; of S3 the hash of its content does."""

    e_tag: str | None = None
    generation: str | None = None

    def is_same(self, other: Version) -> bool:
        """Whether both are of one object; not each answer of a storage tells both."""
        known = (self.e_tag, other.e_tag) if self.e_tag and other.e_tag else (self.generation, other.generation)
        return known[0] == known[1]


ABSENT = Version()  # as a condition: there is no such object


@dataclass(frozen=True)
class Stored:
    """An object as the storage describes it."""

    size: int
    mtime_ns: int
    version: Version


class RefusedError(OSError):
    """The storage refuses the place or the keys."""


class ChangedError(OSError):
    """The object is not as the condition of the put says. Nothing was put."""


class NoConditionsError(OSError):
    """The storage knows no conditions. Nothing was put."""


class Objects:
    """The objects below a URI, by their names. May be used by several threads. Whatever has these six methods can stand
    in its place.

    Args:
        uri: of the folder.
        store: obstore's, of this folder.
        patience_s: for how long a request is repeated.
    """

    def __init__(self, uri: str, store: Any, patience_s: float) -> None:
        self.uri, self.store, self.patience_s = uri, store, patience_s

    def get(self, name: str, into: BinaryIO) -> Stored:
        """Writes an object's content into a file, which is empty; FileNotFoundError: there is none."""

        def get() -> Stored:
            into.seek(0)
            into.truncate()
            found = obstore.get(self.store, name)
            for chunk in found.stream(min_chunk_size=1 << 20):
                into.write(chunk)
            return _describe(found.meta)

        return self._ask(name, get)

    def put(self, name: str, content: bytes | Path, *, only_if: Version | None = None) -> Version:
        """Puts an object, whole; with a condition only over the object of this version. An object that already is what
        was to be put counts as put: the answer to an earlier try may have been lost.

        Raises:
            ChangedError: there is another object, or none.
            NoConditionsError: the storage knows no conditions.
        """
        if only_if is None:
            size = content.stat().st_size if isinstance(content, Path) else len(content)
            part = max(_PART_BYTES, size // _MOST_PARTS)
            more: dict[str, Any] = {"chunk_size": part, "max_concurrency": _PARTS_AT_ONCE}
        else:
            content = content.read_bytes() if isinstance(content, Path) else content
            more = {"mode": "create" if only_if == ABSENT else _as_update(only_if)}
        try:
            put = self._ask(name, lambda: obstore.put(self.store, name, content, **more))
        except ChangedError:
            lies_there = io.BytesIO()
            with contextlib.suppress(FileNotFoundError):
                found = self.get(name, lies_there)
                if lies_there.getvalue() == content:
                    return found.version
            raise
        return Version(put["e_tag"], put["version"])

    def list(self, below: str = "", *, deep: bool = True) -> dict[str, Stored]:
        """All objects, or those below a folder; without `deep` only those right below it."""
        start = below.strip("/") or None

        def find() -> Sequence[Any]:
            if deep:
                return [one for page in obstore.list(self.store, start, chunk_size=1000) for one in page]
            right_below: Sequence[Any] = obstore.list_with_delimiter(self.store, start)["objects"]
            return right_below

        try:
            found = {one["path"]: _describe(one) for one in self._ask(below, find)}
        except RefusedError as refused:
            if "NoSuchBucket" in str(refused):
                return {}
            raise
        # Other tools mark folders by empty objects.
        folders = {str(folder) for name in found for folder in PurePosixPath(name).parents} | {""}
        return {name: one for name, one in found.items() if one.size or name not in folders}

    def look(self, name: str) -> Stored | None:
        """An object without its content; None: there is none."""
        with contextlib.suppress(FileNotFoundError):
            return self._ask(name, lambda: _describe(obstore.head(self.store, name)))
        return None

    def delete(self, name: str) -> None:
        """Removes an object; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(name, lambda: obstore.delete(self.store, name))

    def exists(self) -> bool:
        """Whether the bucket is there."""
        try:
            self._ask("", lambda: next(iter(obstore.list(self.store, chunk_size=1)), None))
        except RefusedError as refused:
            if "NoSuchBucket" in str(refused):
                return False
            raise
        return True

    def _ask(self, name: str, ask: Callable[[], Result]) -> Result:
        """Asks, again and again while the network or the server is the cause that it fails."""
        uri, began, pause_s = f"{self.uri}/{name}".rstrip("/"), time.monotonic(), _FIRST_PAUSE_S
        while True:
            with _as_os_errors(uri):
                try:
                    return ask()
                except BaseError as error:
                    if time.monotonic() - began + pause_s > self.patience_s or not _may_pass(error):
                        raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def open_objects(uri: str, patience_s: float = PATIENCE_S) -> Objects:
    """The objects below a URI. Nothing is asked of the server yet; who asks again with the same environment gets the
    same connections.

    Raises:
        ValueError: the URI is malformed.
    """
    known = tuple(item for item in sorted(os.environ.items()) if item[0].startswith(("AWS_", "GOOGLE_", "AZURE_")))
    return _open(uri.rstrip("/"), patience_s, (*known, ("HOME", os.environ.get("HOME", "/"))))


@functools.lru_cache(maxsize=64)
def _open(uri: str, patience_s: float, environment: tuple[tuple[str, str], ...]) -> Objects:
    scheme, bucket, folder = split_uri(uri)
    known, more = dict(environment), {}
    endpoint = known.get("AWS_ENDPOINT_URL_S3") or known.get("AWS_ENDPOINT_URL")
    if scheme == "s3://":
        more = read_profile(known) | ({"endpoint": endpoint} if endpoint else {}) | {"disable_bulk_delete": True}
    make: Any = {"s3://": S3Store, "gs://": GCSStore, "az://": AzureStore}[scheme]
    store = make(
        bucket,
        prefix=folder or None,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=READ_TIMEOUT_S),
            "timeout": timedelta(days=1),  # of a whole object, however large
        },
        retry_config={"max_retries": 0},  # `_ask` does it
        **more,
    )
    return Objects(uri, store, patience_s)


@contextlib.contextmanager
def _as_os_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", uri) from None
    except (AlreadyExistsError, PreconditionError):
        raise ChangedError(errno.EEXIST, "another has put this object", uri) from None
    except BaseError as error:
        kind = RefusedError if _REFUSALS.search(str(error)) else OSError
        kind = NoConditionsError if _has_no_conditions(error) else kind
        raise kind(NO_ANSWER, _shorten(error), uri) from None


def _has_no_conditions(error: BaseError) -> bool:
    return isinstance(error, NotSupportedError) or _UNKNOWN.search(str(error)) is not None


def _may_pass(error: BaseError) -> bool:
    if isinstance(error, AlreadyExistsError | PreconditionError):
        return False
    return not _has_no_conditions(error) and not _REFUSALS.search(str(error))


def _shorten(error: BaseError) -> str:
    """What the server says, or what the network does."""
    text = str(error).partition("\n\nDebug source")[0]
    said = re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    if "://169.254." in text:
        return "there are no credentials"
    return (f"{said[1]}: {said[2]}" if said else re.sub(r" in [\d.]+[mnµ]?s", "", text))[:300].rstrip(". ")


def _describe(meta: Any) -> Stored:
    modified = meta["last_modified"]
    whole_ns = int(modified.timestamp()) * 1_000_000_000 + modified.microsecond * 1_000
    return Stored(meta["size"], whole_ns, Version(meta["e_tag"], meta["version"]))


def _as_update(version: Version) -> dict[str, str]:
    known = {"e_tag": version.e_tag, "version": version.generation}
    return {name: value for name, value in known.items() if value is not None}
