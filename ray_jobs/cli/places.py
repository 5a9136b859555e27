"""Where a command may write: a run may belong to somebody else, or lie in an archive that can only be read."""

from __future__ import annotations

import os
from pathlib import Path

from ray_jobs.errors import RunError


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, or it can be made."""
    there = find_nearest(folder)
    return there.is_dir() and os.access(there, os.W_OK)


def find_nearest(folder: Path) -> Path:
    """The folder, or what of the path to it is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def refuse_unwritable(folder: Path, advice: str) -> None:
    """Raises RunError, which ends with the advice, where no file can be written into a folder."""
    if not is_writable(folder):
        raise RunError(f"{find_nearest(folder)} is no folder that can be written to; {advice}")
