"""A file system in memory that forgets, when its machine loses power, what was not synced."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from simulation.world import EPOCH_S, World

ROOT = "/sim"
_CHUNK_BYTES = 4096  # that are written in one go; a kill may come between two
_SLOW_S = 0.3


class Inode:
    """A file or folder. `synced` is what a file certainly holds after a power cut."""

    __slots__ = ("data", "entries", "holders", "is_folder", "mode", "mtime", "number", "owner", "synced")

    def __init__(self, number: int, *, is_folder: bool, mtime: float) -> None:
        self.number, self.is_folder, self.mtime = number, is_folder, mtime
        self.data, self.synced = bytearray(), b""
        self.entries: dict[str, Inode] = {}
        self.holders: dict[int, bool] = {}  # of a lock: open file, whether it holds it alone
        self.owner: object = None  # the attempt of a fold that has made it
        self.mode = 0o755 if is_folder else 0o644


def refuse(number: int, path: str) -> OSError:
    """The error of a call."""
    return OSError(number, os.strerror(number), path)


class Disk:
    """One file system, which several machines may share.

    Attributes:
        fault: what is wrong with it now: full, read-only, away, broken, slow; None: nothing.
        on_change: called after each change of a name or of a file's content: (what, path, inode).
        before_change: likewise before it.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.count = world, name, 0
        self.root = self._make(is_folder=True)
        self.below = self._make(is_folder=True)  # what is seen while the file system is away
        self.fault: str | None = None
        self.undo: list[Callable[[], object]] = []  # of changes of names since the last sync
        self.unsynced: set[Inode] = set()
        self.on_change: list[Callable[[str, str, Inode], None]] = []
        self.unlucky_share = 0.3  # of calls of a broken disk

    # What the seams do.

    def find(self, path: str) -> Inode:
        """The file or folder at a path."""
        inode = self.below if self.fault == "away" else self.root
        for part in _split(path):
            if not inode.is_folder:
                raise refuse(errno.ENOTDIR, path)
            found = inode.entries.get(part)
            if found is None:
                raise refuse(errno.ENOENT, path)
            inode = found
        return inode

    def find_parent(self, path: str) -> tuple[Inode, str]:
        """The folder that a path's last name is in, and this name."""
        folder, _, name = path.rstrip("/").rpartition("/")
        parent = self.find(folder)
        if not parent.is_folder:
            raise refuse(errno.ENOTDIR, path)
        return parent, name

    def create(self, path: str) -> Inode:
        """A new empty file."""
        parent, name = self.find_parent(path)
        self._refuse_changes(path)
        inode = self._make(is_folder=False)
        inode.owner = self._get_attempt()
        self._set(parent, name, inode)
        self._tell("create", path, inode)
        return inode

    def make_folder(self, path: str) -> None:
        """As `os.mkdir`."""
        parent, name = self.find_parent(path)
        if name in parent.entries:
            raise refuse(errno.EEXIST, path)
        self._refuse_changes(path)
        if self.fault == "full":
            raise refuse(errno.ENOSPC, path)
        self._set(parent, name, self._make(is_folder=True))

    def remove(self, path: str, *, is_folder: bool = False) -> None:
        """As `os.unlink` and `os.rmdir`."""
        parent, name = self.find_parent(path)
        inode = parent.entries.get(name)
        if inode is None:
            raise refuse(errno.ENOENT, path)
        if inode.is_folder != is_folder:
            raise refuse(errno.ENOTDIR if is_folder else errno.EISDIR, path)
        if inode.entries:
            raise refuse(errno.ENOTEMPTY, path)
        self._refuse_changes(path)
        self._set(parent, name, None)
        self._tell("remove", path, inode)

    def rename(self, source: str, path: str) -> None:
        """As `os.replace`."""
        old_parent, old_name = self.find_parent(source)
        inode = old_parent.entries.get(old_name)
        if inode is None:
            raise refuse(errno.ENOENT, source)
        parent, name = self.find_parent(path)
        there = parent.entries.get(name)
        if there is inode:
            return
        if there is not None and there.is_folder:
            raise refuse(errno.EISDIR, path)
        self._refuse_changes(path)
        number = len(self.undo)
        self._set(parent, name, inode)
        self._set(old_parent, old_name, None)
        first, second = self.undo[number:]
        self.undo[number:] = [lambda: (second(), first())]  # both or nothing
        self._tell("rename", path, inode)

    def link(self, source: str, path: str) -> None:
        """As `os.link`."""
        inode = self.find(source)
        parent, name = self.find_parent(path)
        if name in parent.entries:
            raise refuse(errno.EEXIST, path)
        self._refuse_changes(path)
        self._set(parent, name, inode)

    def write(self, inode: Inode, offset: int, content: bytes, path: str) -> int:
        """As `os.write`: less than was asked for where the disk is full."""
        if self.fault in ("readonly", "away"):
            raise refuse(errno.EROFS if self.fault == "readonly" else errno.EIO, path)
        if self.fault == "full":
            content = content[: self.world.random.choice((0, len(content) // 2))]
            if not content:
                raise refuse(errno.ENOSPC, path)
        self._be_unlucky(path)
        done = 0
        while True:
            chunk = content[done : done + _CHUNK_BYTES]
            inode.data[offset + done : offset + done + len(chunk)] = chunk
            done += len(chunk)
            inode.mtime = self._tell_time()
            self.unsynced.add(inode)
            if done >= len(content):
                break
            self.world.step(f"write on {path}")
        self._tell("write", path, inode)
        return done

    def truncate(self, inode: Inode, size: int, path: str) -> None:
        """As `os.ftruncate`."""
        self._refuse_changes(path)
        del inode.data[size:]
        inode.data.extend(bytes(size - len(inode.data)))
        inode.mtime = self._tell_time()
        self.unsynced.add(inode)
        self._tell("truncate", path, inode)

    def sync(self, inode: Inode, path: str) -> None:
        """As `os.fsync`: the content, and all names so far."""
        if self.fault == "away":
            raise refuse(errno.EIO, path)
        self._be_unlucky(path)
        inode.synced = bytes(inode.data)
        self.unsynced.discard(inode)
        self.undo.clear()

    def read(self, inode: Inode, offset: int, size: int, path: str) -> bytes:
        """Bytes from an offset."""
        if self.fault == "away":
            raise refuse(errno.EIO, path)
        self._be_unlucky(path)
        return bytes(inode.data[offset : offset + size])

    def describe(self, path: str) -> os.stat_result:
        """As `os.stat`."""
        return describe(self.find(path))

    # What faults and checks do: no seams, no faults.

    def cut_power(self) -> None:
        """Loses what was not synced: the last changes of names, all after some moment; of data what luck says."""
        luck = self.world.random
        for undo in reversed(self.undo[luck.randint(0, len(self.undo)) :]):
            undo()
        self.undo.clear()
        for inode in sorted(self.unsynced, key=lambda one: one.number):
            old, new = inode.synced, bytes(inode.data)
            kept = len(old) if new.startswith(old) else 0  # what was added to a synced file leaves it as it was
            half = new[: luck.randint(kept, len(new))]
            inode.data = bytearray(luck.choice((old, new, half, half + bytes(len(new) - len(half)))))
            inode.synced = bytes(inode.data)
        self.unsynced.clear()
        self.fault = None

    def walk(self, path: str = ROOT) -> Iterator[tuple[str, Inode]]:
        """All files below a path, in the order of their names."""
        try:
            start = self._peek(path)
        except KeyError:
            return
        todo = [(path, start)]
        while todo:
            place, inode = todo.pop()
            if not inode.is_folder:
                yield place, inode
            todo += [(f"{place}/{name}", one) for name, one in sorted(inode.entries.items(), reverse=True)]

    def peek(self, path: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            return bytes(self._peek(path).data)
        except KeyError:
            return None

    def _peek(self, path: str) -> Inode:
        inode = self.root
        for part in _split(path):
            inode = inode.entries[part]
        return inode

    def _make(self, *, is_folder: bool) -> Inode:
        self.count += 1
        return Inode(self.count, is_folder=is_folder, mtime=self._tell_time())

    def _set(self, parent: Inode, name: str, inode: Inode | None) -> None:
        entries, before = parent.entries, parent.entries.get(name)
        self.undo.append(lambda: _put(entries, name, before))
        _put(entries, name, inode)
        parent.mtime = self._tell_time()

    def _tell(self, what: str, path: str, inode: Inode) -> None:
        for tell in self.on_change:
            tell(what, path, inode)

    def _refuse_changes(self, path: str) -> None:
        if self.fault == "readonly":
            raise refuse(errno.EROFS, path)
        self._be_unlucky(path)

    def _be_unlucky(self, path: str) -> None:
        if self.fault == "slow":
            self.world.step(f"slow {path}", _SLOW_S * self.world.random.random())
        elif self.fault == "broken" and self.world.random.random() < self.unlucky_share:
            raise refuse(errno.EIO, path)

    def _get_attempt(self) -> object:
        task = self.world.current
        return task.process.attempt if task else None

    def _tell_time(self) -> float:
        return EPOCH_S + self.world.now + self.world.clock_offset


def describe(inode: Inode) -> os.stat_result:
    """As `os.stat` of an open file."""
    kind = stat.S_IFDIR if inode.is_folder else stat.S_IFREG
    times = (int(inode.mtime),) * 3
    values = (kind | inode.mode, inode.number, 1, 1, os.getuid(), os.getgid(), len(inode.data), *times)
    return os.stat_result(values, {"st_mtime_ns": int(inode.mtime * 1e6) * 1000, "st_mtime": inode.mtime})


def _put(entries: dict[str, Inode], name: str, inode: Inode | None) -> None:
    if inode is None:
        entries.pop(name, None)
    else:
        entries[name] = inode


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
