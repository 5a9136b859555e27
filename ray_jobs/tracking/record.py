"""Append-only JSON lines: the metric record of a fold or of the ensemble, and the run's events.

One writer a file. Each line is one `os.write` on an `O_APPEND` file, so a line that was written survives the writer's
SIGKILL; `sync` makes it survive the machine's.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Record:
    """Writer of one file of JSON lines.

    Args:
        path: the file.
        fresh: start an empty file under the same name. A writer that still holds the old one writes into a file that
            no longer has a name: a survivor of an earlier attempt adds nothing. Otherwise a torn last line is cut off
            and lines are added.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.num_lines = 0 if fresh else self._cut_torn_line()

    def _cut_torn_line(self) -> int:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) != len(content):
            os.ftruncate(self._file, len(whole))
        return whole.count(b"\n")

    def append(self, values: Mapping[str, Any]) -> None:
        """Adds one line. NaN and infinity, which JSON does not have, become null."""
        line = json.dumps({name: _jsonable(value) for name, value in values.items()}, separators=(",", ":")) + "\n"
        os.write(self._file, line.encode())
        self.num_lines += 1

    def sync(self) -> None:
        """Returns when all lines are on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Syncs and closes."""
        self.sync()
        os.close(self._file)


class MetricRecord(Record):
    """Lines `{"step": line number, "global_step": n, "time": unix seconds, "<name>": value, ...}`."""

    def log(self, global_step: int, metrics: Mapping[str, Any], *, at: float | None = None) -> None:
        """Adds one row.

        Args:
            global_step: optimiser step (or event number) that the values belong to.
            metrics: by catalogue name; a table is {"columns": [...], "data": [[...], ...]}.
            at: unix seconds; now if not given.
        """
        self.append(
            {
                "step": self.num_lines,
                "global_step": global_step,
                "time": at if at is not None else time.time(),
                **metrics,
            }
        )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a record; a torn last line is left out."""
    if not path.exists():
        return []
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
