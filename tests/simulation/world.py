"""The scheduler: processes and their threads, a virtual clock, the seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

EPOCH_S = 1_700_000_000.0  # where the wall clock begins
_KEPT_LINES = 400  # of the schedule, for who reads it
_MOST_STEPS = 60_000


class KilledError(BaseException):
    """This process is dead: none of its calls has an effect any more."""


class ViolationError(BaseException):
    """Something that must hold does not."""


class Process:
    """A simulated process.

    Attributes:
        machine: where it runs.
        attempt: (fold, number) of the attempt that it trains; None: it trains none.
        trains: whether it uses the random generators, which Python has once for all of them.
        stopped_until: it stands still until then.
        parent: whose end is its own.
        on_signal: called in its main thread when a signal interrupts it.
        at_end: called when it has ended, in whatever way.
    """

    def __init__(self, world: World, name: str, machine: str, attempt: tuple[int, int] | None = None) -> None:
        self.world, self.name, self.machine, self.attempt = world, name, machine, attempt
        self.trains = attempt is not None
        world.num_processes += 1
        self.pid = 1000 + world.num_processes
        self.is_dead, self.stopped_until = False, 0.0
        self.tasks: list[Task] = []
        self.at_end: list[Callable[[], None]] = []
        self.random_state: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.was_killed = False
        self.parent: Process | None = None
        self.on_signal, self.is_signalled = interrupt, False

    def start(self, target: Callable[[], Any]) -> Process:
        """Runs a function as the process's main thread; the process ends with it."""

        def main() -> None:
            try:
                self.result = target()
            except KilledError:
                pass
            except ViolationError:
                raise
            except BaseException as error:
                self.error = error
            self.world.end(self)

        self.world.processes.append(self)
        Task(self, main, self.name).start()
        return self


def interrupt() -> None:
    """What Python does at Ctrl-C."""
    raise KeyboardInterrupt


class Task:
    """A thread of a process, as a greenlet: one of them runs at a time, until it passes a seam."""

    def __init__(self, process: Process, target: Callable[[], Any], name: str) -> None:
        self.process, self.target, self.name = process, target, name
        self.token, self.is_over = 0, False
        self.waiters: list[Ticket] = []
        self.greenlet = greenlet(self._work, process.world.scheduler)

    def start(self) -> None:
        """Lets it take its turn."""
        world = self.process.world
        self.process.tasks.append(self)
        world.push(world.draw_cost(), self)

    def _work(self) -> None:
        world = self.process.world
        try:
            if not self.process.is_dead:
                self.target()
        except KilledError:
            pass
        except BaseException as error:
            world.fail(error)
        self.is_over = True
        for ticket in self.waiters:
            world.wake(ticket)


Ticket = tuple[Task, int]  # of a task that waits: void once it has gone on


