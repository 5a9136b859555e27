"""Sends the records of a run to W&B. A process of its own, started and watched by `wandb_sink.py`: whatever W&B's client
does (hang, fail, lose its helper process), it does it here, and this process can be killed and started again.

    python -m ray_jobs.tracking.publisher [--check-s=60] RUN online|offline

It keeps nothing: where to go on is what the server (online) or the local `.wandb` files (offline) already hold. A record's
line number is W&B's `_step`. Talks to its parent in JSON lines on stdout; the line `finish` on stdin makes it send what
is left, finish the W&B runs, ask the server what it holds, and end. When stdin closes, the parent is gone, and it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import wandb

from ray_jobs.config import RunConfig
from ray_jobs.run_folder import RunFolder, read_json, write_json
from ray_jobs.tracking.record import RecordReader, count_lines
from ray_jobs.tracking.wandb_files import find_wandb_files, read_wandb_file, repair_wandb_files
from ray_jobs.tracking.wandb_runs import WandbRun, list_wandb_runs, note_uploaded, read_uploaded
from ray_jobs.tracking.wandb_sink import PublisherExit

INIT_TIMEOUT_S, FINISH_TIMEOUT_S = 20, 30
_POLL_S, _SAY_S = 0.5, 1.0


def main(argv: list[str]) -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--check-s", type=float, default=60.0, help="between two looks at what the server holds")
    arguments.add_argument("run")
    arguments.add_argument("mode", choices=("online", "offline"))
    given = arguments.parse_args(argv)
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no event
    os.nice(10)  # training goes first
    finish = threading.Event()
    threading.Thread(target=_listen, args=(finish,), daemon=True).start()
    folder = RunFolder(given.run)
    with _only_publisher(folder):
        return Publisher(folder, folder.read_config(), given.mode, events, given.check_s).run(finish)


def _listen(finish: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "finish":
            finish.set()
    os._exit(PublisherExit.FAILED)  # the parent is gone: a new one starts a new publisher


class Publisher:
    """Follows all records of a run and logs their rows.

    Args:
        folder: the run.
        config: its config.
        mode: online or offline.
        events: where to tell the parent what happens.
        check_s: seconds between two looks at what the server holds.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, mode: str, events: TextIO, check_s: float) -> None:
        self.folder, self.config, self.mode, self.events, self.check_s = folder, config, mode, events, check_s
        self.streams = [_Stream(run, self) for run in list_wandb_runs(folder, config)]
        self.said_at = 0.0
        self.checked_at, self.sent_before = time.monotonic(), dict[str, int]()

    def run(self, finish: threading.Event) -> int:
        """Publishes until it is told to finish; returns the exit code."""
        if self.mode == "online" and not _has_key():
            self.say("unreachable", has_key=False, reason="there is no API key (WANDB_API_KEY or `wandb login`)")
            return PublisherExit.UNREACHABLE
        while True:
            is_last = finish.is_set()  # before the records are read: rows written until then are seen
            try:
                num_new = sum(stream.publish_new() for stream in self.streams)
            except _UnreachableError as error:
                self.say("unreachable", has_key=True, reason=str(error))
                return PublisherExit.UNREACHABLE
            except Exception as error:  # wandb-core died, or W&B's client has a bug: a fresh process goes on
                self.say("failed", reason=f"{type(error).__name__}: {error}")
                return PublisherExit.FAILED
            self._say_progress()
            if self._has_stalled():
                self.say("failed", reason="its upload has ended; after an answer such as 404 it does not begin again")
                return PublisherExit.FAILED
            if num_new == 0:
                if is_last:
                    break
                finish.wait(_POLL_S)
        return self._finish()

    def say(self, event: str, **values: Any) -> None:
        """Tells the parent."""
        self.events.write(json.dumps({"event": event, **values}) + "\n")

    def _say_progress(self) -> None:
        if time.monotonic() - self.said_at > _SAY_S:
            self.said_at = time.monotonic()
            self.say("published", rows={stream.spec.key: stream.next_step for stream in self.streams})

    def _has_stalled(self) -> bool:
        """Whether the server answers, but lacks rows that were logged before the last look."""
        if self.mode == "offline" or time.monotonic() - self.checked_at < self.check_s:
            return False
        open_streams = [stream for stream in self.streams if stream.run is not None and not stream.is_closed]
        lacking = [
            stream for stream in open_streams if 0 <= stream.count_held() < self.sent_before.get(stream.spec.key, 0)
        ]
        self.checked_at = time.monotonic()
        self.sent_before = {stream.spec.key: stream.next_step for stream in open_streams}
        return bool(lacking)

    def _finish(self) -> int:
        self.said_at = 0.0
        self._say_progress()
        for stream in self.streams:
            stream.close()
        if self.mode == "offline":
            return PublisherExit.DONE
        held = {stream.spec.key: stream.count_held() for stream in self.streams}
        wanted = {stream.spec.key: count_lines(stream.spec.record) for stream in self.streams}
        note_uploaded(self.folder, self.config, held)
        self.say("held", rows=held)
        return PublisherExit.DONE if held == wanted else PublisherExit.INCOMPLETE


class _UnreachableError(Exception):
    """`wandb.init` failed: no server, or one that refuses."""


