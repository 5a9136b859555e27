"""Stands between Python's file functions and the simulated disks: a path below `/sim` is one of theirs. Each call passes
a seam before it has an effect."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from simulation.disk import ROOT, Disk, Inode, describe, refuse
from simulation.world import KilledError, Process, World

_FIRST = 1_000_000  # number of an open file


class OpenFile:
    """What a process has opened."""

    def __init__(self, number: int, process: Process, disk: Disk, inode: Inode, path: str, flags: int) -> None:
        self.number, self.process, self.disk, self.inode, self.path = number, process, disk, inode, path
        self.flags, self.offset = flags, 0


class Files:
    """The open files of all processes, and the functions that are put in the place of Python's.

    Args:
        world: whose.
        find_disk: the disk that a machine sees at a path.
    """

    def __init__(self, world: World, find_disk: Callable[[str, str], Disk]) -> None:
        self.world, self.find_disk = world, find_disk
        self.open_files: dict[int, OpenFile] = {}
        self.number = _FIRST
        world.on_end.append(self.close_all)

    def close_all(self, process: Process) -> None:
        """A process has ended: its locks are free."""
        for number in [one.number for one in self.open_files.values() if one.process is process]:
            self._forget(number)

    def replace(self) -> list[tuple[Any, str, Any]]:
        """(module, name, function) of all that is put in the place of Python's."""
        names = (
            "open close read pread write fsync ftruncate fstat stat lstat mkdir rmdir unlink remove rename replace link "
            "listdir scandir lseek utime chmod readlink"
        )
        found = [(os, name, self._choose(getattr(os, name), getattr(self, f"do_{name}"))) for name in names.split()]
        found += [(module, "open", self._choose(io.open, self.do_io_open)) for module in (io,)]
        return [*found, (fcntl, "flock", self._choose(fcntl.flock, self.do_flock))]

    def _choose(self, real: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
        def choose(place: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(place, int):
                return own(place, *arguments, **options) if place >= _FIRST else real(place, *arguments, **options)
            if hasattr(place, "fileno"):
                return choose(place.fileno(), *arguments, **options)
            path = place if isinstance(place, str) else os.fspath(place)
            if isinstance(path, str) and (path.startswith(ROOT) or _is_of_system(path, self.world)):
                return own(path, *arguments, **options)
            return real(place, *arguments, **options)

        return choose

    def _pass(self, what: str, path: str) -> Disk:
        self.world.step(f"{what} {path}")
        return self._see(path)

    def _see(self, path: str) -> Disk:
        assert self.world.current is not None
        return self.find_disk(self.world.current.process.machine, path)

    def _get(self, number: int) -> OpenFile:
        if number not in self.open_files:
            self._refuse_dead()
            raise refuse(errno.EBADF, "")
        return self.open_files[number]

    def _refuse_dead(self) -> None:
        if self.world.current is None or self.world.current.process.is_dead:
            raise KilledError

    def do_open(self, path: str, flags: int, mode: int = 0o777, **_: Any) -> int:
        disk = self._pass("open", path)
        try:
            inode = disk.find(path)
            if flags & os.O_EXCL and flags & os.O_CREAT:
                raise refuse(errno.EEXIST, path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            inode = disk.create(path)
        if inode.is_folder and flags & (os.O_WRONLY | os.O_RDWR):
            raise refuse(errno.EISDIR, path)
        if flags & (os.O_WRONLY | os.O_RDWR) and disk.fault == "readonly":
            raise refuse(errno.EROFS, path)
        if flags & os.O_TRUNC and inode.data:
            disk.truncate(inode, 0, path)
        self.number += 1
        assert self.world.current is not None
        process = self.world.current.process
        self.open_files[self.number] = OpenFile(self.number, process, disk, inode, path, flags)
        return self.number

    def do_close(self, number: int) -> None:
        self._get(number)
        self._forget(number)

    def _forget(self, number: int) -> None:
        file = self.open_files.pop(number)
        file.inode.holders.pop(number, None)

    def do_read(self, number: int, size: int) -> bytes:
        file = self._get(number)
        self.world.step(f"read {file.path}")
        content = file.disk.read(file.inode, file.offset, size, file.path)
        file.offset += len(content)
        return content

    def do_pread(self, number: int, size: int, offset: int) -> bytes:
        file = self._get(number)
        self.world.step(f"read {file.path}")
        return file.disk.read(file.inode, offset, size, file.path)

    def do_write(self, number: int, content: Any) -> int:
        file = self._get(number)
        content = bytes(content)
        self.world.step(f"write {len(content)} bytes {file.path}")
        self._get(number)
        offset = len(file.inode.data) if file.flags & os.O_APPEND else file.offset
        done = file.disk.write(file.inode, offset, content, file.path)
        file.offset = offset + done
        return done

    def do_fsync(self, number: int) -> None:
        file = self._get(number)
        self.world.step(f"fsync {file.path}")
        file.disk.sync(file.inode, file.path)

    def do_ftruncate(self, number: int, size: int) -> None:
        file = self._get(number)
        self.world.step(f"truncate {file.path}")
        file.disk.truncate(file.inode, size, file.path)

    def do_fstat(self, number: int) -> os.stat_result:
        return describe(self._get(number).inode)

    def do_lseek(self, number: int, position: int, how: int) -> int:
        file = self._get(number)
        start = {os.SEEK_SET: 0, os.SEEK_CUR: file.offset, os.SEEK_END: len(file.inode.data)}[how]
        file.offset = start + position
        return file.offset

    def do_stat(self, path: str, **_: Any) -> os.stat_result:
        if isinstance(path, int):
            return self.do_fstat(path)
        return self._pass("stat", path).describe(path)

    do_lstat = do_stat

    def do_mkdir(self, path: str, mode: int = 0o777, **_: Any) -> None:
        disk = self._pass("mkdir", path)
        disk.make_folder(path)
        disk.find(path).mode = mode & ~0o022

    def do_rmdir(self, path: str, **_: Any) -> None:
        self._pass("rmdir", path).remove(path, is_folder=True)

    def do_unlink(self, path: str, **_: Any) -> None:
        self._pass("unlink", path).remove(path)

    do_remove = do_unlink

    def do_rename(self, source: str, path: Any, **_: Any) -> None:
        self._pass(f"rename to {path}", source).rename(source, os.fspath(path))

    do_replace = do_rename

    def do_link(self, source: str, path: Any, **_: Any) -> None:
        self._pass(f"link to {path}", source).link(source, os.fspath(path))

    def do_listdir(self, path: str) -> list[str]:
        folder = self._pass("list", path).find(path)
        if not folder.is_folder:
            raise refuse(errno.ENOTDIR, path)
        return sorted(folder.entries)

    def do_scandir(self, path: str) -> _Scan:
        folder = self._pass("list", path).find(path)
        if not folder.is_folder:
            raise refuse(errno.ENOTDIR, path)
        return _Scan([_Entry(name, f"{path}/{name}", inode) for name, inode in sorted(folder.entries.items())])

    def do_utime(self, path: str, *_: Any, **__: Any) -> None:
        self._pass("utime", path).find(path)

    def do_chmod(self, path: str, mode: int, **_: Any) -> None:
        self._pass("chmod", path).find(path).mode = mode

    def do_readlink(self, path: str, **_: Any) -> str:
        if path.startswith("/proc/"):
            return "pid:[1]"
        raise refuse(errno.EINVAL, path)

    def do_flock(self, number: int, how: int) -> None:
        file = self._get(number)
        self.world.step(f"lock {file.path}")
        alone = bool(how & fcntl.LOCK_EX)
        while any(alone or others for holder, others in file.inode.holders.items() if holder != number):
            if how & fcntl.LOCK_NB:
                raise BlockingIOError(errno.EAGAIN, "locked", file.path)
            self.world.sleep(0.1)
        file.inode.holders.pop(number, None)
        if not how & fcntl.LOCK_UN:
            file.inode.holders[number] = alone

    def do_io_open(
        self, path: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any, **__: Any
    ) -> Any:
        if isinstance(path, int):
            raise NotImplementedError
        if path.startswith("/proc/"):
            return self._open_proc(path, mode)
        letters = set(mode) - {"b", "t"}
        flags = {
            "r": os.O_RDONLY,
            "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
            "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        }
        flag = flags[next(iter(letters & set("rwa")))]
        if "+" in letters:
            flag = flag & ~os.O_WRONLY | os.O_RDWR
        raw = _Raw(self, self.do_open(path, flag), path, flag)
        if buffering == 0:
            return raw
        is_both = bool(flag & os.O_RDWR)
        buffered: Any = io.BufferedRandom(raw) if is_both else io.BufferedWriter(raw) if raw.writable() else None
        buffered = buffered or io.BufferedReader(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8")

    def _open_proc(self, path: str, mode: str) -> Any:
        if path.endswith("boot_id"):
            assert self.world.current is not None
            return io.StringIO(self.world.current.process.machine)
        pid = int(path.split("/")[2])
        living = [one for one in self.world.processes if one.pid == pid and not one.is_dead]
        assert self.world.current is not None
        if not living or living[0].machine != self.world.current.process.machine:
            raise refuse(errno.ENOENT, path)
        return io.StringIO(f"{pid} (python) " + " ".join(["0"] * 19 + [str(pid)]))


def _is_of_system(path: str, world: World) -> bool:
    """Whether it is what a process learns of itself and of others there."""
    is_asked = path.endswith(("/stat", "boot_id", "ns/pid"))
    return is_asked and path.startswith("/proc/") and path != "/proc/stat" and world.current is not None


class _Raw(io.RawIOBase):
    """An open file as Python's `io` wants it."""

    def __init__(self, files: Files, number: int, path: str, flags: int) -> None:
        self.files, self.number, self.name, self.flags = files, number, path, flags
        self.process = files.open_files[number].process

    def fileno(self) -> int:
        return self.number

    def readable(self) -> bool:
        return not self.flags & os.O_WRONLY

    def writable(self) -> bool:
        return bool(self.flags & (os.O_WRONLY | os.O_RDWR))

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.files.do_read(self.number, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self.files.do_read(self.number, 1 << 40)

    def write(self, content: Any) -> int:
        if self._is_of_dead():
            return len(content)
        return self.files.do_write(self.number, content)

    def seek(self, position: int, how: int = os.SEEK_SET) -> int:
        return 0 if self._is_of_dead() else self.files.do_lseek(self.number, position, how)

    def tell(self) -> int:
        return self.seek(0, os.SEEK_CUR)

    def truncate(self, size: int | None = None) -> int:
        self.files.do_ftruncate(self.number, self.tell() if size is None else size)
        return self.tell()

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self.number in self.files.open_files:
                self.files._forget(self.number)

    def _is_of_dead(self) -> bool:
        """Whether somebody collects what a dead process has left behind."""
        return self.process.is_dead


class _Entry:
    """As `os.DirEntry`."""

    def __init__(self, name: str, path: str, inode: Inode) -> None:
        self.name, self.path, self.inode_ = name, path, inode

    def is_dir(self, **_: Any) -> bool:
        return self.inode_.is_folder

    def is_file(self, **_: Any) -> bool:
        return not self.inode_.is_folder

    def is_symlink(self) -> bool:
        return False

    def stat(self, **_: Any) -> os.stat_result:
        return describe(self.inode_)

    def inode(self) -> int:
        return self.inode_.number

    def __fspath__(self) -> str:
        return self.path


class _Scan:
    """As what `os.scandir` gives."""

    def __init__(self, entries: list[_Entry]) -> None:
        self.entries = iter(entries)

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> _Entry:
        return next(self.entries)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


def is_folder(found: os.stat_result) -> bool:
    """Whether this is a folder."""
    return stat.S_ISDIR(found.st_mode)


MACHINE = SimpleNamespace  # of `os.uname`
