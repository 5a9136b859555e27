"""Ray as the product sees it: actors that come back, tasks in processes of their own, machines that go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import ray.exceptions

from simulation.threads import Threading
from simulation.world import Process, Ticket, World

_RESTART_S = 0.5
_NOTICED_S = 3.0  # until Ray says that a process has died
LOST_NODE_S = 30.0  # until it takes a machine that does not answer for dead
_SURVIVAL_S = 2.0  # of processes of a driver that is gone
_LATE_SHARE, _LATEST_S = 0.04, 1.2  # of calls of an actor, those that are long on their way, and how long
_LOST_SHARE = 0.5  # of killed callers, those whose calls on their way are lost


class RayTaskError(Exception):
    """Ray's frame around the error of a task, by whose name the product knows it."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Reference:
    """What a call will give."""

    def __init__(self, world: World) -> None:
        self.world, self.is_there, self.value = world, False, None
        self.error: BaseException | None = None
        self.waiters: list[Ticket] = []

    def put(self, value: Any = None, error: BaseException | None = None) -> None:
        """Once."""
        if not self.is_there:
            self.is_there, self.value, self.error = True, value, error
            for ticket in self.waiters:
                self.world.wake(ticket)

    def get(self, timeout_s: float | None = None) -> Any:
        """Waits for it; raises its error."""
        until = None if timeout_s is None else self.world.now + timeout_s
        while not self.is_there and (until is None or self.world.now < until):
            self.waiters.append(self.world.take_ticket())
            self.world.block("ray.get", None if until is None else until - self.world.now)
        self.world.step("ray.get")
        if not self.is_there:
            raise ray.exceptions.GetTimeoutError(f"not there after {timeout_s} s")
        if self.error is not None:
            raise self.error
        return self.value


class Cluster:
    """A Ray cluster: that of one driver, or one that several use.

    Args:
        world, threading: whose.
        machines: its nodes.
        is_own: whether a driver has started it, and takes it along when it ends.
    """

    def __init__(self, world: World, threading: Threading, machines: list[str], *, is_own: bool) -> None:
        self.world, self.threading, self.machines, self.is_own = world, threading, list(machines), is_own
        self.actors: dict[str, Actor] = {}
        self.running: list[tuple[Process, Reference]] = []
        self.draining: set[str] = set()
        self.lost: set[str] = set()  # which Ray takes for dead
        self.cut_off_until: dict[Process, float] = {}
        self.is_gone = False

    # What the product calls.

    def remote(self, *given: Any, **options: Any) -> Any:
        """`ray.remote`."""
        if given:
            return _Remote(self, given[0], {})
        return lambda what: _Remote(self, what, options)

    def get_actor(self, name: str, namespace: str) -> Actor:
        """`ray.get_actor`."""
        self.world.step("find an actor")
        if name not in self.actors or self.actors[name].is_over:
            raise ValueError(f"no actor {name}")
        return self.actors[name]

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        """`ray.get`."""
        if isinstance(reference, list):
            return [self.get(one, timeout) for one in reference]
        return reference.get(timeout)

    def start_task(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...], **options: Any
    ) -> Reference:
        """A task in a process of its own, on a machine where there is room."""
        world, reference = self.world, Reference(self.world)
        world.step(f"submit {name}")
        usable = [one for one in self.machines if one not in self.lost and one not in self.draining]
        machine = world.random.choice(usable or self.machines)
        process = Process(world, name, machine, options.get("attempt"))
        assert world.current is not None
        process.parent = world.current.process
        process.at_end.append(lambda: self._notice(process, reference))
        self.running.append((process, reference))
        options.get("on_launch", lambda one: None)(process)

        def work() -> Any:
            world.sleep(world.random.random())
            return function(*arguments)

        process.start(work)
        return reference

    # What happens to it.

    def _notice(self, process: Process, reference: Reference) -> None:
        """Tells of a process's end, a while later."""

        def tell() -> None:
            if process.error is not None:
                reference.put(error=RayTaskError(process.error))
            elif process.was_killed or self.is_gone:
                reference.put(error=ray.exceptions.WorkerCrashedError())
            else:
                reference.put(process.result)

        self.world.call_later(self.world.random.random() * (_NOTICED_S if process.was_killed else 0.1), tell)

    def lose(self, machine: str, seconds: float) -> None:
        """A machine does not answer for so long: meanwhile Ray takes what runs there for dead, whether it is or not."""

        def declare() -> None:
            self.lost.add(machine)
            for process, reference in self.running:
                if process.machine == machine:
                    reference.put(error=ray.exceptions.WorkerCrashedError())

        self.world.call_later(LOST_NODE_S, declare)
        self.world.call_later(seconds + _NOTICED_S, lambda: self.lost.discard(machine))

    def cut_off(self, process: Process, seconds: float) -> None:
        """A process works on, and its calls arrive when it can be reached again; one that Ray has taken for dead by
        then is ended."""
        self.world.note(f"CUT OFF {process.name} for {seconds:.1f} s")
        self.cut_off_until[process] = self.world.now + seconds
        if seconds > LOST_NODE_S:
            self.world.call_later(seconds + self.world.random.random(), partial(self.world.kill, process))

    def end_with_driver(self, driver: Process) -> None:
        """A driver is gone; its processes follow, each in its own time."""
        self.is_gone = self.is_own
        luck = self.world.random
        for actor in self.actors.values():
            if actor.driver is driver:
                actor.end(luck.random() * _SURVIVAL_S)
        for process, _ in self.running:
            if process.parent is driver:
                self.world.call_later(luck.random() * _SURVIVAL_S, partial(self.world.kill, process))