class _Stream:
    """One record and the W&B run that shows it; the W&B run begins with the first row that is not there yet."""

    def __init__(self, spec: WandbRun, publisher: Publisher) -> None:
        self.spec, self.publisher = spec, publisher
        self.run: wandb.Run | None = None
        self.is_closed = False
        self.num_known = self._count_known()
        self.reader = RecordReader(spec.record, self.num_known)

    @property
    def next_step(self) -> int:
        return self.reader.next_step

    def _count_known(self) -> int:
        """Rows that are known to be there without asking the server."""
        folder = self.publisher.folder
        if self.publisher.mode == "online":
            return read_uploaded(folder, self.publisher.config).get(self.spec.key, 0)
        held = [read_wandb_file(path) for path in find_wandb_files(folder.wandb, self.spec.id)]
        return 1 + max((file.last_step for file in held), default=-1)

    def publish_new(self) -> int:
        """Logs rows that have come; returns how many were read."""
        if self.is_closed:
            return 0
        rows = self.reader.read_new()
        if rows and self.run is None:
            self._open()
        for row in rows:
            if row["step"] >= self.num_known:
                self.run.log(self._to_wandb(row), step=row["step"], commit=True)
        if not rows and self.run is not None and self._is_fold_complete():
            self.close()
        return len(rows)

    def close(self) -> None:
        """Finishes the W&B run; bounded by W&B's own `finish_timeout`, and by the parent, who can kill this process."""
        if self.run is not None and not self.is_closed:
            self.is_closed = True
            is_good = self._is_fold_complete() or not self.spec.key.startswith("fold_")
            self.run.finish(exit_code=0 if is_good else 1)

    def count_held(self) -> int:
        """Rows that the server holds; -1 if it does not say."""
        if self.run is None:
            return self.num_known
        return _count_held(f"{self.run.entity}/{self.run.project}/{self.spec.id}")

    def _is_fold_complete(self) -> bool:
        kind, _, number = self.spec.key.partition("_")
        return kind == "fold" and self.publisher.folder.fold(int(number)).is_complete()

    def _open(self) -> None:
        spec, tracking, mode = self.spec, self.publisher.config.tracking, self.publisher.mode
        repair_wandb_files(self.publisher.folder.wandb, spec.id)
        try:
            self.run = wandb.init(
                id=spec.id,
                name=spec.name,
                group=spec.group,
                job_type=spec.job_type,
                project=tracking.project,
                entity=tracking.entity,
                config=spec.config,
                tags=[self.publisher.config.recipe, *tracking.tags],
                dir=self.publisher.folder.root,
                mode=mode,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_code=True,
                    disable_git=True,
                    x_disable_stats=True,
                    x_save_requirements=False,
                    init_timeout=INIT_TIMEOUT_S,
                    finish_timeout=FINISH_TIMEOUT_S,
                    x_transaction_log_flush_interval=1.0,
                    x_file_stream_transmit_interval=5,
                    x_file_stream_retry_wait_min_seconds=0.5,  # a server that is back is found within seconds
                    x_file_stream_retry_wait_max_seconds=10,
                    x_graphql_retry_wait_min_seconds=0.5,
                    x_graphql_retry_wait_max_seconds=10,
                    stop_fn=partial(self.publisher.say, "stop_requested", run=spec.name),
                ),
            )
        except (wandb.Error, OSError) as error:
            raise _UnreachableError(str(error)) from error
        self.run.define_metric("*", step_metric="global_step")
        if mode == "online":
            self.num_known = self.run.starting_step
        _note_core_processes(self.publisher.folder)
        self.publisher.say("opened", run=spec.name, url=self.run.url)

    def _to_wandb(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as W&B shows it: its own time, tables and pictures as W&B's, and no step of ours."""
        values = {name: self._to_wandb_value(value) for name, value in row.items() if name not in ("step", "time")}
        return values | {"_timestamp": row["time"]}

    def _to_wandb_value(self, value: Any) -> Any:
        if value is None:
            return "NaN"  # as W&B's own API gives it back; a bare NaN is no JSON, and resuming the W&B run would fail on it
        if isinstance(value, dict) and "columns" in value:
            return wandb.Table(columns=value["columns"], data=value["data"])
        if isinstance(value, dict) and "image" in value:
            path = self.publisher.folder.root / value["image"]
            return wandb.Image(str(path)) if path.is_file() else f"{value['image']} is not there any more"
        return value


def _has_key() -> bool:
    """Whether there is a key for the server (environment, netrc, W&B's settings); the server is not asked."""
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.Error:
        return False


def _count_held(path: str) -> int:
    """History rows of a W&B run on the server if their steps are 0, 1, 2, ... without a gap; -1 if it does not say."""
    try:
        run = wandb.Api(timeout=INIT_TIMEOUT_S).run(path)
        num_rows, last_step = run.historyLineCount, run.lastHistoryStep
    except (wandb.Error, OSError, ValueError):
        return -1
    return num_rows if num_rows == last_step + 1 else -1


@contextlib.contextmanager
def _only_publisher(folder: RunFolder) -> Any:
    """One publisher a run: the last one of a driver that was killed, and its wandb-core, end before this one begins."""
    folder.wandb.mkdir(parents=True, exist_ok=True)
    with (folder.wandb / "publisher.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for process in read_json(_core_file(folder), default=[]):
            if "wandb-core" in _command(process):
                os.kill(process, signal.SIGKILL)
        yield


def _note_core_processes(folder: RunFolder) -> None:
    """Writes down the wandb-core processes of this one: they are in a session of their own and may outlive it."""
    mine = f"--pid {os.getpid()} "
    processes = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    write_json(_core_file(folder), [p for p in processes if "wandb-core" in _command(p) and mine in _command(p) + " "])


def _core_file(folder: RunFolder) -> Path:
    return folder.wandb / "publisher.json"


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
