"""What may happen to a run: which of it, and when, the seed says."""

from __future__ import annotations

from collections.abc import Callable

from simulation import wandb
from simulation.bucket import FAULTS
from simulation.checks import Checks
from simulation.cluster import LOST_NODE_S
from simulation.disk import Disk
from simulation.simulated import TEMPORARY, Simulation
from simulation.world import Process

KINDS = (
    "kill",
    "kill other",
    "power",
    "stop",
    "interrupt",
    "disk",
    "clock",
    "second driver",
    "suspend",
    "drain",
    "clean",
    "bucket",
    "ensemble",
    "wandb",
)
_GAPS = (25, 80, 300, 900)  # steps between two faults, in the mean
_SOON_SHARE, _SOON = 0.25, 15  # of faults, those that follow one another, and after how many steps, in the mean
_MOST = 12
_WAITING_SHARE = 0.7  # of faults, those that wait for a step that changes something
_FITTING_SHARE = 0.5  # of faults, those of a kind that strikes where something is changed
_FITTING = {
    ("write ", "fsync ", "rename ", "truncate ", "unlink ", "link "): ("disk", "power", "kill", "clean", "suspend"),
    ("put ", "delete ", "list lab/"): ("bucket", "kill", "stop", "clean"),
    ("call ", "answer ", "submit ", "start actor"): ("kill", "stop", "suspend", "interrupt", "drain"),
    ("lock ",): ("second driver", "stop", "kill"),
    ("W&B: ", "wandb.", "write to a pipe"): ("wandb", "kill", "stop"),
}
_CHANGES = tuple(start for starts in _FITTING for start in starts)
_FOR_GOOD_S = 1e6
_AFTERMATH_S = 5.0  # until Ray has noticed what has died, and the driver has done what is to be done


