"""A run on object storage: every process works in a folder of its own machine, and this module keeps that folder and
the run's objects equal. The objects are the truth; what a machine has beside them is replaced or removed.

The folder has the same path on every machine, so the run's code sees a folder as any other. Objects have the names of
the files, with two differences: the growing record of a fold is a row of segments (`fold_mirror.py`), and some files
stay where they are (`is_local`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunError, RunFolderError
from ray_jobs.runs.file_table import Put, find_file
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import note_uri
from ray_jobs.runs.remote.bucket import Bucket, do_all, read_steadily
from ray_jobs.runs.remote.object_names import (
    BY_CONTENT,
    LAUNCHED,
    STAYS,
    by_importance,
    counts,
    find_chain,
    find_fold,
    is_derived,
    is_local,
    is_of_driver,
    split_segment,
)
from trainers.storage.object_storage import NO_ANSWER
from trainers.storage.objects import ABSENT, ChangedError, Version
from trainers.storage.whole_files import sha256_file, write_whole

PATIENCE_S, _PAUSE_S = 30.0, 0.1  # for another process of this machine: a survivor, which ends within seconds
_LARGE_BYTES, _TRIES = 16 << 20, 10
_STAGED, _FORGOTTEN_AFTER_S = "staged_", 3600.0  # what is being put; what a killed process has left of it


class Mirror:
    """The working folder of a run on this machine, and its objects.

    Args:
        folder: the run's own.
        uri: of the run.

    Raises:
        StorageError: the URI is malformed.
    """

    def __init__(self, folder: RunFolder, uri: str) -> None:
        self.folder, self.root, self.uri, self.bucket = folder, folder.run_root, uri, Bucket(uri)
        self.own = folder.mirror_work
        note_uri(folder, uri)
        for left in self.own.glob(f"{_STAGED}*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _FORGOTTEN_AFTER_S:
                    shutil.rmtree(left)
        self.pushed: dict[str, tuple[int, int]] = {}  # time and size of files that are as their objects
        self.versions: dict[str, Version] = {}  # of objects, as this process has brought or put them
        self.fence = 0  # the number of the driver for which this process works
        self.lock = threading.RLock()

    @contextlib.contextmanager
    def holding(self, what: str = "run", patience_s: float = PATIENCE_S) -> Iterator[bool]:
        """Keeps this machine's other processes from a part of the folder; whether it could be had in time."""
        deadline = time.monotonic() + patience_s
        with (self.own / f"{what}.lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() < deadline:
                        time.sleep(_PAUSE_S)
                        continue
                    yield False
                    return
                yield True
                return

    def pull_run(self, *, may_begin: bool = False) -> dict[str, int]:
        """Makes the driver's files as their objects are; returns all objects.

        Args:
            may_begin: a run that is not there leaves an empty folder.

        Raises:
            RunError: it is not there; the folder is left as it is.
            RunFolderError: its config is gone and its folds are not.
        """
        listed = self.bucket.list()
        if "config.json" not in listed:
            if left := [name for name in listed if find_fold(name) is not None]:
                raise RunFolderError(
                    f"{self.bucket.uri} has no config.json, but files of folds, such as {left[0]}. Put back a copy of "
                    "config.json, remove the rest, or choose another run.name"
                )
            if not may_begin:
                raise RunError(
                    f"no run at {self.bucket.uri}: its config.json is gone; the copy in {self.root} was kept"
                )
            self._empty_folder()
            return {}
        names = [n for n in listed if find_fold(n) is None and not is_local(n) and not _is(n, Put.ALONE)]
        sums = _read_sums(self.bucket.find(LAUNCHED))
        known = {name: sums[name]["sha256"] for name in names if name.startswith("inputs/") and name in sums}
        self._replace(names, listed, known)
        for name in self._walk():
            if name not in listed and find_fold(name) is None and not _is(name, Put.AT_END):
                (self.root / name).unlink()
        return listed

    def pull_launched(self) -> None:
        """Brings what the driver left for the workers, from its config to the rows."""
        sums = _read_sums(self.bucket.find(LAUNCHED))
        listed = {name: entry["bytes"] for name, entry in sums.items()}
        self._replace(list(sums), listed, {name: entry["sha256"] for name, entry in sums.items()})
        self.pull_request()

    def pull_request(self) -> None:
        """Brings the request to stop, or takes an old one away."""
        content = self.bucket.find(self.folder.stop_request.name)
        if content is None:
            self.folder.stop_request.unlink(missing_ok=True)
        elif not self.folder.stop_request.exists():
            write_whole(self.folder.stop_request, content)

    def pull_fold(self, member: RunFolder, fold: int, listed: dict[str, int] | None = None) -> None:
        """Makes everything of a fold as its objects are. Nobody on this machine may be training it."""
        prefix, files = self.prefix(member), f"{self.name(member.fold(fold).root)}/"
        listed = self.bucket.list() if listed is None else listed
        mine = [name for name in listed if find_fold(name) == (prefix, fold) and not is_local(name)]
        manifest = self.bucket.find(f"{files}manifest.json") if f"{files}manifest.json" in mine else None
        known = {f"{files}{name}": entry["sha256"] for name, entry in _read_sums(manifest).items()}
        for name in sorted(self._walk(), key=by_importance, reverse=True):
            if name.startswith(files) and find_fold(name) == (prefix, fold) and name not in mine:
                (self.root / name).unlink()
        self._replace([name for name in mine if name.startswith(files)], listed, known)
        for name in mine:  # a log that a killed attempt could not put any more is longer
            if is_derived(name) and listed[name] > (_look(self.root / name) or (0, -1))[1]:
                self._download(name)
        self.pull_record(member, fold)

    def pull_record(self, member: RunFolder, fold: int) -> None:
        """Makes a fold's record as its objects are."""
        path = member.fold_record(fold)
        content = read_steadily(lambda: self.read_record(member, fold))
        if content is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != content:
            write_whole(path, content)

    def read_record(self, member: RunFolder, fold: int) -> bytes | None:
        """A fold's record: the segments of its latest attempt, else the whole one of a finished fold."""
        segments = self.bucket.list(self.segments(member, fold))
        chain = find_chain(segments)
        if not chain:
            return self.bucket.find(self.name(member.fold_record(fold)))
        content = b""
        for name in chain:
            offset = split_segment(name)[1]
            if offset + segments[name] > len(content):
                content = content[:offset] + self._read_segment(name, segments[name])
        return content

    def _read_segment(self, name: str, num_bytes: int) -> bytes:
        """A segment as it was listed.

        Raises:
            FileNotFoundError: it is not there any more, or another: the segments were joined.
        """
        content = self.bucket.read(name)
        if len(content) != num_bytes:
            raise FileNotFoundError(name)
        return content

    def segments(self, member: RunFolder, fold: int) -> str:
        """Folder of the segments of a fold's record."""
        return f"{self.prefix(member)}metrics/segments/fold_{fold}/"

    def push_run(self, *, logs: bool = False) -> None:
        """Makes the objects as the driver's files are; what makes others count comes last. A file that changes
        meanwhile is pushed the next time.

        Args:
            logs: those that grow all the time, too.
        """
        with self.lock:

            def list_names() -> list[str]:
                return [n for n in self._walk() if is_of_driver(n) and (logs or not _is(n, Put.AT_END))]

            for name in [
                one for one in list(self.pushed) if find_file(one).file.is_needed and _look(self.root / one) is None
            ]:
                size = self.bucket.measure(name)  # somebody who clears old temporary files has taken it
                if size is not None:
                    self._replace([name], {name: size}, {})
            self._push(list_names, [name for name in list(self.pushed) if is_of_driver(name)])

    def publish_inputs(self, members: Iterable[RunFolder]) -> None:
        """Pushes what the workers need, and the list of it, last."""
        self.push_run()
        paths = [path for path in self.folder.inputs.rglob("*") if path.is_file()]
        for member in members:
            paths += [member.config, member.provenance, member.fold_plan]
        names = sorted(set(map(self.name, paths)))
        sums = {n: {"bytes": (self.root / n).stat().st_size, "sha256": sha256_file(self.root / n)} for n in names}
        self._put(LAUNCHED, json.dumps({"files": sums, "fence": self.fence}).encode())

    def name(self, path: Path) -> str:
        """The name of a file's object, or what a folder's objects begin with."""
        relative = path.relative_to(self.root).as_posix()
        return "" if relative == "." else relative

    def prefix(self, member: RunFolder) -> str:
        """What the names of a member's objects begin with."""
        return "" if member.root == self.root else f"{self.name(member.root)}/"

    def _push(self, list_names: Callable[[], Iterable[str]], known: Iterable[str]) -> None:
        """Puts these files where they have changed, and removes the known objects that are no files any more. Others
        may be writing them meanwhile: what is put is how they were at one moment."""
        gone = sorted((name for name in known if _look(self.root / name) is None), key=by_importance, reverse=True)
        with tempfile.TemporaryDirectory(prefix=_STAGED, dir=self.own) as place:
            counting, others = self._stage(list_names, Path(place))
            self._remove(gone, counting=True)
            do_all(lambda name: self._put(name, Path(place) / others[name].place), others)
            self._note_pushed(others)
            for name in sorted(counting, key=by_importance):
                self._put(name, counting[name].content)
                self._note_pushed({name: counting[name]})
        self._remove(gone, counting=False)

    def refuse_if_lost(self) -> None:
        """Raises an error where this process may put nothing more. Whoever has no right that others could take over
        does nothing."""

    def _put(self, name: str, content: bytes | Path) -> None:
        """Puts an object over the one that this process knows. Over another only if the right to do so still is this
        process's: then it is the last word of one that has lost it.

        The object is looked at before that is asked: of whoever gains the right after the answer, the next put is on
        another one."""
        if not counts(name) and self._is_large(content):
            self.bucket.write(name, content)
            return
        known = self.versions.get(name, ABSENT)
        for _ in range(_TRIES):
            try:
                self.versions[name] = self.bucket.replace(name, content, known)
                return
            except ChangedError:
                found = self.bucket.look(name)
                self.refuse_if_lost()
                known = ABSENT if found is None else found.version
        raise OSError(NO_ANSWER, "others put this object all the time", f"{self.uri}/{name}")

    def _is_large(self, content: bytes | Path) -> bool:
        """Whether it has to be put in parts, which takes no condition. Such files are named after their content, or
        checked by a sum that is put on a condition."""
        return isinstance(content, Path) and content.stat().st_size > _LARGE_BYTES

    def _stage(
        self, list_names: Callable[[], Iterable[str]], place: Path
    ) -> tuple[dict[str, _Staged], dict[str, _Staged]]:
        """The files to put as they are at one moment, those that make others count first: what they tell of is there as
        long as they stay the same."""
        while True:
            counting, others, number = {}, {}, 0
            with contextlib.suppress(FileNotFoundError):  # one was just replaced: once more
                for name in filter(counts, list_names()):
                    counting[name] = _Staged(_look(self.root / name), (self.root / name).read_bytes())
                for name in list_names():
                    found = _look(self.root / name)
                    if counts(name) or found == self.pushed.get(name):
                        continue
                    others[name] = _Staged(found, place=f"{secrets.token_hex(4)}{number}")
                    _link(self.root / name, place / others[name].place)
                    number += 1
                if all(_look(self.root / name) == staged.found for name, staged in counting.items()):
                    return {n: s for n, s in counting.items() if s.found != self.pushed.get(n)}, others

    def _note_pushed(self, pushed: dict[str, _Staged]) -> None:
        self.pushed |= {name: staged.found for name, staged in pushed.items() if staged.found is not None}

    def _remove(self, names: Iterable[str], *, counting: bool) -> None:
        """Removes objects: what made others count goes before the others are put, the rest after."""
        for name in names:
            if counts(name) == counting:
                self.bucket.delete([name])
                self.versions.pop(name, None)
                del self.pushed[name]

    def _replace(self, names: list[str], listed: dict[str, int], known: dict[str, str]) -> None:
        """Downloads what is not known to be the same."""
        wanted = [name for name in names if not self._is_same(name, listed[name], known.get(name))]
        do_all(lambda name: self._download(name), [name for name in wanted if not counts(name)])
        for name in sorted(wanted, key=by_importance):
            if counts(name):
                self._download(name)
        looks = {name: _look(self.root / name) for name in names if name not in self.pushed}
        self.pushed |= {name: found for name, found in looks.items() if found is not None}

    def _is_same(self, name: str, num_bytes: int, sha256: str | None) -> bool:
        path = self.root / name
        by_name = BY_CONTENT.fullmatch(name)
        wanted = sha256 or (by_name and by_name[1])
        if not wanted or not path.is_file() or path.stat().st_size != num_bytes:
            return False
        return sha256_file(path).startswith(wanted)

    def _download(self, name: str) -> None:
        path = self.root / name
        self.pushed.pop(name, None)
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            if not name.endswith(".jsonl"):
                self.versions[name] = self.bucket.download(name, path)
                return
            content, self.versions[name] = self.bucket.read_version(name)
            if not path.exists() or not path.read_bytes().startswith(content):
                write_whole(path, content)
            elif path.stat().st_size > len(content):  # lines that a killed driver could not put any more are kept
                self.pushed[name] = (0, len(content))

    def _walk(self) -> Iterator[str]:
        """Names of all files that have objects."""
        for folder, folders, files in os.walk(self.root):
            start = f"{self.name(Path(folder))}/".lstrip("/")
            folders[:] = [one for one in folders if not is_local(f"{start}{one}/x") or one == "wandb"]
            yield from (f"{start}{one}" for one in files if not is_local(f"{start}{one}"))

    def _empty_folder(self) -> None:
        for path in self.root.iterdir():
            if path.name not in STAYS:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _read_sums(content: bytes | None) -> dict[str, dict[str, Any]]:
    """{name: {bytes, sha256}} as a manifest lists files; what is damaged lists nothing."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
        listed = json.loads(content or b"")["files"].items()
        return {
            name: {"bytes": int(one["bytes"]), "sha256": str(one["sha256"])}
            for name, one in listed
            if not is_local(name)
        }
    return {}


@dataclass(frozen=True)
class _Staged:
    """A file to put: its time and size when it was looked at, and what it held or where that is kept."""

    found: tuple[int, int] | None
    content: bytes = b""
    place: str = ""


def _link(path: Path, place: Path) -> None:
    """Keeps what a file holds now; whoever replaces it puts another in its place."""
    try:
        os.link(path, place)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(path, place)


def _is(name: str, put: Put) -> bool:
    return find_file(name).file.put is put


def _look(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return None
