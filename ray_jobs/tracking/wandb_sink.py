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
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

from ray_jobs.config import RunConfig
from ray_jobs.run_folder import RunFolder
from ray_jobs.tracking.record import count_lines
from ray_jobs.tracking.wandb_runs import list_wandb_runs

PUBLISHER = [sys.executable, "-m", "ray_jobs.tracking.publisher"]
RETRY_ONLINE_S = 300.0  # after the server could not be reached
_RESTART_S, _MAX_RESTART_S = 1.0, 60.0
_SILENT_WAIT_S = 3.0
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
        self.on_progress, self.falls_back = on_progress, falls_back
        self.wants_online = config.tracking.wandb in ("auto", "online")
        self.mode = "online" if self.wants_online else "offline"
        self.held: dict[str, int] = {}
        self.has_key = True
        self.has_warned = False
        self.addresses: dict[str, str] = {}
        self.lock = threading.Lock()
        self.is_finishing, self.is_done = threading.Event(), threading.Event()
        self.child: subprocess.Popen[str] | None = None
        self.thread = threading.Thread(target=self._keep_publishing, name="wandb_sink", daemon=True)

    def start(self) -> None:
        """Starts publishing in the background."""
        if self.config.tracking.wandb != "disabled":
            self.thread.start()

    def finish(self, timeout_s: float) -> bool:
        """Sends what is left, waits at most `timeout_s`, and says what came of it.

        Returns:
            Whether the server is known to hold every row.
        """
        if not self.thread.is_alive():
            return False
        self.is_finishing.set()
        self._ask_to_finish()
        self._wait(timeout_s)
        self.kill()
        shutil.rmtree(self.folder.wandb / "cache", ignore_errors=True)
        wanted = {run.key: count_lines(run.record) for run in list_wandb_runs(self.folder, self.config)}
        total, missing = sum(wanted.values()), sum(n - min(n, self.held.get(key, 0)) for key, n in wanted.items())
        if not missing:
            self.say(f"W&B holds all {total} rows")
            return True
        how = f"`python ray_jobs/wandb_sync.py {self.folder.root}` uploads"
        if self.mode == "offline" and not self.has_key:
            self.say(f"W&B: {total} rows offline in {self.folder.wandb}; {how} them, or `wandb sync`")
        else:
            self.say(
                f"W&B: {missing} of {total} rows are not known to be uploaded; nothing is lost: {how} what is missing"
            )
        return False

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
        self.thread.join()

    def _keep_publishing(self) -> None:
        """Runs publishers one after another until the records are sent or `kill` is called. In a thread of its own."""
        delay, gave_up = _RESTART_S, False
        while not self.is_done.is_set():
            began = time.monotonic()
            ended = self._run_publisher(ends_to_retry=self.wants_online and not gave_up)
            if ended == PublisherExit.UNREACHABLE:
                gave_up = self.is_finishing.is_set() or not self.has_key
                if not self.falls_back:
                    return
                self.mode = "offline"
            elif ended == PublisherExit.DONE:
                if self.mode == "online" or not self.wants_online or gave_up:
                    return
                self.mode = "online"  # from offline because the server could not be reached: once more
            else:  # killed, failed, or the server does not hold everything yet
                delay = _RESTART_S if time.monotonic() - began > _MAX_RESTART_S else min(2 * delay, _MAX_RESTART_S)
                self.is_done.wait(_RESTART_S if self.is_finishing.is_set() else delay)

    def _run_publisher(self, *, ends_to_retry: bool) -> int:
        """Runs one publisher to its end; returns its exit code."""
        with self.lock:
            if self.is_done.is_set():
                return PublisherExit.FAILED
            self.child = self._start_child()
        if self.is_finishing.is_set():
            self._ask_to_finish()
        retry = threading.Timer(RETRY_ONLINE_S, self._ask_to_finish)
        retry.daemon = True
        if self.mode == "offline" and ends_to_retry:
            retry.start()
        with self.child as child:
            for line in child.stdout:
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
        with (self.folder.log / "wandb.log").open("a") as log:
            return subprocess.Popen(
                [*PUBLISHER, str(self.folder.root), self.mode],
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
        if child is not None:
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
            case "failed":
                self._warn_once(f"W&B's client failed ({event['reason']}); it is started again, training goes on")
            case "stop_requested":
                self.on_stop(event["run"])

    def _hear_unreachable(self, event: dict[str, Any]) -> None:
        self.has_key = event["has_key"]
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