class Faults:
    """Strikes between two steps.

    Args:
        simulation, checks: of one world.
    """

    def __init__(self, simulation: Simulation, checks: Checks) -> None:
        self.simulation, self.checks, self.luck = simulation, checks, simulation.world.random
        self.kinds = [kind for kind in KINDS if self.luck.random() < 0.45] or ["kill"]
        if len(simulation.setting.machines) > 1:
            self.kinds.append("suspend")
        self.gap, self.left = self.luck.choice(_GAPS), self.luck.randint(1, _MOST)
        self.done: list[str] = []
        self.next_step = self._draw()
        self.interrupted: list[tuple[Process, float]] = []
        self.trouble_until = 0.0  # by faults other than interrupts
        self.strikes: dict[str, Callable[[], bool]] = {
            "kill": self.kill_current, "kill other": self.kill_other, "power": self.cut_power, "stop": self.stop,
            "interrupt": self.interrupt, "disk": self.spoil_disk, "clock": self.turn_clock,
            "second driver": self.start_second, "suspend": self.suspend, "drain": self.drain, "clean": self.clean,
            "bucket": self.spoil_bucket, "ensemble": self.change_ensemble,
            "wandb": self.spoil_wandb,
        }  # fmt: skip
        simulation.world.before_step = self.strike

    @property
    def are_over(self) -> bool:
        """Whether nothing more happens."""
        return self.left == 0

    def had_only_interrupts(self, driver: Process) -> bool:
        """Whether a driver that has ended was interrupted once, and nothing else has happened from then on."""
        interrupts = [at for one, at in self.interrupted if one is driver]
        return len(interrupts) == 1 and self.trouble_until < interrupts[0]

    def _last(self, seconds: float, end: Callable[[], object] = lambda: None) -> None:
        """A fault lasts so long."""
        self.trouble_until = max(self.trouble_until, self.simulation.world.now + seconds + _AFTERMATH_S)
        self.simulation.world.call_later(seconds, end)

    def _draw(self) -> int:
        self.waits = self.luck.random() < _WAITING_SHARE
        gap = _SOON if self.done and self.luck.random() < _SOON_SHARE else self.gap
        return self.simulation.world.steps + 1 + int(self.luck.expovariate(1 / gap))

    def _choose(self, what: str) -> str:
        """A kind of fault for a step."""
        fitting = next((kinds for starts, kinds in _FITTING.items() if what.startswith(starts)), ())
        if self.luck.random() < _FITTING_SHARE and (usable := [kind for kind in fitting if kind in self.kinds]):
            return self.luck.choice(usable)
        return self.luck.choice(self.kinds)

    def strike(self, what: str) -> None:
        """Before each step."""
        world = self.simulation.world
        if world.steps < self.next_step or not self.left or (self.waits and not what.startswith(_CHANGES)):
            return
        self.next_step = self._draw()
        kind = self._choose(what)
        if self.strikes[kind]():
            self.left -= 1
            if kind not in ("interrupt", "ensemble", "clock", "wandb"):
                self.trouble_until = max(self.trouble_until, world.now + _AFTERMATH_S)
            self.done.append(kind)
            world.note(f"FAULT {kind} at {what}")

    def _get_current(self) -> Process:
        current = self.simulation.world.current
        assert current is not None
        return current.process

    def _list_living(self) -> list[Process]:
        return [one for one in self.simulation.world.processes if not one.is_dead and one.name != "user"]

    def kill_current(self) -> bool:
        """Whoever has the baton dies."""
        process = self._get_current()
        if process.name == "user":
            return False
        self.simulation.world.kill(process)
        return True

    def kill_other(self) -> bool:
        """Somebody dies."""
        living = self._list_living()
        if not living:
            return False
        self.simulation.world.kill(self.luck.choice(living))
        return True

    def cut_power(self) -> bool:
        """A machine loses power; a disk that it alone uses forgets what was not synced."""
        machine = self.luck.choice(self.simulation.setting.machines)
        for process in self._list_living():
            if process.machine == machine:
                self.simulation.world.kill(process)
        if self.simulation.setting.is_own:
            self.simulation.shared.cut_power()
            self.checks.after_power_cut(self.simulation.shared)
        self.simulation.local[machine].cut_power()
        return True

    def stop(self) -> bool:
        """SIGSTOP, and later SIGCONT, or never of a fold that trains."""
        living = self._list_living()
        process = self.luck.choice(living) if living and self.luck.random() < 0.5 else self._get_current()
        if process.name == "user":
            return False
        seconds = self.luck.choice((0.5, 5.0, 40.0, 200.0))
        if self.simulation.setting.stall_timeout_s is not None and process in self.checks.training and seconds == 200.0:
            seconds = _FOR_GOOD_S  # the driver's watch ends it
        self.simulation.world.stop(process, seconds)
        self._last(seconds)
        return True

    def interrupt(self) -> bool:
        """Ctrl-C."""
        drivers = [one for one in self.simulation.drivers if not one.is_dead]
        if not drivers:
            return False
        driver = self.luck.choice(drivers)
        self.interrupted.append((driver, self.simulation.world.now))
        self.simulation.world.interrupt(driver)
        return True

    def spoil_bucket(self) -> bool:
        """The object storage refuses, does not answer or lists what was a moment ago."""
        store = self.simulation.store
        if not self.simulation.setting.in_bucket or store.fault is not None:
            return False
        store.fault = self.luck.choice(FAULTS)
        self.simulation.world.note(f"BUCKET {store.fault}")
        self._last(self.luck.choice((1.0, 10.0, 60.0)), self._mend_bucket)
        return True

    def _mend_bucket(self) -> None:
        self.simulation.store.fault = None
        self.simulation.world.note("BUCKET works")

    def spoil_wandb(self) -> bool:
        """W&B's server is away, refuses, hangs, answers rubbish, or loses its answers."""
        server = self.simulation.wandb
        if self.simulation.setting.wandb == "disabled" or server.fault is not None:
            return False
        server.fault, server.lag_s = self.luck.choice(wandb.FAULTS), self.luck.choice((0.0, 5.0))
        self.simulation.world.note(f"WANDB {server.fault}")
        self.simulation.world.call_later(self.luck.choice((1.0, 10.0, 60.0, 300.0)), self._mend_wandb)
        return True

    def _mend_wandb(self) -> None:
        self.simulation.wandb.fault = None
        self.simulation.world.note("WANDB works")

    def _choose_disk(self) -> Disk:
        """One that the run is on."""
        setting = self.simulation.setting
        return (
            self.simulation.local[self.luck.choice(setting.machines)] if setting.in_bucket else self.simulation.shared
        )

    def spoil_disk(self) -> bool:
        """The disk is full, read-only, away, broken or slow for a while."""
        disk = self._choose_disk()
        if disk.fault is not None:
            return False
        disk.fault = self.luck.choice(("full", "readonly", "away", "broken", "slow"))
        self.simulation.world.note(f"DISK {disk.fault}")
        self._last(self.luck.choice((0.1, 2.0, 10.0, 45.0)), lambda: self._mend(disk))
        return True

    def _mend(self, disk: Disk) -> None:
        disk.fault = None
        self.simulation.world.note("DISK works")

    def turn_clock(self) -> bool:
        """The wall clock jumps."""
        self.simulation.world.clock_offset += self.luck.choice((-1e5, -100.0, -1.0, 1.0, 100.0, 1e5))
        return True

    def start_second(self) -> bool:
        """Somebody types the command a second time."""
        if len(self.simulation.drivers) > 8:
            return False
        self.simulation.world.call_later(0.0, self.simulation.start_driver)
        return True

    def change_ensemble(self) -> bool:
        """The user's next command has the folds combined in another way; the one after it as before."""
        if self.simulation.is_changed:
            return False
        self.simulation.is_changed = True
        return True

    def suspend(self) -> bool:
        """A machine stands still or is cut off; after a while Ray takes it for dead, and it comes back."""
        machines, cluster = self.simulation.setting.machines, self.simulation.joined
        if len(machines) < 2 or machines[1] in cluster.lost:
            return False
        living = [one for one in self._list_living() if one.machine == machines[1]]
        is_cut_off = self.luck.random() < 0.5
        seconds = self.luck.choice((10.0, LOST_NODE_S + 2.0, LOST_NODE_S + 5.0, 90.0))
        for process in living:
            if is_cut_off and process.attempt is not None:
                cluster.cut_off(process, seconds)
            else:
                self.simulation.world.stop(process, seconds)
        self._last(seconds)
        if seconds > LOST_NODE_S:
            cluster.lose(machines[1], seconds)
        return bool(living)

    def drain(self) -> bool:
        """A machine is about to be taken away."""
        machines = self.simulation.setting.machines
        if len(machines) < 2 or self.simulation.joined.draining:
            return False
        machine = self.luck.choice(machines[1:])
        cluster = self.simulation.joined
        cluster.draining.add(machine)

        def take() -> None:
            for process in self._list_living():
                if process.machine == machine:
                    self.simulation.world.kill(process)
            cluster.draining.clear()

        self._last(25.0, take)
        return True

    def clean(self) -> bool:
        """A cleaner removes a temporary file; of a run in object storage any checkpoint or predictions of a fold."""
        disk = self._choose_disk()
        names = [
            path
            for path, _ in disk.walk()
            if path.endswith(".tmp")
            or (path.startswith(TEMPORARY) and ("/checkpoints/" in path or "/predictions/" in path))
        ]
        if not names or disk.fault == "away":
            return False
        path = self.luck.choice(names)
        parent, name = disk.find_parent(path)
        parent.entries.pop(name)
        self.simulation.mislead()
        self.simulation.world.note(f"CLEAN {path}")
        return True
