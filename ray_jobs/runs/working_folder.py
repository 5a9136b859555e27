"""Where a run on object storage is worked on: a folder of this machine, and the URI that it belongs to.

The folder has the same path on every machine, so the run's code sees a folder as any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from ray_jobs.errors import StorageError
from ray_jobs.runs.file_table import MEMBERS, WORK
from ray_jobs.runs.folder import RunFolder
from trainers.storage.object_storage import is_uri

_SHARED = "ray-kfold-"


def working_folder(storage: str, name: str) -> Path:
    """Where a run on object storage is worked on: below TMPDIR (/tmp), in a folder that is closed to others.

    Raises:
        StorageError: somebody else has made it.
    """
    own = Path(tempfile.gettempdir()) / shared_name()
    open_own(own)
    return own / mark_storage(storage) / name


def mark_storage(storage: str) -> str:
    """A short mark of a storage, by which folders of several storages differ."""
    return hashlib.sha256(storage.rstrip("/").encode()).hexdigest()[:12]


def shared_name() -> str:
    """Name of this user's folder of working folders."""
    return f"{_SHARED}{os.getuid()}"


def open_own(own: Path) -> None:
    """Makes a folder that is closed to others; raises StorageError where somebody else has made it."""
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StorageError(f"{own} belongs to somebody else; name another folder for temporary files in TMPDIR")
    own.chmod(0o700)


def find_uri(folder: RunFolder) -> str | None:
    """The URI of a run whose working folder this is; None: its folder is all there is, as a copy of a working folder elsewhere is."""
    root = folder.run_root
    with contextlib.suppress(OSError):
        uri = (root / WORK / "uri").read_text()
        storage, _, name = uri.rpartition("/")
        is_working = root.parts[-2:] == (mark_storage(storage), name) and root.parts[-3].startswith(_SHARED)
        return uri if is_uri(uri) and is_working else None
    return None


def split_run(uri: str) -> tuple[str, str, str]:
    """Storage, name and member's place (`members/wide` or nothing) of a run's URI."""
    run, _, member = uri.rstrip("/").partition(f"/{MEMBERS}/")
    storage, _, name = run.rpartition("/")
    return storage, name, f"{MEMBERS}/{member}" if member else ""
