"""The lines of `events.jsonl` by fold. A process that asks for them again reads what was added: with K folds, of which
each asks, the whole file would be parsed K times."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.folder import RunFolder

_MOST_FILES = 16  # that are followed at the same time: of the members of a run


def read_events(folder: RunFolder, fold: int) -> list[dict[str, Any]]:
    """The whole lines of a fold, in their order.

    Raises:
        RunFolderError: a line is no JSON; the message names it.
    """
    with _LOCK:
        path = folder.events
        followed = _FOLLOWED.pop(path, None) or _Followed(path)
        followed.catch_up()  # one that is damaged is forgotten, and said again
        _FOLLOWED[path] = followed
        if len(_FOLLOWED) > _MOST_FILES:
            _FOLLOWED.popitem(last=False)[1].close()
        return list(followed.by_fold.get(fold, ()))


class _Followed:
    """A file that grows, or is replaced by another of the same name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: int | None = None  # open: no other file can get its inode number
        self._forget()

    def _forget(self) -> None:
        self.close()
        self.end, self.num_lines = 0, 0
        self.by_fold: dict[int, list[dict[str, Any]]] = {}

    def close(self) -> None:
        """Closes the file."""
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def catch_up(self) -> None:
        """Takes in the lines that were added."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            self._forget()
            return
        if self.file is None or os.fstat(self.file).st_ino != found.st_ino or found.st_size < self.end:
            self._forget()
            self.file = os.open(self.path, os.O_RDONLY)
        added = os.pread(self.file, max(0, found.st_size - self.end), self.end)
        whole = added[: added.rfind(b"\n") + 1]  # what follows is being written
        self.end += len(whole)
        for line in whole.splitlines():
            self.num_lines += 1
            try:
                row = json.loads(line)
            except ValueError as error:
                self.close()
                raise RunFolderError(f"{self.path} is damaged in line {self.num_lines}: {error}") from None
            if "fold" in row:
                self.by_fold.setdefault(row["fold"], []).append(row)


_LOCK = threading.Lock()
_FOLLOWED: OrderedDict[Path, _Followed] = OrderedDict()
