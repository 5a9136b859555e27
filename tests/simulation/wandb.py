"""Weights & Biases: a server that refuses, hangs, answers rubbish, loses an answer after it has taken the rows; and
what stands in the place of W&B's client: a helper process for each publisher (wandb-core), which sends rows in its own
time, writes local files that a kill tears, and outlives its publisher for a while."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from simulation.stand_ins import WandbError
from simulation.world import Process, World

FAULTS = ("away", "refusing", "hanging", "rubbish", "lost", "not found")
_SEND_S, _FLUSH_S, _RETRY_S, _ANSWER_S, _SURVIVAL_S = 5.0, 1.0, (0.5, 10.0), 10.0, 20.0
_CHUNK, _WHOLE, _BLOCK_BYTES = struct.Struct("<IHB"), 1, 32 * 1024


class RefusedError(Exception):
    """The server does not answer a request; `is_final`: nor will it another time."""

    def __init__(self, is_final: bool = False) -> None:
        self.is_final = is_final


class WandbServer:
    """The rows of each W&B run, each under its offset.

    Attributes:
        fault: what is wrong with it now: one of `FAULTS`; None: nothing.
        lag_s: until it counts a row that it has taken.
        on_rows: called with (run, offset, rows) when rows come.
    """

    def __init__(self, world: World) -> None:
        self.world, self.fault, self.lag_s = world, None, 0.0
        self.runs: dict[str, dict[int, dict[str, Any]]] = {}
        self.came_at: dict[tuple[str, int], float] = {}
        self.on_rows: Callable[[str, int, list[dict[str, Any]]], None] = lambda run, offset, rows: None
        self.fault: str | None

    def open(self, run: str, timeout_s: float) -> int:
        """Begins a run or goes on with it; returns its rows."""
        self._ask(f"open {run}", timeout_s)
        self.runs.setdefault(run, {})
        self._lose_answer()
        return self._count(run)

    def take(self, run: str, offset: int, rows: list[dict[str, Any]]) -> None:
        """Rows of a run's history."""
        self._ask(f"take {len(rows)} rows of {run}", _ANSWER_S)
        self.on_rows(run, offset, rows)
        for place, row in enumerate(rows, start=offset):
            self.runs[run][place] = row
            self.came_at.setdefault((run, place), self.world.now)
        self._lose_answer()

    def look(self, run: str, timeout_s: float) -> int:
        """The rows of a run; -1: there is none."""
        self._ask(f"look at {run}", timeout_s)
        return self._count(run) if run in self.runs else -1

    def _count(self, run: str) -> int:
        return sum(self.came_at[run, place] <= self.world.now - self.lag_s for place in self.runs[run])

    def _ask(self, what: str, timeout_s: float) -> None:
        world, fault = self.world, self.fault
        world.step(f"W&B: {what}", 0.05 * world.random.random())
        if fault == "hanging":
            world.sleep(timeout_s)
        if fault in ("hanging", "away", "rubbish") or (fault == "refusing" and world.random.random() < 0.7):
            raise RefusedError
        if fault == "not found":
            raise RefusedError(is_final=True)

    def _lose_answer(self) -> None:
        if self.fault == "lost" and self.world.random.random() < 0.5:
            self.world.step("W&B's answer is lost", self.world.random.choice((0.1, _ANSWER_S)))
            raise RefusedError


class WandbClient:
    """Has of the module `wandb` what the publisher calls.

    Args:
        world, server: which.
        has_key: whether the user has logged in.
    """

    def __init__(self, world: World, server: WandbServer, *, has_key: bool) -> None:
        self.world, self.server, self.has_key = world, server, has_key
        self.cores: dict[Process, Core] = {}
        self.num_files = 0

    def login(self, *, prompt: bool, verify: bool) -> bool:
        """Whether there is a key."""
        return self.has_key

    def init(self, *, id: str, dir: Any, mode: str, settings: Any, **_: Any) -> WandbRun:
        """Opens a W&B run."""
        world = self.world
        world.step(f"wandb.init {id}")
        assert world.current is not None
        publisher = world.current.process
        core = self.cores.get(publisher) or self._start_core(publisher)
        first = self._open(id, settings.init_timeout) if mode == "online" else 0
        self.num_files += 1
        kind = "run" if mode == "online" else "offline-run"
        place = f"{dir}/wandb/{kind}-20231114_{self.num_files:06}-{id}"
        os.mkdir(place)
        stream = Stream(self, id, mode, first, f"{place}/run-{id}.wandb")
        core.streams.append(stream)
        return WandbRun(core, stream, settings.finish_timeout)

    def Api(self, timeout: float) -> Any:  # noqa: N802
        """Asks the server."""
        return SimpleNamespace(run=partial(self._look, timeout))

    def list_commands(self) -> dict[str, str]:
        """Of the helper processes on the machine of who asks, by their number."""
        assert self.world.current is not None
        here = self.world.current.process.machine
        cores = [(core.process, publisher) for publisher, core in self.cores.items()]
        living = [(one, publisher) for one, publisher in cores if not one.is_dead and one.machine == here]
        return {str(one.pid): f"wandb-core --pid {publisher.pid} " for one, publisher in living}

    def _start_core(self, publisher: Process) -> Core:
        world = self.world
        core = self.cores[publisher] = Core(world, Process(world, f"wandb-core of {publisher.name}", publisher.machine))

        def leave() -> None:
            survival_s = _SURVIVAL_S * world.random.random() if publisher.was_killed else 0.0
            world.call_later(survival_s, partial(world.kill, core.process))

        publisher.at_end.append(leave)
        core.process.start(core.work)
        return core

    def _open(self, run: str, timeout_s: float) -> int:
        until = self.world.now + timeout_s
        while True:
            try:
                return self.server.open(run, max(0.1, until - self.world.now))
            except RefusedError as error:
                if error.is_final or self.world.now >= until:
                    raise WandbError("the server does not answer") from None
                self.world.sleep(_RETRY_S[0])

    def _look(self, timeout_s: float, path: str) -> Any:
        is_rubbish = self.server.fault == "rubbish"
        try:
            number = self.server.look(path.rpartition("/")[2], timeout_s)
        except RefusedError:
            if is_rubbish and self.world.random.random() < 0.5:
                raise TypeError("'NoneType' object is not subscriptable") from None
            raise WandbError("the server does not answer") from None
        if number < 0:
            raise ValueError(f"Could not find run {path}")
        return SimpleNamespace(historyLineCount=number, lastHistoryStep=number - 1)


