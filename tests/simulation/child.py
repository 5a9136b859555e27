"""Child processes and their pipes: what stands in the place of `subprocess`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from simulation.world import Process, Ticket, World

_LOADING_S = 2.0  # until a child has imported what it needs


class Pipe:
    """Lines from one process to another. It ends with who writes, and breaks with who reads."""

    def __init__(self, world: World) -> None:
        self.world, self.lines, self.is_closed = world, list[str](), False
        self.waiters: list[Ticket] = []

    def write(self, text: str) -> None:
        """Adds a line."""
        self.world.step(f"write to a pipe: {text.strip()}"[:150])
        if self.is_closed:
            raise BrokenPipeError(32, "Broken pipe")
        self.lines.append(text)
        self._wake()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nobody writes any more, or nobody reads."""
        self.is_closed = True
        self._wake()

    def __iter__(self) -> Iterator[str]:
        while True:
            while not self.lines:
                if self.is_closed:
                    return
                self.waiters.append(self.world.take_ticket())
                self.world.block("read a pipe")
            self.world.step("read a pipe")
            yield self.lines.pop(0)

    def _wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for ticket in waiters:
            self.world.wake(ticket)


class Child:
    """As `subprocess.Popen`: a process on its parent's machine, which does not end with it.

    Args:
        world: whose.
        name: of the process.
        run: does its work, with its standard input and output; returns its exit code.
    """

    def __init__(self, world: World, name: str, run: Callable[[Pipe, Pipe], int]) -> None:
        world.step(f"start {name}")
        assert world.current is not None
        parent = world.current.process
        self.world, self.stdin, self.stdout = world, Pipe(world), Pipe(world)
        self.process = Process(world, name, parent.machine)
        parent.at_end.append(self.stdin.close)
        self.process.at_end.append(self.stdin.close)
        self.process.at_end.append(self.stdout.close)

        def work() -> Any:
            world.sleep(_LOADING_S * world.random.random())
            return run(self.stdin, self.stdout)

        self.process.start(work)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdin.close()

    @property
    def returncode(self) -> int:
        """How it has ended."""
        if self.process.was_killed:
            return -9
        return 1 if self.process.error is not None else int(self.process.result)

    def kill(self) -> None:
        """SIGKILL."""
        self.world.step(f"kill {self.process.name}")
        self.world.kill(self.process)
