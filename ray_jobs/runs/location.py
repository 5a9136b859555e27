"""Where a run lives: in `<run.storage>/<run.name>/`, or in object storage and, while it is worked on, in a folder of
this machine.

That folder has the same path on every machine, so the run's code sees a folder as any other. The objects themselves:
`remote/`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ray_jobs.errors import RunError, StorageError
from ray_jobs.runs.file_table import MEMBERS, Owner, find_file
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from trainers.storage.object_storage import is_uri, split_uri
from trainers.storage.whole_files import write_whole

_SHARED, _PUT = "ray-kfold-", "put.json"


def refuse_other_storage(storage: str) -> None:
    """Raises RunError for what is neither a folder nor an object storage that is known."""
    if "://" in storage:
        try:
            split_uri(storage)
        except ValueError as error:
            raise RunError(f"run.storage={error}") from None
        if MEMBERS in storage.split("/"):
            raise RunError(f"run.storage={storage}: expected another name than {MEMBERS}, which holds a run's members")


def resolve_storage(storage: str) -> str:
    """`run.storage` as an absolute path, or a URI.

    Raises:
        RunError: it is below a home folder, and there is none.
    """
    if is_uri(storage):
        return storage.rstrip("/")
    path = os.path.expanduser(storage)
    if path.startswith("~"):
        raise RunError(
            f"run.storage={storage}: no such home folder; set HOME, or set run.storage to the folder of the runs"
        )
    return os.path.abspath(path)


def find_place(storage: str, name: str) -> Path:
    """The folder of a run, or the one in which it is worked on where it is on object storage: below TMPDIR (/tmp), in a
    folder that is closed to others.

    Raises:
        StorageError: somebody else has made that one.
    """
    if not is_uri(storage):
        return Path(resolve_storage(storage), name)
    own = Path(tempfile.gettempdir()) / _shared_name()
    _open_own(own)
    return own / _mark_storage(storage) / name


def list_run_folders(storage: str) -> list[Path]:
    """The folders of all runs and tunings below a folder."""
    return sorted(path.parent for path in Path(os.path.expanduser(storage)).glob("*/config.json"))


def note_uri(folder: RunFolder, uri: str) -> None:
    """Notes in the folder in which a run on object storage is worked on which one it is.

    Raises:
        StorageError: somebody else has made the folder around it.
    """
    if folder.run_root.parents[1].name == _shared_name():
        _open_own(folder.run_root.parents[1])
    folder.mirror_work.mkdir(parents=True, exist_ok=True)
    if find_uri(folder) != uri:
        write_whole(folder.mirror_work / "uri", uri.encode())


def find_uri(folder: RunFolder) -> str | None:
    """The URI of a run whose working folder this is; None: its folder is all there is, as a copy of a working folder
    elsewhere is."""
    root = folder.run_root
    with contextlib.suppress(OSError):
        uri = (folder.mirror_work / "uri").read_text()
        storage, _, name = uri.rpartition("/")
        is_working = root.parts[-2:] == (_mark_storage(storage), name) and root.parts[-3].startswith(_SHARED)
        return uri if is_uri(uri) and is_working else None
    return None


def note_put(folder: RunFolder, sizes: Mapping[str, int]) -> None:
    """Notes in a working folder how many bytes of which records the object storage has."""
    if read_json(folder.mirror_work / _PUT, default=None) != sizes:
        write_json(folder.mirror_work / _PUT, dict(sizes))


def count_put(folder: RunFolder, record: Path) -> int | None:
    """How many bytes of a driver's record the object storage has. What it has not may be lost with this machine, and
    the next driver then writes other lines in their place; a fold's are the same again.

    Returns:
        None: all that is there counts, since the run is in a folder, or the record is a fold's.
    """
    name = record.relative_to(folder.run_root).as_posix()
    if find_uri(folder) is None or find_file(name).file.owner is not Owner.DRIVER:
        return None
    return int(read_json(folder.mirror_work / _PUT, default={}).get(name, 0))


def join_run(storage: str, name: str) -> str | None:
    """The URI of a run on object storage; None: it is in a folder."""
    return f"{storage.rstrip('/')}/{name}" if is_uri(storage) else None


def split_run(uri: str) -> tuple[str, str, str]:
    """Storage, name and member's place (`members/wide` or nothing) of a run's URI."""
    run, _, member = uri.rstrip("/").partition(f"/{MEMBERS}/")
    storage, _, name = run.rpartition("/")
    return storage, name, f"{MEMBERS}/{member}" if member else ""


def _mark_storage(storage: str) -> str:
    """A short mark of a storage, by which folders of several storages differ."""
    return hashlib.sha256(storage.rstrip("/").encode()).hexdigest()[:12]


def _shared_name() -> str:
    """Name of this user's folder of working folders."""
    return f"{_SHARED}{os.getuid()}"


def _open_own(own: Path) -> None:
    """Makes a folder that is closed to others; raises StorageError where somebody else has made it."""
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StorageError(
            f"{own} belongs to another user: expected a folder of your own; set TMPDIR to another folder"
        )
    own.chmod(0o700)


def open_cache(cache: Path) -> Path:
    """Makes the cache of a storage, closed to others. What lies in it is used by every later run, and a file is what
    its name says only if nobody else may write there.

    Raises:
        RunError: somebody else has made it, or may write there.
    """
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = cache.stat()
    what = f"{cache}, in which the runs of this storage share what need not be computed twice,"
    if found.st_uid != os.geteuid():
        raise RunError(f"{what} belongs to somebody else (user {found.st_uid}); choose another run.storage")
    if found.st_mode & 0o022:
        raise RunError(
            f"{what} may be written to by others (mode {stat.S_IMODE(found.st_mode):o}), so that a run might take up "
            f"what they have left; remove it, or, if you trust what it holds, `chmod 700 {cache}`"
        )
    if found.st_mode & 0o077:
        cache.chmod(0o700)
    return cache


def find_refit(run: str) -> str:
    """Where the refit of a run is, by the run's name, folder or address."""
    return f"{run.rstrip('/')}_refit"