class World:
    """See the package.

    Args:
        seed: decides everything.

    Attributes:
        now: seconds since the world began.
        clock_offset: of the wall clock; a jump changes it, and no monotonic clock.
        steps: how many seams were passed.
        on_kill: called with each process that has ended, before anything else happens.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.random, self.names = seed, random.Random(seed), random.Random(seed)
        self.now, self.clock_offset, self.steps, self.num_processes = 0.0, 0.0, 0, 0
        self.current: Task | None = None
        self.processes: list[Process] = []
        self.on_end: list[Callable[[Process], None]] = []
        self.lines: list[str] = []
        self.failure: BaseException | None = None
        self.before_step: Callable[[str], None] | None = None
        self.random_owner: Process | None = None
        self.save_random: Callable[[], Any] = lambda: None
        self.load_random: Callable[[Any], None] = lambda state: None
        self._heap: list[tuple[float, int, Task | Callable[[], object], int]] = []
        self._number = 0
        self.scheduler = getcurrent()  # to which every task gives back the baton
        self.is_over = False

    # What seams call.

    def step(self, what: str, cost_s: float | None = None) -> None:
        """Passes a seam: time goes by, others have their turn, and this process may be dead afterwards."""
        task = self.current
        assert task is not None
        if task.process.is_dead:
            raise KilledError
        self.steps += 1
        if self.steps > _MOST_STEPS:
            self.fail(ViolationError(f"the run does not end: {self.steps} steps"))
            raise KilledError
        self.note(what)
        if self.before_step is not None:
            self.before_step(what)
        self._pause(self.draw_cost() if cost_s is None else cost_s)

    def sleep(self, seconds: float) -> None:
        """As `time.sleep`."""
        self.step(f"sleep {seconds:.2f}", max(seconds, 1e-4))

    def block(self, what: str, timeout_s: float | None = None) -> None:
        """Waits until somebody wakes this task, or the time is over."""
        task = self.current
        assert task is not None
        if task.process.is_dead:
            raise KilledError
        self.steps += 1
        self.note(what)
        if timeout_s is not None:
            self.push(max(timeout_s, 1e-4), task)
        self._switch()
        self._go_on(task)

    def note(self, what: str) -> None:
        """Adds a line to the schedule."""
        who = self.current.name if self.current else "world"
        self.lines.append(f"{self.steps:6} {self.now:10.3f} {who}: {what}")
        if len(self.lines) > 2 * _KEPT_LINES:
            del self.lines[:_KEPT_LINES]

    def draw_cost(self) -> float:
        """Of a call, s: mostly a moment, sometimes long."""
        return 0.0005 * self.random.expovariate(1.0) if self.random.random() < 0.97 else 0.2 * self.random.random()

    # What faults do.

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if not process.is_dead:
            self.note(f"KILL {process.name}")
            process.was_killed = True
            self.end(process)

    def stop(self, process: Process, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.note(f"STOP {process.name} for {seconds:.1f} s")
        process.stopped_until = max(process.stopped_until, self.now + seconds)

    def interrupt(self, process: Process) -> None:
        """Ctrl-C: whatever its main thread waits for, it hears it."""
        self.note(f"INTERRUPT {process.name}")
        process.is_signalled, main = True, process.tasks[0]
        if main is not self.current:
            self.wake((main, main.token))

    def end(self, process: Process) -> None:
        """A process is gone, with all its threads."""
        if process.is_dead:
            return
        process.is_dead = True
        for task in process.tasks:
            if not task.is_over and task is not self.current:
                self.wake((task, task.token))
        for on_end in self.on_end:
            on_end(process)
        for at_end in process.at_end:
            at_end()

    def fail(self, error: BaseException) -> None:
        """Ends the world: something does not hold."""
        if self.failure is None:
            self.failure = error
            self.note(f"FAILED {type(error).__name__}: {error}")
        self.close()

    def close(self) -> None:
        """Ends all processes."""
        self.is_over = True
        for process in self.processes:
            process.is_dead = True
            for task in process.tasks:
                if not task.is_over and task is not self.current:
                    self.wake((task, task.token))

    # The baton.

    def run(self, main: Process, target: Callable[[], Any]) -> None:
        """Runs the world until its main process has ended."""
        main.at_end.append(self.close)
        main.start(target)
        while True:
            task = self._next()
            if task is None:
                living = [task.name for process in self.processes for task in process.tasks if not task.is_over]
                if not living:
                    break
                if self.is_over:
                    raise AssertionError(f"{living} do not end")
                self.fail(ViolationError(f"nobody can go on: {living} wait"))
                continue
            task.token += 1
            self.current = task
            self._change_random(task.process)
            task.greenlet.switch()
            self.current = None
        if self.failure is not None:
            raise self.failure

    def push(self, seconds: float, task: Task) -> None:
        """A task goes on in so many seconds, unless it is woken before."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + seconds, self._number, task, task.token))

    def take_ticket(self) -> Ticket:
        """For whoever is to wake this task, which is about to wait."""
        assert self.current is not None
        return self.current, self.current.token

    def wake(self, ticket: Ticket) -> None:
        """A task that waits goes on."""
        self._number += 1
        heapq.heappush(self._heap, (self.now, self._number, *ticket))

    def call_later(self, seconds: float, do: Callable[[], object]) -> None:
        """Does something in so many seconds, whatever becomes of who asked for it. It passes no seam."""
        self._number += 1
        heapq.heappush(self._heap, (self.now + seconds, self._number, do, 0))

    def _pause(self, seconds: float) -> None:
        task, until = self.current, self.now + seconds
        assert task is not None
        if (not self._heap or self._heap[0][0] > until) and task.process.stopped_until <= until:
            self.now = until
        else:
            self.push(seconds, task)
            self._switch()
        self._go_on(task)

    def _go_on(self, task: Task) -> None:
        """What may have happened to a task while others had the baton."""
        process = task.process
        if process.is_dead:
            raise KilledError
        if process.is_signalled and task is process.tasks[0]:
            process.is_signalled = False
            process.on_signal()

    def _next(self) -> Task | None:
        while self._heap:
            at, _, task, token = heapq.heappop(self._heap)
            if not isinstance(task, Task):
                if not self.is_over:
                    self.now = max(self.now, at)
                    self._call(task)
                continue
            if task.is_over or token != task.token:
                continue
            if task.process.stopped_until > max(at, self.now) and not task.process.is_dead:
                self._number += 1
                heapq.heappush(self._heap, (task.process.stopped_until, self._number, task, token))
                continue
            self.now = max(self.now, at)
            return task
        return None

    def _call(self, do: Callable[[], object]) -> None:
        before, self.current = self.current, None
        try:
            do()
        except BaseException as error:
            self.fail(error)
        self.current = before

    def _switch(self) -> None:
        """Gives back the baton, and waits for it."""
        self.scheduler.switch()

    def _change_random(self, process: Process) -> None:
        """Each process that trains has random generators of its own."""
        if not process.trains or self.random_owner is process:
            return
        if self.random_owner is not None:
            self.random_owner.random_state = self.save_random()
        self.random_owner = process
        if process.random_state is not None:
            self.load_random(process.random_state)
