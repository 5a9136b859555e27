"""Sends the records of a run to W&B, and writes TensorBoard's files where they are wanted. A process of its own,
started and watched by `wandb_sink.py`: whatever W&B's client does (hang, fail, lose its helper process), it does it
here, and this process can be killed and started again.

    python ray_jobs/tracking/publisher.py [--check-s=60] [--without=KEY ...] RUN online|offline|auto|disabled

It keeps nothing: where to go on is what the server (online) or the local files already hold. A record's line number is
W&B's `_step`. `auto` is online where there is a key, else offline; `disabled` leaves W&B alone. Talks to its parent in
JSON lines on stdout; the line `finish` on stdin makes it send what is left, finish the W&B runs, ask the server what it
holds, and end. When stdin closes, the parent is gone, and it ends."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

if not __package__:  # run as a file, in the user's working directory: imports start at the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import wandb

from ray_jobs.config.run import RunConfig
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines
from ray_jobs.tracking.tensorboard_files import BoardFile
from ray_jobs.tracking.wandb_files import repair_wandb_files
from ray_jobs.tracking.wandb_runs import list_wandb_runs, note_uploaded, without_password
from ray_jobs.tracking.wandb_sink import PublisherExit
from ray_jobs.tracking.wandb_stream import Mode, UnreachableError, WandbStream
from ray_jobs.tracking.wandb_tries import end_cores, note_cores

_POLL_S, _SAY_S = 0.5, 1.0
_MAX_REASON_CHARS = 300


def main(argv: list[str]) -> int:
    given = parse(argv)
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no event
    os.nice(10)  # training goes first
    return publish(given, sys.stdin, events)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What is typed behind the file's name."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--check-s", type=float, default=60.0, help="between two looks at what the server holds")
    arguments.add_argument("--without", action="append", default=[], help="key of a W&B run that is left out")
    arguments.add_argument("run")
    arguments.add_argument("mode", choices=("online", "offline", "auto", "disabled"))
    return arguments.parse_args(argv)


def publish(given: argparse.Namespace, words: Iterable[str], events: TextIO) -> int:
    """Publishes a run's records.

    Args:
        given: see `parse`.
        words: the parent's, in lines; they end with it.
        events: where to tell it what happens.

    Returns:
        A `PublisherExit`.
    """
    finish, is_over = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(words, finish, is_over), daemon=True).start()
    folder = RunFolder(given.run)
    try:
        mode = _choose_mode(given.mode, events)
        if mode is None:
            return PublisherExit.UNREACHABLE
        with _only_publisher(folder):
            return Publisher(folder, folder.read_config(), mode, events, given.check_s, given.without).run(finish)
    except Exception as error:  # W&B's client has a bug, or does not take its settings: a fresh process tries it again
        _say_failed(events, error, None)
        return PublisherExit.FAILED
    finally:
        is_over.set()  # the parent lets go as soon as nothing more is said, and the exit code is what it wants to know


def _choose_mode(wanted: str, events: TextIO) -> Mode | None:
    """The mode, or None: it has to be online, and there is no key."""
    if wanted in ("offline", "disabled"):
        return "offline" if wanted == "offline" else "disabled"
    if _has_key():
        return "online"
    _say(events, "unreachable", has_key=False, reason="there is no API key (WANDB_API_KEY or `wandb login`)")
    return None if wanted == "online" else "offline"


def _listen(words: Iterable[str], finish: threading.Event, is_over: threading.Event) -> None:
    for line in words:
        if line.strip() == "finish":
            finish.set()
    if not is_over.is_set():
        os._exit(PublisherExit.FAILED)  # the parent is gone: a new one starts a new publisher


class Publisher:
    """Follows all records of a run and logs their rows.

    Args:
        folder: the run.
        config: its config.
        mode: online or offline.
        events: where to tell the parent what happens.
        check_s: seconds between two looks at what the server holds.
        without: keys of W&B runs that are left out.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        mode: Mode,
        events: TextIO,
        check_s: float,
        without: Sequence[str] = (),
    ) -> None:
        self.folder, self.config, self.mode, self.events, self.check_s = folder, config, mode, events, check_s
        self.without = without
        self.streams: list[WandbStream] = []
        self.boards: list[BoardFile] = []
        self.writes_boards = config.tracking.tensorboard
        self._follow_runs()
        self.opened: set[str] = set()
        self.reported_at = 0.0
        self.checked_at, self.sent_before = time.monotonic(), dict[str, int]()

    def _follow_runs(self) -> None:
        """Takes up the W&B runs that are new: a tuning's trials come one after another."""
        if self.writes_boards:
            known = [board.key for board in self.boards]
            self.boards += [BoardFile(self.folder, run) for run in list_wandb_runs(self.folder, self.config, known)]
        if self.mode == "disabled":
            return
        known = [*self.without, *(stream.spec.key for stream in self.streams)]
        for run in list_wandb_runs(self.folder, self.config, known):
            for done in repair_wandb_files(self.folder.wandb, run.id):
                self.say("repaired", done=done)
            self.streams.append(WandbStream(self.folder, self.config, run, self.mode, self._say_stop))

    def run(self, finish: threading.Event) -> int:
        """Publishes until it is told to finish; returns the exit code."""
        while True:
            is_last = finish.is_set()  # before the records are read: rows written until then are seen
            if self.folder.is_tuning():
                self._follow_runs()
            num_new = self._write_boards()
            for stream in self.streams:
                try:
                    num_new += stream.publish_new()
                except UnreachableError as error:
                    self.say("unreachable", has_key=True, reason=str(error))
                    return PublisherExit.UNREACHABLE
                except Exception as error:  # wandb-core died, or W&B's client has a bug: a fresh process goes on
                    self._say_opened()
                    _say_failed(self.events, error, stream.spec.key)
                    return PublisherExit.FAILED
            self._say_opened()
            self._say_progress()
            if self._has_stalled():
                reason = "its upload has ended; after an answer such as 404 it does not begin again"
                self.say("failed", reason=reason, part=None)
                return PublisherExit.FAILED
            if num_new == 0:
                if is_last:
                    break
                finish.wait(_POLL_S)
        return self._finish()

    def _write_boards(self) -> int:
        """Writes new rows to TensorBoard's files; returns how many. They end with the first row that cannot be
        written."""
        try:
            return sum(board.publish_new() for board in self.boards)
        except OSError as error:
            self.say("boards_ended", reason=str(error))
            self.boards, self.writes_boards = [], False
            return 0

    def say(self, event: str, **values: Any) -> None:
        """Tells the parent, which shows it."""
        _say(self.events, event, **values)

    def _say_stop(self, wandb_run: str) -> None:
        self.say("stop_requested", run=wandb_run)

    def _say_opened(self) -> None:
        for stream in self.streams:
            if stream.run is not None and stream.spec.key not in self.opened:
                self.opened.add(stream.spec.key)
                note_cores(self.folder)
                url = stream.run.url if self.mode == "online" else None
                self.say("opened", run=stream.spec.name, part=stream.spec.key, first_step=stream.first_step, url=url)

    def _say_progress(self) -> None:
        if time.monotonic() - self.reported_at > _SAY_S:
            self.reported_at = time.monotonic()
            self.say("published", rows={stream.spec.key: stream.next_step for stream in self.streams})

    def _has_stalled(self) -> bool:
        """Whether the server answers, but lacks rows that were logged before the last look."""
        if self.mode != "online" or time.monotonic() - self.checked_at < self.check_s:
            return False
        open_streams = [stream for stream in self.streams if stream.run is not None and not stream.is_closed]
        lacking = [
            stream for stream in open_streams if 0 <= stream.count_held() < self.sent_before.get(stream.spec.key, 0)
        ]
        self.checked_at = time.monotonic()
        self.sent_before = {stream.spec.key: stream.next_step for stream in open_streams}
        return bool(lacking)

    def _finish(self) -> int:
        self.reported_at = 0.0
        self._say_progress()
        for stream in self.streams:
            stream.close()
        wanted = {stream.spec.key: count_lines(stream.spec.record) for stream in self.streams}
        if self.mode != "online":
            sent = {stream.spec.key: stream.next_step for stream in self.streams}
            return PublisherExit.DONE if _covers(sent, wanted) else PublisherExit.INCOMPLETE
        held = {stream.spec.key: stream.count_held() for stream in self.streams}
        note_uploaded(self.folder, held)
        self.say("held", rows=held)
        return PublisherExit.DONE if _covers(held, wanted) else PublisherExit.INCOMPLETE


def _say(events: TextIO, event: str, **values: Any) -> None:
    events.write(without_password(json.dumps({"event": event, **values})) + "\n")


def _say_failed(events: TextIO, error: Exception, part: str | None) -> None:
    """The reason in one line for the parent; where it came from is in the log."""
    print(without_password("".join(traceback.format_exception(error))), file=sys.stderr)
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", _MAX_REASON_CHARS, placeholder=" ...")
    _say(events, "failed", reason=reason.rstrip(": "), part=part)


def _covers(held: dict[str, int], wanted: dict[str, int]) -> bool:
    """Whether there is at least every row. There may be more: those of a fold that has to repeat its last steps."""
    return all(held[key] >= number for key, number in wanted.items())


def _has_key() -> bool:
    """Whether there is a key for the server (environment, netrc, W&B's settings); the server is not asked."""
    try:
        return wandb.login(prompt=False, verify=False)
    except wandb.Error:
        return False


@contextlib.contextmanager
def _only_publisher(folder: RunFolder) -> Iterator[None]:
    """One publisher a run: the last one of a driver that was killed, and its wandb-core, end before this one begins."""
    folder.wandb.mkdir(parents=True, exist_ok=True)
    with folder.publisher_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        end_cores(folder)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
