"""Work on many files, in portions: in this process, and in further ones where it would take long.

Reading waits for a disk or a network, so a look at a portion has many threads (`THREADS`). What it does with a file
between two waits is Python's, of which one process does one thing at a time: further processes use the other cores.
They load nothing but what the look imports, and end when this one does. No torch.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

THREADS = 32  # that read at the same time
PORTION = 512
_MOST_PROCESSES = 16
_WORTH_S = 3.0  # of computing that is left: less is done before other processes have begun
_SERVE = "from trainers.reading.portions import serve; serve()"

Function = Callable[[Sequence[Any]], Sequence[Any]]


def look_in_portions(
    look: Function, items: Sequence[Any], numbers: Sequence[int]
) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    """Looks at some of the items.

    Args:
        look: gives a result of each item of a portion; it can be pickled.
        items: all.
        numbers: of those to look at.

    Yields:
        Numbers of items, and their results.
    """
    portions = [numbers[start : start + PORTION] for start in range(0, len(numbers), PORTION)]
    began_s = time.process_time()
    for done, portion in enumerate(portions, start=1):
        yield portion, look([items[number] for number in portion])
        left_s = (time.process_time() - began_s) / done * (len(portions) - done)
        num_processes = min(count_cores(), _MOST_PROCESSES, len(portions) - done)
        if num_processes > 1 and left_s > _WORTH_S:
            yield from _look_in_processes(look, items, portions[done:], num_processes)
            return


def _look_in_processes(
    look: Function, items: Sequence[Any], portions: Sequence[Sequence[int]], num_processes: int
) -> Iterator[tuple[Sequence[int], Sequence[Any]]]:
    """As `look_in_portions`. What a process does not give, because it has died, is looked at here."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(num_processes))  # ends last: its threads wait for answers
        idle = [stack.enter_context(_Process(look)) for _ in range(num_processes)]
        at_work: dict[Future[Any], tuple[_Process, Sequence[int]]] = {}
        waiting = list(reversed(portions))
        while waiting or at_work:
            while waiting and idle:
                process, portion = idle.pop(), waiting.pop()
                at_work[pool.submit(process.ask, [items[number] for number in portion])] = (process, portion)
            if not at_work:  # every process has died
                portion = waiting.pop()
                yield portion, look([items[number] for number in portion])
                continue
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                process, portion = at_work.pop(future)
                found = future.result()
                if found is None:
                    waiting.append(portion)
                    continue
                idle.append(process)
                yield portion, found


class _Process:
    """A Python process that looks at portions, one at a time."""

    def __init__(self, look: Function) -> None:
        root = str(Path(__file__).parents[2])  # where `trainers` is
        environment = os.environ | {"PYTHONPATH": root}
        command = [sys.executable, "-P", "-c", _SERVE]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)  # type: ignore[call-overload]
        with contextlib.suppress(OSError):
            _send(self.process.stdin, (sys.path, pickle.dumps(look)))

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def ask(self, items: Sequence[Any]) -> Sequence[Any] | None:
        """Results of a portion; None: the process has ended."""
        try:
            _send(self.process.stdin, items)
            found: Sequence[Any] = pickle.load(self.process.stdout)
            return found
        except (OSError, EOFError, pickle.UnpicklingError):
            return None


def count_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve() -> None:
    """Looks at portions from standard input until it ends. What the look prints goes nowhere."""
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:], packed = pickle.load(source)
    look: Function = pickle.loads(packed)
    with contextlib.suppress(EOFError):
        while True:
            _send(answers, look(pickle.load(source)))


def _send(pipe: IO[bytes], message: Any) -> None:
    pickle.dump(message, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()
