"""Append-only JSON lines: the metric record of a fold or of the ensemble, and the run's events. The source of truth of
tracking: W&B, CSV files, gauges and reports are made from it.

One writer a file. Each line is one `os.write` on an `O_APPEND` file, so a line that was written survives the writer's
SIGKILL; `sync` makes it survive the machine's.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.files import append_whole
from trainers.storage.whole_files import remove_unfinished, write_whole


class Record:
    """Writer of one file of JSON lines.

    Opening puts a new file under the name, with the lines to keep. A writer of an earlier attempt that is still alive
    holds the old one, which no longer has a name: what it writes goes nowhere.

    Args:
        path: the file.
        keep: lines to keep from its beginning (a checkpoint's position); None: all whole ones. A torn last line goes.
        confirm: called just before the new file gets the name; raises an error where another writer has begun.

    Raises:
        RunFolderError: the file has fewer whole lines than are to be kept.
    """

    def __init__(self, path: Path, *, keep: int | None = None, confirm: Callable[[], object] | None = None) -> None:
        self.path = path
        remove_unfinished(path)
        lines = _whole_lines(path)
        if keep is not None and keep > len(lines):
            raise RunFolderError(f"{path} has {len(lines)} whole lines, but {keep} were written before the checkpoint")
        self.num_lines = len(lines) if keep is None else keep
        write_whole(path, b"".join(lines[: self.num_lines]), confirm=confirm)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append(self, values: Mapping[str, Any]) -> None:
        """Adds one line. NaN and infinity, which JSON does not have, become null.

        Raises:
            TypeError: a value is neither a scalar nor made of lists, mappings and scalars.
            OSError: the disk does not take the line; nothing of it stays behind.
        """
        append_whole(self._file, (_to_json(values) + "\n").encode(), self.path)
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

    def log(self, global_step: int, metrics: Mapping[str, Any], *, at: float | None = None) -> dict[str, Any]:
        """Adds one row and returns it as it was written: scalars of NumPy and torch as Python's, what is not finite as
        None.

        Args:
            global_step: optimiser step (or event number) that the values belong to.
            metrics: by catalogue name; a table is {"columns": [...], "data": [[...], ...]}, a picture
                {"image": path below the run's folder}.
            at: unix seconds; now if not given.
        """
        at = at if at is not None else time.time()
        values = {name: _to_plain(value) for name, value in metrics.items()}
        row = {"step": self.num_lines, "global_step": global_step, "time": at, **values}
        self.append(row)
        return row


def log_news(path: Path, metrics: Mapping[str, Any]) -> None:
    """Adds a row to a metric record, unless it would only repeat what the rows before say: a stage that a kill made run
    twice leaves one row."""
    known: dict[str, Any] = {}
    for row in read_lines(path):
        known |= row
    news = json.loads(_to_json(metrics))
    if any(name not in known or known[name] != value for name, value in news.items()):
        record = MetricRecord(path)
        record.log(record.num_lines, metrics)
        record.close()


class RecordReader:
    """Follows a metric record that may still grow, and that a new attempt may replace by a shorter one.

    Args:
        path: the file; it need not be there yet.
        next_step: rows before this step are left out.
    """

    def __init__(self, path: Path, next_step: int = 0) -> None:
        self.path, self.next_step = path, next_step
        self._file: BinaryIO | None = None  # kept open: as long as it is, no other file can get its inode number

    def read_new(self, limit: int = 1_000, *, end: int | None = None) -> list[dict[str, Any]]:
        """Whole rows that were added since the last call, at most `limit`, of the file's first `end` bytes. A row that
        a replaced file had, too, is not given again: it has the same values, since a continued run repeats its steps
        exactly."""
        self._follow_name()
        rows: list[dict[str, Any]] = []
        while self._file and len(rows) < limit:
            line = self._file.readline()
            if not line.endswith(b"\n") or (end is not None and self._file.tell() > end):
                self._file.seek(-len(line), os.SEEK_CUR)  # the end, or a line that is being written or may not count
                break
            row = json.loads(line)
            if row["step"] >= self.next_step:
                rows.append(row)
                self.next_step = row["step"] + 1
        return rows

    def close(self) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()

    def _follow_name(self) -> None:
        """Opens the file that has the name now, if it is another."""
        try:
            current = os.stat(self.path)
        except FileNotFoundError:
            return
        if self._file and os.fstat(self._file.fileno()).st_ino == current.st_ino:
            return
        self.close()
        self._file = self.path.open("rb")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a record; a torn last line is left out.

    Raises:
        RunFolderError: a line is no JSON; the message names it.
    """
    rows = []
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise RunFolderError(f"{path} is damaged in line {number}: {error}") from None
    return rows


def count_lines(path: Path) -> int:
    """Whole lines of a record."""
    return len(_whole_lines(path))


def _whole_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


def _to_json(values: Mapping[str, Any]) -> str:
    try:
        return _encode(values)
    except ValueError:  # a value is not finite
        return _encode(_without_infinities(json.loads(_encode(values, allow_nan=True))))


def _encode(values: Mapping[str, Any], *, allow_nan: bool = False) -> str:
    return json.dumps(values, separators=(",", ":"), allow_nan=allow_nan, default=_to_scalar)


def _to_plain(value: Any) -> Any:
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_scalar(value: Any) -> Any:
    """A scalar of NumPy or torch inside a table."""
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(
        f"a metric must be a number, a string, a table or a picture, found {type(value).__name__}: {value!r}"
    )


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinities(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_infinities(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
