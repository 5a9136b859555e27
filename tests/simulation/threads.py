"""What stands for the module `threading` in the product's modules: threads, locks and events of simulated processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from simulation.world import Task, Ticket, World


class Threading:
    """Has of `threading` what the product uses."""

    def __init__(self, world: World) -> None:
        self.world = world

        class Of:
            """Each class below knows the world."""

            world_ = world

        self.Thread = type("Thread", (_Thread, Of), {})
        self.Timer = type("Timer", (_Timer, Of), {})
        self.Event = type("Event", (_Event, Of), {})
        self.Lock = self.RLock = type("Lock", (_Lock, Of), {})
        self.BoundedSemaphore = type("Semaphore", (_Semaphore, Of), {})

    def current_thread(self) -> Any:
        """The task that runs."""
        return self.world.current


class _Thread:
    world_: World

    def __init__(
        self,
        target: Callable[..., Any] = lambda: None,
        args: Iterable[Any] = (),
        name: str = "thread",
        daemon: bool = False,
    ) -> None:
        current = self.world_.current
        assert current is not None
        self.target, self.args = target, tuple(args)
        self.name, self.daemon = name, daemon
        self.task = Task(current.process, self._run, f"{current.process.name}/{name}")
        self.has_begun = False

    def _run(self) -> None:
        self.target(*self.args)

    def start(self) -> None:
        self.world_.step(f"start thread {self.name}")
        self.has_begun = True
        self.task.start()

    def is_alive(self) -> bool:
        return self.has_begun and not self.task.is_over

    def join(self, timeout: float | None = None) -> None:
        world, until = self.world_, None if timeout is None else self.world_.now + timeout
        while not self.task.is_over and (until is None or world.now < until):
            self.task.waiters.append(world.take_ticket())
            world.block(f"join {self.name}", None if until is None else until - world.now)
        world.step(f"joined {self.name}")


class _Timer(_Thread):
    def __init__(self, seconds: float, function: Callable[[], Any]) -> None:
        self.seconds, self.function, self.is_cancelled = seconds, function, False
        super().__init__(self._wait, name="timer", daemon=True)

    def _wait(self) -> None:
        self.world_.sleep(self.seconds)
        if not self.is_cancelled:
            self.function()

    def cancel(self) -> None:
        self.is_cancelled = True


class _Waited:
    world_: World

    def __init__(self) -> None:
        self.waiters: list[Ticket] = []

    def _wait_while(self, is_so: Callable[[], bool], what: str, timeout: float | None = None) -> bool:
        world = self.world_
        until = None if timeout is None else world.now + timeout
        while is_so():
            if until is not None and world.now >= until:
                return False
            self.waiters.append(world.take_ticket())
            world.block(what, None if until is None else until - world.now)
        return True

    def _wake_all(self) -> None:
        waiters, self.waiters = self.waiters, []
        for ticket in waiters:
            self.world_.wake(ticket)


class _Event(_Waited):
    def __init__(self) -> None:
        super().__init__()
        self.flag = False

    def is_set(self) -> bool:
        return self.flag

    def set(self) -> None:
        self.flag = True
        self._wake_all()

    def clear(self) -> None:
        self.flag = False

    def wait(self, timeout: float | None = None) -> bool:
        self.world_.step("look at an event")
        self._wait_while(lambda: not self.flag, "wait for an event", timeout)
        return self.flag


class _Lock(_Waited):
    """A lock that its holder may take again."""

    def __init__(self) -> None:
        super().__init__()
        self.holder: Task | None = None
        self.depth = 0

    def acquire(self) -> bool:
        self.world_.step("take a lock")
        current = self.world_.current
        self._wait_while(lambda: self.holder is not None and self.holder is not current, "wait for a lock")
        self.holder, self.depth = current, self.depth + 1
        return True

    def release(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.holder = None
            self._wake_all()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class _Semaphore(_Waited):
    def __init__(self, value: int = 1) -> None:
        super().__init__()
        self.value = value

    def __enter__(self) -> None:
        self.world_.step("take a turn")
        self._wait_while(lambda: self.value == 0, "wait for a turn")
        self.value -= 1

    def __exit__(self, *_: object) -> None:
        self.value += 1
        self._wake_all()
