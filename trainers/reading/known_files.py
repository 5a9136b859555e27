"""What was found out about files of the user, remembered for as long as they stay as they are: a start costs what has
changed.

A file is known by its path, its size and its times: a look at these costs one call, many of them at once. Only what is
in order is remembered, as an error may pass; and nothing of a file that was written a moment before, as times have a
resolution. A memory that is damaged, or missing, is one in which nothing is known. No torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainers.reading.portions import THREADS, look_in_portions
from trainers.storage.whole_files import appearing_whole

FOLDER = "known_files"  # in the cache of a storage
SETTLED_S = 10.0  # this old is a file that no other of the same time may follow, however clocks differ
_MOST_ENTRIES = 4_000_000  # of a memory; of what was not asked for no more are kept
_MOST_MEMORIES = 256  # files in the folder: one for each folder of data and way of reading it
_SAVE_EVERY_S = 60.0  # of looking, so that whatever ends a start costs the next no more
_MOST_AT_ONCE = 512  # files that a thread asks for, one after another
_MOST_IN_MEMORY = 1 << 16  # of files that are described
_COLUMNS = ("files", "stamps", "found")

Item = tuple[Path | None, ...]  # files that are looked at together; None: one that is not there
Look = Callable[[Sequence[Item]], Sequence[tuple[Any, bool]]]
"""Of each item what JSON can hold, and whether it is in order. A function that can be pickled."""


class KnownFiles:
    """Looks at files, and remembers what it has seen.

    Args:
        cache: of a storage; where it is not there, or None, nothing is remembered.
        root: folder of the data, which gives the memory its name.
    """

    def __init__(self, cache: Path | None = None, root: Path | str = "") -> None:
        self.folder = cache / FOLDER if cache is not None and cache.is_dir() else None
        self.root = os.path.abspath(root)
        self.stamps: dict[Path, str] = {}
        self.memories: dict[str, dict[bytes, tuple[bytes, bytes]]] = {}

    def look_at(self, how: str, items: Sequence[Item], look: Look) -> list[Any]:
        """What is found in files.

        Args:
            how: they are looked at: all that decides what is found, but for the files.
            items: the files.
            look: at those of which nothing is known.

        Returns:
            What was found of each item.
        """
        self.ask_stamps(path for item in items for path in item if path is not None)
        memory = self._open(how)
        keys = [_name(item) for item in items]
        stamps = [self._stamp(item) for item in items]
        known = [memory.get(key) for key in keys]
        found: list[Any] = [
            json.loads(entry[1]) if entry is not None and entry[0] == stamp and stamp else None
            for entry, stamp in zip(known, stamps, strict=True)
        ]
        unknown = [number for number, one in enumerate(found) if one is None]
        saved_at, is_new = time.monotonic(), False
        try:
            for numbers, looked in look_in_portions(look, items, unknown):
                for number, (one, is_good) in zip(numbers, looked, strict=True):
                    found[number] = one
                    if is_good and stamps[number]:
                        memory[keys[number]] = (stamps[number], json.dumps(one).encode())
                        is_new = True
                if is_new and time.monotonic() - saved_at > _SAVE_EVERY_S:
                    self._save(how, memory, keys)
                    saved_at, is_new = time.monotonic(), False
        finally:
            if is_new:
                self._save(how, memory, keys)
        return found

    def ask_stamps(self, paths: Iterable[Path]) -> None:
        """Looks at size and times of files that were not asked for yet, many at a time. What is no regular file, or was
        written just now, has no stamp."""
        new = [path for path in dict.fromkeys(paths) if path not in self.stamps]
        self.stamps.update(zip(new, ask_stamps(new, time.time_ns()), strict=True))  # the clock of before they are read

    def _stamp(self, item: Item) -> bytes:
        """Of all files of an item; empty: one has none."""
        stamps = [self.stamps[path] for path in item if path is not None]
        return ";".join(stamps).encode() if all(stamps) else b""

    def _place(self, how: str) -> Path | None:
        name = hashlib.sha256(f"{self.root}\0{how}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return None if self.folder is None else self.folder / f"{name}.parquet"

    def _open(self, how: str) -> dict[bytes, tuple[bytes, bytes]]:
        if how not in self.memories:
            place = self._place(how)
            if place is not None:
                self.memories.clear()  # those of other ways of looking are saved, and take 450 bytes a file
            self.memories[how] = {} if place is None else _read_memory(place)
        return self.memories[how]

    def _save(self, how: str, memory: dict[bytes, tuple[bytes, bytes]], asked: Sequence[bytes]) -> None:
        """A storage that takes nothing costs no more than another look."""
        place = self._place(how)
        if place is None:
            return
        if len(memory) > max(_MOST_ENTRIES, len(asked)):
            wanted = set(asked)
            for key in [key for key in memory if key not in wanted][: len(memory) - max(_MOST_ENTRIES, len(wanted))]:
                del memory[key]
        with contextlib.suppress(OSError):
            _write_memory(place, memory)
            _drop_oldest(place.parent)


def describe_files(places: Sequence[Path], began_ns: int | None = None) -> str | None:
    """A hash of the paths, sizes and times of all files below places.

    Args:
        places: files or folders, which need not be there.
        began_ns: when the files were read, if not now; what has changed since, or a moment before, is not described.

    Returns:
        None: one of the files is no regular one, or has changed.
    """
    began_ns = began_ns or time.time_ns()
    whole = hashlib.sha256(repr([str(place) for place in places]).encode("utf-8", "surrogateescape"))
    paths = itertools.chain.from_iterable(map(_list_files, places))
    while portion := list(itertools.islice(paths, _MOST_IN_MEMORY)):
        stamps = ask_stamps(portion, began_ns)
        if not all(stamps):
            return None
        described = [f"{path}\0{stamp}\0" for path, stamp in zip(portion, stamps, strict=True)]
        whole.update(os.fsencode("".join(described)))
    return whole.hexdigest()


def _list_files(place: str | Path) -> Iterator[str]:
    """What is at a place, or below it, in a fixed order."""
    if not os.path.isdir(place):
        if os.path.lexists(place):
            yield str(place)
        return
    folders, names = set[str](), list[str]()  # names alone: what the system tells of each file takes four times as much
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir():
                folders.add(entry.name)
            names.append(entry.name)
    for name in sorted(names):
        path = os.path.join(place, name)
        if name in folders:
            yield from _list_files(path)
        else:
            yield path


def ask_stamps(paths: Sequence[str | Path], began_ns: int) -> list[str]:
    """Size and times of files, many at a time; empty of what is no regular file, or had not been as it is for SETTLED_S
    at that time."""
    before_ns = began_ns - int(SETTLED_S * 1e9)
    step = max(1, min(_MOST_AT_ONCE, len(paths) // (4 * THREADS)))
    portions = [paths[start : start + step] for start in range(0, len(paths), step)]
    with ThreadPoolExecutor(THREADS) as pool:
        asked = pool.map(lambda portion: [_ask_stamp(path, before_ns) for path in portion], portions)
        return [stamp for stamps in asked for stamp in stamps]


def _ask_stamp(path: str | Path, before_ns: int) -> str:
    """Size and times of a file: the time of its last change of any kind, too, which nobody can set back."""
    try:
        asked = os.stat(path)
    except (OSError, ValueError):  # what is wrong the look says
        return ""
    if not stat.S_ISREG(asked.st_mode) or max(asked.st_mtime_ns, asked.st_ctime_ns) > before_ns:
        return ""
    return f"{asked.st_size} {asked.st_mtime_ns} {asked.st_ctime_ns}"


def _name(item: Item) -> bytes:
    return b"\0".join(b"" if path is None else os.fsencode(path) for path in item)


def _read_memory(place: Path) -> dict[bytes, tuple[bytes, bytes]]:
    """Nothing where the file is missing or damaged."""
    try:
        table = pq.read_table(place, page_checksum_verification=True)
        keys, stamps, found = (table[name].to_pylist() for name in _COLUMNS)
        return dict(zip(keys, zip(stamps, found, strict=True), strict=True))
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return {}


def _write_memory(place: Path, memory: Mapping[bytes, tuple[bytes, bytes]]) -> None:
    columns = (list(memory), [stamp for stamp, _ in memory.values()], [found for _, found in memory.values()])
    named = {name: pa.array(cells, pa.large_binary()) for name, cells in zip(_COLUMNS, columns, strict=True)}
    with appearing_whole(place) as file:
        pq.write_table(pa.table(named), file, write_page_checksum=True)


def _drop_oldest(folder: Path) -> None:
    """Removes the memories that were written longest ago, where there are many."""
    places = list(folder.glob("*.parquet"))
    if len(places) > _MOST_MEMORIES:
        places.sort(key=lambda place: place.stat().st_mtime_ns)
        for place in places[:-_MOST_MEMORIES]:
            place.unlink(missing_ok=True)