@dataclass
class Call:
    """A call of an actor's method."""

    caller: Process
    method: str
    arguments: tuple[Any, ...]
    answer: Reference


class Actor:
    """An actor, and its handle: `actor.method.remote(...)`. Calls of one caller come in their order, those of different
    callers in any."""

    def __init__(self, cluster: Cluster, kind: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]):
        self.cluster, self.kind, self.arguments, self.name = cluster, kind, arguments, options["name"]
        self.restarts_left = options.get("max_restarts", 0)
        self.inbox: list[Call] = []
        self.on_their_way: dict[Process, list[Call]] = {}
        self.arrivals: dict[Process, float] = {}
        self.receiver: Ticket | None = None
        self.is_over = False
        self.process: Process | None = None
        assert cluster.world.current is not None
        self.driver = cluster.world.current.process
        self._begin()

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self._call(method, arguments))

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Reference:
        world = self.cluster.world
        reference = Reference(world)
        world.step(f"call {method} {arguments[-1] if arguments else ''}"[:150])
        if self.is_over:
            reference.put(error=ray.exceptions.ActorDiedError())
            return reference
        assert world.current is not None
        self._send(Call(world.current.process, method, arguments, reference))
        return reference

    def _send(self, call: Call) -> None:
        world, luck, caller = self.cluster.world, self.cluster.world.random, call.caller
        takes_s = luck.random() * _LATEST_S if luck.random() < _LATE_SHARE else world.draw_cost()
        takes_s += max(0.0, self.cluster.cut_off_until.get(caller, 0.0) - world.now)
        at = max(world.now + takes_s, self.arrivals.get(caller, 0.0) + 1e-6)
        self.arrivals[caller] = at
        self.on_their_way.setdefault(caller, []).append(call)
        world.call_later(at - world.now, lambda: self._arrive(caller))

    def _arrive(self, caller: Process) -> None:
        """The next call of a caller is there."""
        if not self.on_their_way[caller]:  # lost
            return
        if caller.was_killed and self.cluster.world.random.random() < _LOST_SHARE:
            self.on_their_way[caller].clear()
            return
        call = self.on_their_way[caller].pop(0)
        if self.is_over:
            call.answer.put(error=ray.exceptions.ActorDiedError())
            return
        self.inbox.append(call)
        if self.receiver is not None:
            self.cluster.world.wake(self.receiver)

    def _begin(self) -> None:
        world = self.cluster.world
        self.process = Process(world, f"coordinator of {self.driver.name}", self.driver.machine)
        self.process.at_end.append(self._end_or_restart)
        self.process.start(self._work)

    def _work(self) -> None:
        world = self.cluster.world
        world.step("start actor", 0.3 * world.random.random())
        itself = self.kind(*self.arguments)
        while True:
            while not self.inbox:
                self.receiver = world.take_ticket()
                world.block("wait for a call")
            call = self.inbox[0]
            error = result = None
            try:
                result = getattr(itself, call.method)(*call.arguments)
            except Exception as raised:
                error = RayTaskError(raised)
            world.step(f"answer {call.method}")
            self.inbox.pop(0)
            call.answer.put(result, error)

    def _end_or_restart(self) -> None:
        self.receiver = None
        world = self.cluster.world
        if world.is_over or self.is_over:
            return
        if self.restarts_left == 0:
            self._die()
            return
        self.restarts_left -= 1
        self._repeat()
        world.call_later(_RESTART_S * world.random.random(), lambda: None if self.is_over else self._begin())

    def _repeat(self) -> None:
        """Callers that live make their calls that were not answered again."""
        unanswered, self.inbox = self.inbox, []
        for caller in dict.fromkeys(call.caller for call in unanswered):
            waiting = self.on_their_way[caller]
            repeated = [call for call in unanswered if call.caller is caller and not caller.is_dead]
            self.on_their_way[caller] = []
            for call in repeated:
                self._send(call)
            self.on_their_way[caller] += waiting  # whose arrivals are due before: whichever comes takes the first

    def end(self, seconds: float) -> None:
        """It is gone for good, soon."""

        def end() -> None:
            self._die()
            if self.process is not None:
                self.cluster.world.kill(self.process)

        self.cluster.world.call_later(seconds, end)

    def _die(self) -> None:
        self.is_over = True
        for call in self.inbox:
            call.answer.put(error=ray.exceptions.ActorDiedError())


class _Remote:
    """What `ray.remote` makes of a class or function."""

    def __init__(self, cluster: Cluster, what: Any, options: dict[str, Any]) -> None:
        self.cluster, self.what, self.given = cluster, what, options

    def options(self, **options: Any) -> _Remote:
        return _Remote(self.cluster, self.what, self.given | options)

    def remote(self, *arguments: Any) -> Any:
        if not isinstance(self.what, type):
            return self.cluster.start_task(self.given.get("name", "task"), self.what, arguments)
        name = self.given["name"]
        self.cluster.world.step(f"start actor {name}")
        if name in self.cluster.actors and not self.cluster.actors[name].is_over:
            raise ValueError(f"the name {name} is taken")
        self.cluster.actors[name] = Actor(self.cluster, self.what, arguments, self.given)
        return self.cluster.actors[name]
