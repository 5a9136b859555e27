"""Removes old metric CSV files, training logs and analyses of runs. Never the record, the newest file of a kind, or
anything of a run whose driver is at work."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.errors import RunBusyError
from ray_jobs.runs.file_table import FILES
from ray_jobs.runs.folder import RunFolder

_STAMPED = re.compile(r"_(\d{8}_\d{6})\.\w+$")
_DAY_S = 86400


@dataclass(frozen=True)
class OldFile:
    """A file that was, or would be, removed."""

    path: Path
    num_bytes: int


def prune_run(
    folder: RunFolder, *, keep_days: float | None, keep_last: int | None, dry_run: bool, now: float | None = None
) -> list[OldFile]:
    """Removes the old files of a run.

    Args:
        folder: the run.
        keep_days: keep what was written in the last so many days.
        keep_last: keep the newest so many files of each kind in each folder. With both, what either keeps is kept.
        dry_run: only find them.
        now: unix seconds.

    Raises:
        RunBusyError: a driver is at work on the run; nothing was removed.
    """
    if folder.is_locked():
        raise RunBusyError(f"a driver is at work on {folder.root}: nothing of it is pruned")
    # Holding the run keeps a driver from starting between the search and the removal.
    with contextlib.nullcontext() if dry_run else folder.lock():
        old = find_old_files(folder, keep_days=keep_days, keep_last=keep_last, now=now or time.time())
        if not dry_run:
            for file in old:
                file.path.unlink()
    return old


def find_old_files(folder: RunFolder, *, keep_days: float | None, keep_last: int | None, now: float) -> list[OldFile]:
    """The files that nobody wants to keep. The newest of each kind in each folder is always kept."""
    old = []
    for pattern in (file.glob for file in FILES if file.is_pruned):
        for files in _group_by_folder(folder.root, pattern):
            for path in files[: -max(1, keep_last or 1)]:
                status = path.lstat()
                if keep_days is None or now - status.st_mtime > keep_days * _DAY_S:
                    old.append(OldFile(path, status.st_size))
    return old


def _group_by_folder(root: Path, pattern: str) -> list[list[Path]]:
    """Files with a stamp in their name, those of one folder together, oldest first."""
    groups: dict[Path, list[tuple[str, Path]]] = {}
    for path in root.glob(pattern):
        stamp = _STAMPED.search(path.name)
        if stamp and path.is_file():
            groups.setdefault(path.parent, []).append((stamp[1], path))
    return [[path for _, path in sorted(groups[parent], key=lambda found: found[0])] for parent in sorted(groups)]
