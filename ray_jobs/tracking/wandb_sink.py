"""Keeps a publisher process at work while a run goes on, and bounds what its end may cost. Loads no wandb.

Whatever W&B does, training neither waits for it nor hears of it: the metric record is on disk, and what did not reach
the server is sent by the next publisher or by `wandb_sync.py`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from ray_jobs.config.run import RunConfig
from ray_jobs.config.words import write_command
from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.record import count_lines
from ray_jobs.tracking.wandb_files import find_wandb_files, mark_as_synced
from ray_jobs.tracking.wandb_runs import WandbRun, list_wandb_runs, settle_ids
from ray_jobs.tracking.wandb_settings import choose_wandb_mode, read_wandb_settings
from ray_jobs.tracking.wandb_tries import Tries

PUBLISHER = [sys.executable, str(Path(__file__).with_name("publisher.py"))]
# After the server could not be reached; twice as long each time.
RETRY_ONLINE_S, _MAX_RETRY_ONLINE_S = 300.0, 3600.0
# Waits after the first failure, and how they grow with each further one without coming further: to an hour, or at the
# end of a run to a minute.
_RESTART_S, _MAX_RESTART_S, _MAX_RESTART_AT_END_S = 1.0, 3600.0, 60.0
_GROWTH, _GROWTH_AT_END = 5, 2
# Then the client is given up; or the W&B run at which it fails, and further ones sooner.
_MAX_TRIES, _MAX_TRIES_OF_RUN, _MAX_TRIES_OF_FURTHER = 7, 4, 2
# Servers count rows some time after they have taken them.
_MAX_LOOKS = 8
_MAX_NAMED = 6
_SILENT_WAIT_S = 3.0
_HURRY_S = 5.0
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
        config: its config; where it or W&B's own settings say `disabled`, W&B gets nothing.
        say: shows a line to the user.
        on_stop: called when somebody presses "Stop" on a W&B page.
        on_progress: called about once a second with the rows handed to W&B's client, by the W&B run's key.
        falls_back: write W&B's offline files while the server cannot be reached; else it is an upload that has to end.
        put: puts the run's records into object storage, if it is there; W&B gets the rows that have been put.
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
        put: Callable[[], object] = lambda: None,
    ) -> None:
        self.put = put
        self.folder, self.config, self.say, self.on_stop = folder, config, say, on_stop
        self.storage = Storage(folder, 0.0)
        self.on_progress, self.falls_back = on_progress, falls_back
        self.settings = read_wandb_settings()
        self.wanted, self.wanted_words = choose_wandb_mode(config, self.settings, os.environ)
        self.wants_online = self.wanted in ("auto", "online")
        self.mode = "online" if self.wants_online else self.wanted
        self.held: dict[str, int] = {}
        self.has_key = True
        self.has_warned = self.is_started = False
        self.tries, self.retry_s = Tries(folder), RETRY_ONLINE_S
        self.reason = ""
        self.failing_part: str | None = None
        self.told_reason = ""
        self.left_out: set[str] = set()
        self.tries_left_out_again = falls_back
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
        if self.falls_back:
            self.say(f"W&B: {self.wanted_words}")
        if self.wanted != "disabled" or self.config.tracking.tensorboard:
            self.is_started = True
            self.thread.start()

    def finish(self, timeout_s: float) -> bool:
        """Sends what is left, waits at most `timeout_s`, and says what came of it.

        Returns:
            Whether the server is known to hold every row.
        """
        if not self.is_started:
            return False
        self._put_records()
        self.is_finishing.set()
        self._ask_to_finish()
        self._wait(timeout_s)
        if self.thread.is_alive() and not self.reason:
            self.reason = f"not sent within {timeout_s:.0f} s"
        self.kill()
        if self.wanted == "disabled":
            return False
        try:
            return self._conclude()
        except OSError as error:  # a full disk must not fail a finished run
            self.say(f"W&B: {error}")
            return False

    def _put_records(self) -> None:
        """As far as the object storage takes them: whoever holds the run tries it again, and tells the user."""
        with contextlib.suppress(OSError, RunError):
            self.put()

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
            lacking = [key for key, number in wanted.items() if number > self.held.get(key, 0)]
            self._say_missing(missing, total, runs, lacking)
            return False
        for run in runs:
            mark_as_synced(self.folder.wandb, run.id)  # `wandb sync` would send their rows a second time
        self.say(f"W&B holds all {total} rows")
        return True

    def _say_missing(self, missing: int, total: int, runs: Sequence[WandbRun], lacking: Sequence[str]) -> None:
        sync = f"`{write_command('wandb_sync.py', [str(self.folder.root)])}`"
        if HAS_GAP in self.held.values():
            self.say(
                f"W&B lacks rows in the middle of a run; {sync[:-1]} --new-ids` uploads everything as new W&B runs"
            )
        elif not self.falls_back:
            named = ", ".join(lacking[:_MAX_NAMED]) + (", ..." if len(lacking) > _MAX_NAMED else "")
            why = f": {self.reason}" if self.reason else ""
            self.say(
                f"W&B: {missing} of {total} rows are not known to be uploaded ({named}{why}); nothing is lost: try "
                "again later"
            )
        elif not self.wants_online or not self.has_key:
            files = [path for run in runs for path in find_wandb_files(self.folder.wandb, run.id)]
            all_offline = all(path.parent.name.startswith("offline-") for path in files)
            also = ", or `wandb sync` while the folder is where it is" if all_offline else ""
            self.say(f"W&B: {total} rows offline in {self.folder.wandb}; {sync} uploads them{also}")
        else:
            self.say(
                f"W&B: {missing} of {total} rows are not known to be uploaded; nothing is lost: {sync} uploads what "
                "is missing"
            )

    def _wait(self, timeout_s: float) -> None:
        """Waits for the publisher; says so when it takes long, and takes Ctrl-C for impatience with W&B alone."""
        silent_s, what = min(timeout_s, _SILENT_WAIT_S), "W&B"
        if self.wanted == "disabled":
            what = "TensorBoard's files"
        try:
            self.thread.join(silent_s)
            if self.thread.is_alive() and timeout_s > silent_s:
                self.say(
                    f"waiting for {what}, {timeout_s - silent_s:.0f} s at most (Ctrl-C: do not wait; nothing is lost)"
                )
                self.thread.join(timeout_s - silent_s)
        except KeyboardInterrupt:
            self.say(f"not waiting for {what}")

    def kill(self) -> None:
        """Ends the publisher at once."""
        with self.lock:
            self.is_done.set()
        if self.child is not None:
            self.child.kill()
        self.thread.join(_HURRY_S)

    def _keep_publishing(self) -> None:
        """Runs publishers one after another until the records are sent or `kill` is called. In a thread of its own."""
        gave_up = False
        while not self.is_done.is_set():
            self.tries.begin()
            ended = self._run_publisher_or_warn(ends_to_retry=self.wants_online and self.has_key and not gave_up)
            if ended != PublisherExit.DONE and (self.tries.failures or not self.is_done.is_set()):
                self._remove_leftovers()
            if ended == PublisherExit.UNREACHABLE:
                gave_up = self.is_finishing.is_set() or not self.has_key
                if not self.falls_back:
                    return
                self.mode = "offline"
            elif ended == PublisherExit.DONE:
                if self.is_finishing.is_set() and self.left_out and self.tries_left_out_again:
                    self.tries_left_out_again = False  # the server may be another by now
                    self.left_out.clear()
                elif self.mode != "offline" or not self.wants_online or gave_up or not self.has_key:
                    return
                else:
                    self.mode = "online"  # from offline because the server could not be reached: once more
            elif not self.is_done.is_set():
                is_in_vain = self._has_not_arrived() if ended == PublisherExit.INCOMPLETE else self._is_in_vain()
                if is_in_vain and (self.mode == "disabled" or not self.config.tracking.tensorboard):
                    return
                if is_in_vain:
                    # TensorBoard's files go on.
                    self.mode = "disabled"

    def _has_not_arrived(self) -> bool:
        """Takes in that all was sent but is not held, and waits; whether there is no more hope."""
        if not self.is_finishing.is_set():  # offline: rows came while the files were closed
            self._pause(1)
            return False
        what = "does not say what it holds" if -1 in self.held.values() else "does not hold what it was sent"
        self.reason = f"the server {what}"
        number = self.tries.count_failure(None, held=sum(max(0, rows) for rows in self.held.values()))
        if number < _MAX_LOOKS:
            self._pause(number)
        return number >= _MAX_LOOKS

    def _is_in_vain(self) -> bool:
        """Takes in a failure, and waits; whether it is the last one. Where it is always the same W&B run at which W&B's
        client fails, that one is left out and the others go on."""
        part = self.failing_part
        number = self.tries.count_failure(part)
        limit = _MAX_TRIES if part is None else _MAX_TRIES_OF_FURTHER if self.left_out else _MAX_TRIES_OF_RUN
        if number < (min(limit, _MAX_TRIES_OF_RUN) if self.is_finishing.is_set() else limit):
            self._pause(number)
            return False
        if self.falls_back and not (self.is_finishing.is_set() and part is not None):
            what = "the run goes on without W&B" if part is None else f"{part} is left out there, all else goes on"
            why = "" if self.reason == self.told_reason else f" ({self.reason})"
            self.say(f"W&B's client has failed {number} times in the same way{why}: {what}")
        if part is not None:
            self.left_out.add(part)
        return part is None

    def _pause(self, number: int) -> None:
        """Waits after the so many-th failure in a row; the beginning of the run's end cuts it short."""
        if self.is_finishing.is_set():
            self.is_done.wait(min(_RESTART_S * _GROWTH_AT_END ** (number - 1), _MAX_RESTART_AT_END_S))
        else:
            self.is_finishing.wait(min(_RESTART_S * _GROWTH ** (number - 1), _MAX_RESTART_S))

    def _remove_leftovers(self) -> None:
        try:
            self.tries.remove_leftovers()
        except OSError as error:  # the next publisher says what is wrong with the disk
            self.reason = self.reason or str(error)

    def _run_publisher_or_warn(self, *, ends_to_retry: bool) -> int:
        """As `_run_publisher`; whatever goes wrong here (a full disk, a closed terminal) is only one more failure."""
        self.failing_part = None
        try:
            ended = self._run_publisher(ends_to_retry=ends_to_retry)
        except Exception as error:
            self._warn_of_failure(
                str(error), f"the publisher for W&B cannot be run ({error}); it is tried again, training goes on"
            )
            return PublisherExit.FAILED
        if ended > 0 and ended not in set(PublisherExit):  # not killed, and no end of its own: wandb cannot be imported
            reason = f"does not start, see {self.folder.wandb_log}"
            self._warn_of_failure(reason, f"W&B's client {reason}; training goes on")
        elif ended < 0 and not self.is_done.is_set():
            self.reason = f"ended by {signal.Signals(-ended).name}"
        return ended

    def _run_publisher(self, *, ends_to_retry: bool) -> int:
        """Runs one publisher to its end; returns its exit code."""
        self.storage.check()
        settle_ids(self.folder, self.config)
        self._put_records()  # and the ids: a driver on another machine would choose others
        with self.lock:
            if self.is_done.is_set():
                return PublisherExit.FAILED
            self.child = self._start_child()
        if self.is_finishing.is_set():
            self._ask_to_finish()
        retry = threading.Timer(self.retry_s, self._ask_to_finish)
        retry.daemon = True
        if self.mode == "offline" and ends_to_retry:
            retry.start()
            self.retry_s = min(2 * self.retry_s, _MAX_RETRY_ONLINE_S)
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
        cache = self.folder.wandb / "cache"
        environment |= {name: str(cache) for name in ("WANDB_CACHE_DIR", "WANDB_DIR")}
        environment |= {"WANDB_DATA_DIR": str(self.folder.wandb), "WANDB_MODE": self.mode}
        if "base_url" in self.settings.values:
            environment.setdefault("WANDB_BASE_URL", self.settings.values["base_url"])
        environment.setdefault("WANDB_HTTP_TIMEOUT", "10")  # logging a table asks the server, and waits
        environment["WANDB_SILENT"] = "true"  # W&B's client would log its server's address with the password in it
        # Without a key it goes on offline by itself: another process would load W&B's client a second time.
        mode = "auto" if self.mode == "online" and self.falls_back else self.mode
        command = [*PUBLISHER, *(f"--without={key}" for key in sorted(self.left_out)), str(self.folder.root), mode]
        place = None  # the user's working directory: W&B's client reads its other settings there
        if self.settings.problem:  # it would end at a file that is no text
            cache.mkdir(parents=True, exist_ok=True)
            place, environment["WANDB_CONFIG_DIR"] = cache, str(cache)
        with self.folder.wandb_log.open("a") as log:
            return subprocess.Popen(
                command,
                cwd=place,
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
            case "opened":
                self._hear_opened(event)
            case "published":
                self.on_progress(event["rows"])
            case "held":
                self.held = event["rows"]
            case "unreachable":
                self._hear_unreachable(event)
            case "repaired":
                self.say(f"W&B: {event['done']}")
            case "failed":
                reason, self.failing_part = event["reason"], event["part"]
                self._warn_of_failure(reason, f"W&B's client failed ({reason}); it is started again, training goes on")
            case "boards_ended":
                self.say(f"TensorBoard's files end here ({event['reason']}); training goes on")
            case "stop_requested":
                self.on_stop(event["run"])

    def _hear_opened(self, event: dict[str, Any]) -> None:
        self.tries.note_start(event["part"], event["first_step"])
        if event["url"]:
            self.retry_s = RETRY_ONLINE_S
        if event["url"] and event["run"] not in self.addresses:
            self.addresses[event["run"]] = event["url"]
            self.say(f"W&B: {event['run']} at {event['url']}")

    def _hear_unreachable(self, event: dict[str, Any]) -> None:
        self.has_key = event["has_key"]
        if not self.has_key and self.falls_back:
            self.mode = "offline"
        if not self.falls_back:
            self._warn_once(f"W&B cannot be reached: {event['reason']}")
        elif self.has_key:
            self._warn_once(f"W&B cannot be reached ({event['reason']}); rows go to offline files, training goes on")
        elif self.wanted == "online":
            self._warn_once(f"W&B: {event['reason']}; rows go to offline files")

    def _warn_of_failure(self, reason: str, text: str) -> None:
        """Says it once; an upload that has to end says it at its end."""
        self.reason = reason
        if self.falls_back and not self.has_warned:
            self.told_reason = reason
            self._warn_once(text)

    def _warn_once(self, text: str) -> None:
        if not self.has_warned:
            self.has_warned = True
            self.say(text)