class Stream:
    """The rows of a W&B run in a helper process: those of the server come from memory, and go into a file, too."""

    def __init__(self, client: WandbClient, run: str, mode: str, first: int, path: str) -> None:
        self.client, self.run, self.mode, self.first = client, run, mode, first
        self.rows: list[dict[str, Any]] = []
        self.num_sent = self.num_written = 0
        self.is_closed = self.has_ended = False
        self.pause_s, self.next_try = _RETRY_S[0], 0.0
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self.file, b":W&B\0\0\0")

    @property
    def is_done(self) -> bool:
        """Whether all rows have gone where they go."""
        return self.num_written == len(self.rows) and (self.mode != "online" or self.num_sent == len(self.rows))

    def flush(self) -> None:
        """Writes new rows to the file; what the disk does not take vanishes."""
        new, self.num_written = self.rows[self.num_written :], len(self.rows)
        for row in new:
            content = json.dumps({"history": row["_step"]}).encode()
            with contextlib.suppress(OSError):
                head = _CHUNK.pack(zlib.crc32(content, zlib.crc32(bytes([_WHOLE]))), len(content), _WHOLE)
                os.write(self.file, head)
                os.write(self.file, content)
                assert os.fstat(self.file).st_size < _BLOCK_BYTES

    def send(self) -> None:
        """Sends new rows to the server."""
        new, world = self.rows[self.num_sent :], self.client.world
        if not new or self.mode != "online" or self.has_ended or world.now < self.next_try:
            return
        try:
            self.client.server.take(self.run, self.first + self.num_sent, new)
        except RefusedError as error:
            self.has_ended = error.is_final
            self.next_try, self.pause_s = world.now + self.pause_s, min(2 * self.pause_s, _RETRY_S[1])
            return
        self.num_sent, self.pause_s = self.num_sent + len(new), _RETRY_S[0]


class Core:
    """A helper process: wandb-core."""

    def __init__(self, world: World, process: Process) -> None:
        self.world, self.process = world, process
        self.streams: list[Stream] = []

    def work(self) -> None:
        """Until it is killed."""
        sent_at = self.world.now
        while True:
            self.world.sleep(_FLUSH_S)
            is_due = self.world.now - sent_at >= _SEND_S
            for stream in list(self.streams):
                stream.flush()
                if is_due or stream.is_closed:
                    stream.send()
            sent_at = self.world.now if is_due else sent_at


class WandbRun:
    """What `wandb.init` gives."""

    entity, project, url = "lab", "runs", "https://wandb.example/run"

    def __init__(self, core: Core, stream: Stream, finish_timeout_s: float) -> None:
        self.core, self.stream, self.finish_timeout_s = core, stream, finish_timeout_s
        self.starting_step = self.next_step = stream.first

    def define_metric(self, name: str, step_metric: str) -> None:
        """How the page shows it."""

    def log(self, row: dict[str, Any], *, step: int, commit: bool) -> None:
        """Hands a row over; one whose step is smaller than the last one's is dropped."""
        self.core.world.step(f"wandb.log {step}")
        if self.core.process.is_dead:
            raise ConnectionResetError(104, "Connection reset by peer")
        if step >= self.next_step:
            self.next_step = step + 1
            self.stream.rows.append({"_step": step} | row)

    def finish(self, exit_code: int) -> None:
        """Waits until all is sent, for a while."""
        self.stream.is_closed = True
        until = self.core.world.now + self.finish_timeout_s
        while not self.stream.is_done and not self.core.process.is_dead and self.core.world.now < until:
            self.core.world.sleep(_FLUSH_S / 2)
