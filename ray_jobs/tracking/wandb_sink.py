"""Keeps a publisher process at work while a run goes on, and bounds what its end may cost. Loads no wandb.

Whatever W&B does, training neither waits for it nor hears of it: the metric record is on disk, and what did not reach the
server is sent by the next publisher or by `wandb_sync.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from ray_jobs.config.run import RunConfig
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.record import count_lines
from ray_jobs.tracking.wandb_files import find_wandb_files, mark_as_synced
from ray_jobs.tracking.wandb_runs import WandbRun, list_wandb_runs, settle_ids

PUBLISHER = [sys.executable, "-m", "ray_jobs.tracking.publisher"]
RETRY_ONLINE_S = 300.0  # after the server could not be reached
_RESTART_S, _MAX_RESTART_S = 1.0, 60.0
_SILENT_WAIT_S = 3.0
_HURRY_S = 5.0
_MAX_BAD_STARTS = 3
HAS_GAP = -2  # a number of rows that says that some are missing in between
# Would give all W&B runs of a run one name or id; WANDB_PROJECT, _ENTITY, _MODE, _NAME are in the config already.
_NOT_INHERITED = (
    "WANDB_RUN_ID", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_RESUME", "WANDB_TAGS", "WANDB_MODE",
    "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR", "WANDB_NOTES", "WANDB_SWEEP_ID", "WANDB_SERVICE",
)  # fmt: skip


class PublisherExit(IntEnum):
    """How a publisher process ended."""

    DONE = 0  # everything sent; online: the server says that it holds it
    FAILED = 3
    UNREACHABLE = 4  # no key, no server, or one that refuses
    INCOMPLETE = 5  # everything sent, but the server does not hold it (yet)


class WandbSink:
    """The W&B side of a run.

    Args:
        folder: the run.
        config: its config; `tracking.wandb=disabled` makes every method do nothing.
        say: shows a line to the user.
        on_stop: called when somebody presses "Stop" on a W&B page.
        on_progress: called about once a second with the rows handed to W&B's client, by the W&B run's key.
        falls_back: write W&B's offline files while the server cannot be reached.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        say: Callable[[str], None],
        *,
        on_stop: Callable[[str], None] = lambda run: None,
        on_progress: Callable[[dict[str, int]], None] = lambda rows: None,
        falls_back: bool = True,
    ) -> None:
        self.folder, self.config, self.say, self.on_stop = folder, config, say, on_stop
        self.storage = Storage(folder, 0.0)
        self.on_progress, self.falls_back = on_progress, falls_back
        self.wants_online = config.tracking.wandb in ("auto", "online")
        self.mode = "online" if self.wants_online else "offline"
        self.held: dict[str, int] = {}
        self.has_key = True
        self.has_warned = self.is_started = False
        self.num_bad_starts = 0
        self.addresses: dict[str, str] = {}
        self.lock = threading.Lock()
        self.is_finishing, self.is_done = threading.Event(), threading.Event()
        self.child: subprocess.Popen[str] | None = None
        self.thread = threading.Thread(target=self._keep_publishing, name="wandb_sink", daemon=True)

    def __enter__(self) -> WandbSink:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Whoever leaves in a hurry (an error, an interrupt) does not want to wait for W&B."""
        if kind is not None and not self.is_finishing.is_set():
            self.finish(min(self.config.tracking.finish_timeout_s, _HURRY_S))

    def start(self) -> None:
        """Starts publishing in the background."""
        if self.config.tracking.wandb != "disabled":
            self.is_started = True
            self.thread.start()

    def finish(self, timeout_s: float) -> bool:
        """Sends what is left, waits at most `timeout_s`, and says what came of it.

        Returns:
            Whether the server is known to hold every row.
        """
        if not self.is_started:
            return False
        self.is_finishing.set()
        self._ask_to_finish()
        self._wait(timeout_s)
        self.kill()
        try:
            return self._conclude()
        except OSError as error:  # a full disk must not fail a finished run
            self.say(f"W&B: {error}")
            return False

    def _conclude(self) -> bool:
        """Compares what the server holds with the records, and says what came of it."""
        shutil.rmtree(self.folder.wandb / "cache" / "artifacts", ignore_errors=True)
        runs = list_wandb_runs(self.folder, self.config)
        wanted = {run.key: count_lines(run.record) for run in runs}
        total = sum(wanted.values())
        missing = sum(max(0, number - max(0, self.held.get(key, 0))) for key, number in wanted.items())
        if not total:
            return False
        if missing:
            self._say_missing(missing, total, runs)
            return False
        for run in runs:
            mark_as_synced(self.folder.wandb, run.id)  # `wandb sync` would send their rows a second time
        self.say(f"W&B holds all {total} rows")
        return True

    def _say_missing(self, missing: int, total: int, runs: Sequence[WandbRun]) -> None:
        sync = f"`python ray_jobs/wandb_sync.py {self.folder.root}`"
        if HAS_GAP in self.held.values():
            self.say(
                f"W&B lacks rows in the middle of a run; {sync[:-1]} --new-ids` uploads everything as new W&B runs"
            )
        elif not self.falls_back:
            self.say(f"W&B: {missing} of {total} rows are not known to be uploaded; nothing is lost: try again later")
        elif not self.wants_online or not self.has_key:
            files = [path for run in runs for path in find_wandb_files(self.folder.wandb, run.id)]
            all_offline = all(path.parent.name.startswith("offline-") for path in files)
            also = ", or `wandb sync` while the folder is where it is" if all_offline else ""
            self.say(f"W&B: {total} rows offline in {self.folder.wandb}; {sync} uploads them{also}")
        else:
            self.say(
                f"W&B: {missing} of {total} rows are not known to be uploaded; nothing is lost: {sync} uploads what is missing"
            )

    def _wait(self, timeout_s: float) -> None:
        """Waits for the publisher; says so when it takes long, and takes Ctrl-C for impatience with W&B alone."""
        silent_s = min(timeout_s, _SILENT_WAIT_S)
        try:
            self.thread.join(silent_s)
            if self.thread.is_alive() and timeout_s > silent_s:
                self.say(
                    f"waiting for W&B, {timeout_s - silent_s:.0f} s at most (Ctrl-C: do not wait; nothing is lost)"
                )
                self.thread.join(timeout_s - silent_s)
        except KeyboardInterrupt:
            self.say("not waiting for W&B")

    def kill(self) -> None:
        """Ends the publisher at once."""
        with self.lock:
            self.is_done.set()
        if self.child is not None:
            self.child.kill()
        self.thread.join(_HURRY_S)

    def _keep_publishing(self) -> None:
        """Runs publishers one after another until the records are sent or `kill` is called. In a thread of its own."""
        delay, gave_up = _RESTART_S, False
        while not self.is_done.is_set() and self.num_bad_starts < _MAX_BAD_STARTS:
            began = time.monotonic()
            ended = self._run_publisher_or_warn(ends_to_retry=self.wants_online and self.has_key and not gave_up)
            if ended == PublisherExit.UNREACHABLE:
                gave_up = self.is_finishing.is_set() or not self.has_key
                if not self.falls_back:
                    return
                self.mode = "offline"
            elif ended == PublisherExit.DONE:
                if self.mode == "online" or not self.wants_online or gave_up or not self.has_key:
                    return
                self.mode = "online"  # from offline because the server could not be reached: once more
            else:  # killed, failed, or the server does not hold everything yet
                delay = _RESTART_S if time.monotonic() - began > _MAX_RESTART_S else min(2 * delay, _MAX_RESTART_S)
                self.is_done.wait(_RESTART_S if self.is_finishing.is_set() else delay)

    def _run_publisher_or_warn(self, *, ends_to_retry: bool) -> int:
        """As `_run_publisher`; whatever goes wrong here (a full disk, a closed terminal) is only one more failure."""
        try:
            ended = self._run_publisher(ends_to_retry=ends_to_retry)
        except Exception as error:
            self._warn_once(f"the publisher for W&B cannot be run ({error}); it is tried again, training goes on")
            return PublisherExit.FAILED
        if ended > 0 and ended not in set(PublisherExit):  # not killed, and no end of its own: wandb cannot be imported
            self.num_bad_starts += 1
            self._warn_once(f"W&B's client does not start, see {self.folder.log / 'wandb.log'}; training goes on")
        return ended

    def _run_publisher(self, *, ends_to_retry: bool) -> int:
        """Runs one publisher to its end; returns its exit code."""
        with self.lock:
            if self.is_done.is_set():
                return PublisherExit.FAILED
            self.storage.check()
            settle_ids(self.folder, self.config)
            self.child = self._start_child()
        if self.is_finishing.is_set():
            self._ask_to_finish()
        retry = threading.Timer(RETRY_ONLINE_S, self._ask_to_finish)
        retry.daemon = True
        if self.mode == "offline" and ends_to_retry:
            retry.start()
        with self.child as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.endswith("\n"):  # the last one of a killed publisher may be torn
                    self._hear(json.loads(line))
        retry.cancel()
        return child.returncode

    def _start_child(self) -> subprocess.Popen[str]:
        self.folder.log.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        # Pictures and tables wait for their upload below the run's folder, not in the user's home.
        cache = str(self.folder.wandb / "cache")
        environment |= {"WANDB_DATA_DIR": str(self.folder.wandb), "WANDB_CACHE_DIR": cache, "WANDB_DIR": cache}
        environment.setdefault("WANDB_HTTP_TIMEOUT", "10")  # logging a table asks the server, and waits
        environment["WANDB_SILENT"] = "true"  # W&B's client would log its server's address with the password in it
        with self.folder.wandb_log.open("a") as log:
            return subprocess.Popen(
                # Without a key it goes on offline by itself: another process would load W&B's client a second time.
                [*PUBLISHER, str(self.folder.root), "auto" if self.mode == "online" and self.falls_back else self.mode],
                cwd=Path(__file__).parents[2],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C on the terminal is for the driver, which ends the publisher in order
            )

    def _ask_to_finish(self) -> None:
        child = self.child
        if child is not None and child.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended
                child.stdin.write("finish\n")
                child.stdin.flush()

    def _hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "opened" if event["url"] and event["run"] not in self.addresses:
                self.addresses[event["run"]] = event["url"]
                self.say(f"W&B: {event['run']} at {event['url']}")
            case "published":
                self.on_progress(event["rows"])
            case "held":
                self.held = event["rows"]
            case "unreachable":
                self._hear_unreachable(event)
            case "repaired":
                self.say(f"W&B: {event['done']}")
            case "failed":
                self._warn_once(f"W&B's client failed ({event['reason']}); it is started again, training goes on")
            case "stop_requested":
                self.on_stop(event["run"])

    def _hear_unreachable(self, event: dict[str, Any]) -> None:
        self.has_key = event["has_key"]
        if not self.has_key and self.falls_back:
            self.mode = "offline"
        if not self.falls_back:
            self._warn_once(f"W&B cannot be reached: {event['reason']}")
        elif self.has_key:
            self._warn_once(f"W&B cannot be reached ({event['reason']}); rows go to offline files, training goes on")
        elif self.config.tracking.wandb == "online":
            self._warn_once(f"W&B: {event['reason']}; rows go to offline files")

    def _warn_once(self, text: str) -> None:
        if not self.has_warned:
            self.has_warned = True
            self.say(text)
