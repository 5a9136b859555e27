"""`data.root` in object storage: its tables come to this machine whole, its pictures are looked at wherever there is
room.

What of a picture is to be known before anything is launched (the hash of its content, whether its header is a
picture's) takes reading all of it. The driver hands this out (`interface.Spread`: Ray Data on the cluster), and only
hashes and problems come back; a node that has read a picture keeps a copy, and folds on another node read the object
itself, checked by its hash. So neither the driver's memory nor its disk nor a shared file system stands between the
pictures and the folds, and nothing else of this family knows where pictures are. (Ray Data's own reading of files fails
as a whole where one object is missing, and asks for sizes that the listing has told.)

What was found is remembered for a picture of the same size and time: a later start reads the listing and what has
changed. Times have the resolution of a second, so nothing is remembered of an object that was written a moment before
it was listed."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.clip_regression.config import DataConfig
from trainers.clip_regression.rows.table import FolderOpener, open_pictures
from trainers.interface import DataError, Spread
from trainers.reading.known_files import KnownFiles
from trainers.reading.picture_files import (
    Found,
    check_picture_content,
    describe_missing,
    load_decoders,
    sort_names,
)
from trainers.reading.picture_rules import PictureRules
from trainers.storage.object_storage import split_uri
from trainers.storage.objects import Stored
from trainers.storage.remote_files import (
    THREADS,
    RemoteFile,
    bucket_exists,
    find_object,
    hash_content,
    keep_copy,
    list_objects,
    read_object,
)
from trainers.storage.whole_files import appearing_whole, write_whole

SETTLED_S = 10.0  # this old is an object that no other of the same second may follow, however clocks differ
LOOK_AT_ONCE = 20_000  # pictures; whatever ends a start, the next need not look at these again
PIXEL_BYTES = 4  # of a picture of the largest size that is allowed, not compressed at all


@dataclass(frozen=True)
class Finding:
    """What was found out about an object: a hash of its content, what is wrong with it, if anything is, and its
    `Found.largest`."""

    num_bytes: int
    modified_ns: int
    digest: bytes
    problem: str | None
    largest: int


@contextlib.contextmanager
def opened_data(data: DataConfig, cache: Path, spread: Spread) -> Iterator[tuple[DataConfig, FolderOpener]]:
    """The config by which tables are read on this machine, and what opens the folders of their pictures.

    Args:
        data: its root is a folder or, in object storage, a URI.
        cache: holds what was fetched and found out.
        spread: looks at pictures.

    Raises:
        DataError: there is no such place, or the storage refuses; of a table that is bad, it names the object.
    """
    root = data.root or ""
    if "://" not in root:
        yield data, open_pictures
        return
    try:
        split_uri(root)
    except ValueError as error:
        raise DataError(f"data.root={error}") from None
    tables = cache / "tables" / hashlib.sha256(root.encode()).hexdigest()[:16]
    try:
        for name in filter(None, (data.train_table, data.test_table)):
            if ".." in Path(name).parts or name.startswith("/"):
                raise DataError(f"{name}: expected the name of a table below data.root={root}")
            _fetch_table(f"{root}/{name}", tables / name)
        if not (tables / data.train_table).exists():
            raise DataError(_explain_missing(root, data.train_table))
        yield replace(data, root=str(tables)), partial(_open_remote_pictures, root, cache, spread)
    except DataError as error:
        raise DataError(str(error).replace(str(tables), root)) from None
    except OSError as error:
        if not str(error.filename or "").startswith(root):
            raise
        raise DataError(
            f"{error.filename}: {error.strerror}. Check the network and, of a server that is not Amazon's, "
            "AWS_ENDPOINT_URL"
        ) from None


def _explain_missing(root: str, table: str) -> str:
    if not bucket_exists(root):
        return f"data.root={root}: no such bucket, or none that these keys may see"
    return (
        f"{root}/{table}: no such file; set data.root and data.train_table to where the table is. Folders of classes "
        "without a table are read from a disk only"
    )


def _fetch_table(uri: str, path: Path) -> None:
    """Brings a copy up to date, or removes it where there is no such table."""
    found, stamp = find_object(uri), path.with_name(f"{path.name}.time")
    if found is None:
        path.unlink(missing_ok=True)
        return
    known = f"{found.size} {found.mtime_ns}"
    if path.exists() and stamp.exists() and stamp.read_text() == known:
        return
    stamp.unlink(missing_ok=True)
    is_settled = _is_settled(found)  # by the clock of before it is read
    write_whole(path, read_object(uri))
    if is_settled:
        write_whole(stamp, known.encode())


def _is_settled(found: Stored) -> bool:
    return bool(found.mtime_ns < time.time_ns() - SETTLED_S * 1e9)


def _open_remote_pictures(
    root: str, cache: Path, spread: Spread, data: DataConfig, folder: str, table: str
) -> RemotePictures | None:
    if not data.train_pictures:
        return None
    pictures = RemotePictures(f"{root}/{folder}", cache, spread, data.picture_rules)
    if not pictures.listed:
        raise DataError(
            f"{root}/{folder}: no objects, and so no pictures for {table}; set data.train_pictures and "
            "data.test_pictures, or data.train_pictures= to learn without pictures"
        )
    return pictures


class RemotePictures:
    """As `PictureFolder`, of a folder in object storage. It is listed once.

    Args:
        uri: of the folder.
        cache: of all runs of the storage.
        spread: looks at pictures.
        rules: by which they are read.
    """

    def __init__(self, uri: str, cache: Path, spread: Spread, rules: PictureRules) -> None:
        self.uri, self.spread, self.copies, self.rules = uri, spread, cache / "objects", rules
        self.known = KnownFiles()  # of files on a disk
        seen = f"{uri} {rules.bit_depth} {rules.max_pixels}"  # which decide what is wrong with a picture
        self.memory = cache / "objects" / f"known-{hashlib.sha256(seen.encode()).hexdigest()[:16]}.parquet"
        self.listed = list_objects(uri)
        self.suffix_of, self.several, self.left_out = sort_names(self.listed)

    def find_all(self, ids: Sequence[str]) -> list[Found]:
        """The picture of each row, one of them where there are several."""
        names = [f"{row_id}{self.suffix_of[row_id]}" if row_id in self.suffix_of else None for row_id in ids]
        findings = self._look_at(sorted({name for name in names if name}))
        return [
            Found(None, describe_missing(self.uri, row_id, self.left_out))
            if name is None
            else Found(
                RemoteFile(f"{self.uri}/{name}", findings[name].digest, self.copies),
                findings[name].problem,
                findings[name].largest,
            )
            for row_id, name in zip(ids, names, strict=True)
        ]

    def _look_at(self, names: Sequence[str]) -> dict[str, Finding]:
        known = _read_memory(self.memory)
        findings = {name: known[name] for name in names if name in known and _is_of(known[name], self.listed[name])}
        unknown = [name for name in names if name not in findings]
        if not unknown:
            return findings
        kept = {name: one for name, one in known.items() if name in self.listed and _is_of(one, self.listed[name])}
        for start in range(0, len(unknown), LOOK_AT_ONCE):
            names = unknown[start : start + LOOK_AT_ONCE]
            settled = {name for name in names if _is_settled(self.listed[name])}  # by the clock of before they are read
            asked = [(f"{self.uri}/{name}", self.listed[name].size) for name in names]
            look = partial(look_at, self.copies, self.rules)
            for name, found in zip(names, self.spread(look, asked), strict=True):
                findings[name] = Finding(self.listed[name].size, self.listed[name].mtime_ns, *found)
                if name in settled:
                    kept[name] = findings[name]
            _write_memory(self.memory, kept)
        return findings


def look_at(
    copies: Path, rules: PictureRules, objects: Sequence[tuple[str, int]]
) -> list[tuple[bytes, str | None, int]]:
    """Reads pictures, leaves copies of them, and says of each the hash, what is wrong with it, and its `Found.largest`.

    Args:
        copies: their folder on this machine.
        rules: by which they are read.
        objects: URI and size in bytes of each.

    Raises:
        OSError, DataError: the storage does not give one.
    """
    load_decoders()
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(partial(_look_at_one, copies, rules), objects))


def _look_at_one(copies: Path, rules: PictureRules, described: tuple[str, int]) -> tuple[bytes, str | None, int]:
    (uri, num_bytes), most_bytes = described, PIXEL_BYTES * rules.max_pixels
    if num_bytes > most_bytes:
        return b"", f"{uri} has {num_bytes:,} bytes, more than {most_bytes:,}", 0
    try:
        content = read_object(uri)
    except FileNotFoundError:
        return b"", f"{uri} was removed while it was looked at", 0
    digest, (problem, largest) = hash_content(content), check_picture_content(content, uri, rules)
    if problem is None:
        keep_copy(copies, digest, content)
    return digest, problem, largest


def _is_of(finding: Finding, listed: Stored) -> bool:
    return (finding.num_bytes, finding.modified_ns) == (listed.size, listed.mtime_ns)


def _read_memory(path: Path) -> dict[str, Finding]:
    """What earlier starts have found; nothing where the file is missing or damaged."""
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        columns = [
            table[name].to_pylist() for name in ("name", "num_bytes", "modified_ns", "digest", "problem", "largest")
        ]
    except (OSError, pa.ArrowException, KeyError):
        return {}
    return {name: Finding(*values) for name, *values in zip(*columns, strict=True)}


def _write_memory(path: Path, known: Mapping[str, Finding]) -> None:
    found = list(known.values())
    table = pa.table(
        {
            "name": pa.array(known, pa.string()),
            "num_bytes": pa.array([finding.num_bytes for finding in found], pa.int64()),
            "modified_ns": pa.array([finding.modified_ns for finding in found], pa.int64()),
            "digest": pa.array([finding.digest for finding in found], pa.binary()),
            "problem": pa.array([finding.problem for finding in found], pa.string()),
            "largest": pa.array([finding.largest for finding in found], pa.int64()),
        }
    )
    with appearing_whole(path) as file:
        pq.write_table(table, file, write_page_checksum=True)
