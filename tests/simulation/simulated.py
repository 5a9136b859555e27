"""The product put into a world: what stands in the place of its surroundings, and a user who types the same command
until the run is done."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.metadata
import io
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from simulation.stand_ins import RAY, REPORT, WANDB

sys.modules["ray_jobs.reporting.html_report"] = REPORT
sys.modules["ray_jobs.tracking.gauges"] = ModuleType("ray_jobs.tracking.gauges")

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

pa.set_cpu_count(1)
torch.set_num_threads(1)

import ensemble.predictions
from ray_jobs.cli.command_line import Command
from ray_jobs.cluster.placement import ClusterResources, Resources
from ray_jobs.cluster.signals import Interrupts
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.recipes import RECIPES
from ray_jobs.config.run import CheckpointConfig, RunConfig, RunSection
from ray_jobs.driver import conclude, kfold, launcher, session, watches
from ray_jobs.errors import ClusterLostError, RunError, is_refused_by_machine
from ray_jobs.planning.folds import plan_folds
from ray_jobs.planning.plan import MemberPlan, Plan
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files import events_by_fold
from ray_jobs.runs.location import find_place
from ray_jobs.runs.remote import bucket, fold_mirror, lease, mirror, run_mirror
from ray_jobs.runs.remote.run_mirror import fetch_run, hold_run
from ray_jobs.runs.repair import reset_damaged_folds
from ray_jobs.tracking import publisher, wandb_sink, wandb_tries
from ray_jobs.tracking.wandb_runs import forget_uploaded, settle_ids
from ray_jobs.tracking.wandb_settings import WandbSettings
from ray_jobs.worker import resume, watchdog, worker
from simulation.bucket import ADDRESS, Obstore, OneAfterAnother, Place, Store
from simulation.child import Child, Pipe
from simulation.cluster import Cluster
from simulation.disk import Disk
from simulation.files import Files
from simulation.threads import Threading
from simulation.training import Training, make_inventory
from simulation.wandb import WandbClient, WandbServer
from simulation.world import EPOCH_S, KilledError, Process, World, interrupt
from trainers.storage import objects

STORE, TEMPORARY, RUN, BUCKET = "/sim/store", "/sim/tmp", "run", f"s3://{ADDRESS}"
NUM_FOLDS = 2


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run is like; no byte of its result depends on it."""

    every_steps: int | None = 3
    min_interval_s: float = 0.0
    patience_s: float = 30.0
    stall_timeout_s: float | None = 60.0
    machines: tuple[str, ...] = ("a",)
    at_once: int = 2
    log_interval: int = 4
    in_bucket: bool = False
    wandb: str = "disabled"
    retry_online_s: float = 300.0
    check_s: float = 60.0
    has_key: bool = True

    @property
    def is_own(self) -> bool:
        """Whether each driver has a cluster of its own."""
        return len(self.machines) == 1

    @property
    def storage(self) -> str:
        """Where the run lives."""
        return BUCKET if self.in_bucket else STORE


class Console:
    """Shows lines in the schedule."""

    def __init__(self, world: World) -> None:
        self.world, self.lines, self.file = world, list[str](), SimpleNamespace(flush=lambda: None)
        self.said: list[str] = []

    def print(self, text: Any = "", *_: Any, **__: Any) -> None:
        """A line."""
        self.world.note(f'says "{text}"')
        self.lines.append(str(text))
        self.said.append(str(text))

    def take_lines(self) -> list[str]:
        """New ones."""
        lines, self.lines = self.lines, []
        return lines


class Simulation:
    """A world with a run in it.

    Args:
        seed: of the world.
        setting: of the run.
    """

    def __init__(self, seed: int, setting: Setting) -> None:
        self.setting, self.world = setting, World(seed)
        self.threading = Threading(self.world)
        self.shared, self.store = Disk(self.world, "shared"), Store(self.world)
        self.local = {machine: Disk(self.world, machine) for machine in setting.machines}
        self.files = Files(self.world, self.find_disk)
        self.clusters: dict[Process, Cluster] = {}
        self.joined = Cluster(self.world, self.threading, list(setting.machines), is_own=False)
        self.cluster_of: dict[int, Cluster] = {}
        self.training = Training()
        self.training.work = lambda seconds: self.world.step("train", seconds * (0.5 + self.world.random.random()))
        self.world.save_random, self.world.load_random = _save_random, _load_random
        self.drivers: list[Process] = []
        self.consoles: dict[Process, Console] = {}
        self.reset_folds: list[str] = []
        self.is_changed = False  # whether the user's next command combines the folds in another way
        self.misled_at = -1.0  # when a list was stale, or a cleaner took something
        self.store.on_stale = self.mislead
        self.wandb = WandbServer(self.world)
        self.client = WandbClient(self.world, self.wandb, has_key=setting.has_key)
        self.count_rows: Callable[[str], dict[str, int]] = lambda machine: {}  # of each record, as a machine has it
        # Called with the machine of who says that W&B holds all rows, and how many there were when it began to finish.
        self.on_held: list[Callable[[str, dict[str, int]], None]] = []
        self.waited: list[tuple[float, float, float]] = []  # for W&B at the end: when, how long, and how long at most
        self.on_launch: list[Callable[[Process, int, int], None]] = []  # process, fold, attempt

    def find_disk(self, machine: str, path: str) -> Disk:
        """The one that a machine sees at a path."""
        return self.shared if path.startswith(STORE) else self.local.get(machine, self.shared)

    def mislead(self) -> None:
        """Somebody may not find what was saved."""
        self.misled_at = self.world.now

    # What runs.

    def start_driver(self, *, is_changed: bool = False) -> Process:
        """The user types the command; with `is_changed` another way to combine the folds."""
        world = self.world
        # A run in a folder is locked on one machine; one in object storage may be driven from anywhere.
        machines = self.setting.machines if self.setting.in_bucket else self.setting.machines[:1]
        driver = Process(world, f"driver {len(self.drivers) + 1}", world.random.choice(machines))
        cluster = Cluster(world, self.threading, ["a"], is_own=True) if self.setting.is_own else self.joined
        self.clusters[driver], self.consoles[driver] = cluster, Console(world)
        driver.at_end.append(lambda: self._leave(driver))
        self.drivers.append(driver)
        config = make_config(self.setting)
        if is_changed:
            config = dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, checkpoint="final"))
        return driver.start(lambda: self._drive(driver, Command(config, False)))

    def _drive(self, driver: Process, command: Command) -> int:
        world = self.world
        console: Any = self.consoles[driver]
        try:
            world.sleep(1.0 + world.random.random())
            with session.no_empty_run(self.setting.storage, RUN):
                return kfold._run(command, command.config, [], lambda plan: plan, console, time.monotonic())
        except (RunError, ValueError) as error:
            console.print(f"error: {error}")
            return 2
        except OSError as error:
            if not is_refused_by_machine(error) and error.errno != 2:
                raise
            console.print(f"error: {error}")
            return 2
        except KeyboardInterrupt:
            return 130

    def upload(self) -> bool:
        """As `wandb_sync.py`: sends what W&B lacks; returns whether it holds all."""
        is_here = not self.setting.in_bucket
        folder = RunFolder(find_place(STORE, RUN) if is_here else fetch_run(f"{BUCKET}/{RUN}", whole=False))
        with hold_run(folder):
            config = make_config(self.setting)
            online = dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, wandb="online"))
            settle_ids(folder, online)
            forget_uploaded(folder)
            with self._make_sink(folder, online, self.world.note, falls_back=False) as sink:
                sink.start()
                return sink.finish(600.0)

    def _make_sink(self, *given: Any, **options: Any) -> wandb_sink.WandbSink:
        sink = wandb_sink.WandbSink(*given, **options)
        finish = sink.finish

        def finish_in_time(timeout_s: float) -> bool:
            assert self.world.current is not None
            began, machine = self.world.now, self.world.current.process.machine
            known = self.count_rows(machine)
            is_whole = finish(timeout_s)
            self.waited.append((began, self.world.now - began, timeout_s))
            for tell in self.on_held if is_whole else ():
                tell(machine, known)
            return is_whole

        sink.finish = finish_in_time  # type: ignore[method-assign]
        return sink

    def _start_publisher(self, command: list[str], **_: Any) -> Child:
        assert self.world.current is not None

        def run(words: Pipe, events: Any) -> int:
            return publisher.publish(publisher.parse(command[2:]), words, events)

        return Child(self.world, f"publisher of {self.world.current.process.name}", run)

    def _kill_by_number(self, number: int, _: int) -> None:
        for process in self.world.processes:
            if process.pid == number:
                self.world.kill(process)

    def _leave(self, driver: Process) -> None:
        cluster = self.clusters[driver]
        if not self.world.is_over:
            cluster.end_with_driver(driver)

    def find_cluster(self) -> Cluster:
        """The Ray cluster of the process that asks."""
        assert self.world.current is not None
        process = self.world.current.process
        return self.clusters.get(process) or self.cluster_of.get(process.pid) or self.joined

    # What stands in the place of the surroundings.

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Everything in its place while the world runs."""
        replaced = self._list_replaced()
        before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # files that dead processes have left open
        for module, name, value in replaced:
            setattr(module, name, value)
        handler = _Log(self.world)
        logging.getLogger().addHandler(handler)
        for known in ("ray_jobs", "trainers"):
            logging.getLogger(known).setLevel(logging.INFO)
        RAY.find_cluster, RAY.world, WANDB.client = self.find_cluster, self.world, self.client
        gc.disable()  # else it would close files of the dead at a moment of its own
        names = tempfile._name_sequence  # type: ignore[attr-defined]
        tempfile._name_sequence = (f"{self.world.names.getrandbits(40):x}" for _ in iter(int, 1))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
            logging.getLogger().removeHandler(handler)
            gc.enable()
            sys.unraisablehook = hook
            tempfile._name_sequence = names  # type: ignore[attr-defined]

    def _list_replaced(self) -> list[tuple[Any, str, Any]]:
        world = self.world

        def get_pid() -> int:
            return world.current.process.pid if world.current else 0

        def leave(code: int) -> None:
            assert world.current is not None
            process = world.current.process
            process.result = code
            world.end(process)
            raise KilledError

        of_system: list[tuple[Any, str, Any]] = [
            (time, "time", lambda: EPOCH_S + world.now + world.clock_offset),
            (time, "monotonic", lambda: 100.0 + world.now),
            (time, "sleep", world.sleep),
            (time, "strftime", lambda form, *when: _STRFTIME(form, *(when or (time.gmtime(EPOCH_S + world.now),)))),
            (os, "getpid", get_pid),
            (os, "uname", lambda: SimpleNamespace(nodename=world.current.process.machine if world.current else "")),
            (os, "_exit", leave),
            (os, "kill", self._kill_by_number),
            (secrets, "token_hex", lambda num: f"{world.names.getrandbits(8 * num):0{2 * num}x}"),
            (shutil, "_use_fd_functions", False),
            (shutil, "disk_usage", self._measure_disk),
            (tempfile, "tempdir", TEMPORARY),
            (sys, "stdout", io.StringIO()),
            (sys, "stderr", io.StringIO()),
            (importlib.metadata, "version", _FIND_VERSION),
        ]
        threads = [
            (module, "threading", self.threading)
            for module in (resume, launcher, mirror, run_mirror, fold_mirror, lease, publisher, wandb_sink)
        ]
        of_product: list[tuple[Any, str, Any]] = [
            (events_by_fold, "_FOLLOWED", _OfEachProcess(world, OrderedDict)),
            (events_by_fold, "_LOCK", _OfEachProcess(world, self.threading.Lock)),
            (bucket, "open_objects", self._open_objects),
            (objects, "obstore", Obstore),
            (lease, "_describe_process", self._describe_process),
            (bucket, "ThreadPoolExecutor", OneAfterAnother),
            (kfold, "check_run", lambda config, *_: make_plan(config)),
            (kfold, "RayStart", SimpleNamespace(for_run=lambda config: None)),
            (kfold, "ClusterSpread", lambda *_: None),
            (kfold, "Watcher", lambda *_: _Watcher()),
            (kfold, "WandbSink", self._make_sink),
            (wandb_sink, "subprocess", SimpleNamespace(Popen=self._start_publisher, PIPE=None)),
            (wandb_sink, "read_wandb_settings", lambda: WandbSettings({}, {}, None)),
            (wandb_sink, "RETRY_ONLINE_S", self.setting.retry_online_s),
            (wandb_sink, "PUBLISHER", [*wandb_sink.PUBLISHER, f"--check-s={self.setting.check_s}"]),
            (wandb_tries, "_list_commands", self.client.list_commands),
            (kfold, "print_outcome", lambda *_: None),
            (kfold, "reset_damaged_folds", self._reset_damaged_folds(reset_damaged_folds)),
            (conclude, "print_outcome", lambda *_: None),
            (session, "on_cluster", self._join_cluster),
            (session, "refuse_private_storage", lambda *_: None),
            (session, "run_on_each_node", lambda *_, **__: None),
            (session, "load_inventory_module", lambda family: _NO_INVENTORY),
            (launcher, "run_as_task", self._run_as_task),
            (launcher, "WaitReport", lambda say: SimpleNamespace(look=lambda find: None)),
            (watches, "find_draining_nodes", lambda: self.joined.draining),
            (watches, "kill_process", self._kill_process),
            (watchdog, "faulthandler", _FaultHandler(world, self.files)),
            (worker, "load_train_module", lambda family: self.training),
            (worker, "_logging_to", lambda *_, **__: contextlib.nullcontext()),
            (sys.modules["ray_jobs.tracking.gauges"], "FoldGauges", _NoGauges),
            (ensemble.predictions, "pq", SimpleNamespace(ParquetFile=_open_parquet)),
        ]
        for module, name, _ in of_product:
            if not hasattr(module, name):
                setattr(module, name, None)
        return [*of_system, *threads, *of_product, *self.files.replace()]

    def _open_objects(self, uri: str, patience_s: float) -> objects.Objects:
        return objects.Objects(uri, Place(self.store, uri.partition("://")[2]), patience_s)

    def _describe_process(self, pid: int) -> dict[str, Any]:
        """What `/proc` tells of a process of the machine of who asks."""
        assert self.world.current is not None
        machine = self.world.current.process.machine
        if not any(one.pid == pid and one.machine == machine and not one.is_dead for one in self.world.processes):
            return {"process": pid}
        return {"process": pid, "started": str(pid), "machine": machine}

    def _measure_disk(self, path: Any) -> Any:
        disk = self.find_disk(self.world.current.process.machine if self.world.current else "", str(path))
        return SimpleNamespace(free=0 if disk.fault == "full" else 1 << 40)

    @contextlib.contextmanager
    def _join_cluster(self, *_: Any) -> Iterator[tuple[Any, Interrupts]]:
        world = self.world
        assert world.current is not None
        driver = world.current.process
        world.sleep(1.0)
        cluster, interrupts = self.clusters[driver], Interrupts()
        driver.on_signal = lambda: interrupts._hear(signal.SIGINT, None)
        nodes = tuple(Resources(float(self.setting.at_once), 0.0, 1e12) for _ in cluster.machines)

        def check() -> None:
            world.step("look whether the cluster is there")
            if cluster.is_gone:
                raise ClusterLostError("the Ray cluster is gone")

        heartbeat = SimpleNamespace(check=check, confirm=check)
        resources = ClusterResources(sum(one.cpus for one in nodes), 0.0, nodes)
        connection = SimpleNamespace(
            resources=resources, dashboard_url=None, asks_for_token=True, is_own=cluster.is_own, heartbeat=heartbeat
        )
        yield connection, interrupts
        driver.on_signal = interrupt

    def _run_as_task(self, name: str, task: dict[str, Any], placement: Any) -> Any:
        world = self.world
        assert world.current is not None
        driver = world.current.process
        cluster = self.clusters[driver]

        def note(process: Process) -> None:
            self.cluster_of[process.pid] = cluster
            for tell in self.on_launch:
                tell(process, task["fold"], task["attempt"])

        return cluster.start_task(
            f"fold {task['fold']} attempt {task['attempt']} of {driver.name}", worker.train_worker, (task,),
            attempt=(task["fold"], task["attempt"]), on_launch=note,
        )  # fmt: skip

    def _kill_process(self, node: str, pid: int) -> None:
        for process in self.world.processes:
            if process.pid == pid and process.machine == node:
                self.world.kill(process)

    def _reset_damaged_folds(self, real: Callable[..., None]) -> Callable[..., None]:
        def reset(folder: RunFolder, num_folds: int, say: Callable[[str], None]) -> None:
            def hear(text: str) -> None:
                self.reset_folds.append(text)
                say(text)

            real(folder, num_folds, hear)

        return reset


def make_config(setting: Setting) -> RunConfig:
    """Of the run, with a recipe of which nothing is trained but its name."""
    return dataclasses.replace(
        _recipe(),
        run=RunSection(name=RUN, storage=setting.storage, dashboard=False, stall_timeout_s=setting.stall_timeout_s),
        folds=FoldsConfig(NUM_FOLDS, "random"),
        checkpoint=CheckpointConfig(setting.every_steps, setting.min_interval_s, setting.patience_s),
        tracking=dataclasses.replace(_recipe().tracking, log_interval=setting.log_interval, wandb=setting.wandb),
        resources=dataclasses.replace(_recipe().resources, max_folds_at_once=setting.at_once),
    )


@cache
def _recipe() -> RunConfig:
    return RECIPES["clip_multimodal_small"]()


@cache
def _plan_folds() -> Any:
    return plan_folds(FoldsConfig(NUM_FOLDS, "random"), make_inventory())


def make_plan(config: RunConfig) -> Plan:
    """A run that has passed every check."""
    folder = RunFolder(find_place(config.run.storage, RUN))
    return Plan({"main": MemberPlan(config, folder, make_inventory(), _plan_folds())}, [])


_STRFTIME = time.strftime
_FIND_VERSION = cache(importlib.metadata.version)


class _OfEachProcess:
    """A global variable, of which each process has its own."""

    def __init__(self, world: World, make: Callable[[], Any]) -> None:
        self._world, self._make, self._made = world, make, dict[Process, Any]()

    def _find(self) -> Any:
        assert self._world.current is not None
        process = self._world.current.process
        if process not in self._made:
            self._made[process] = self._make()
        return self._made[process]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)

    def __setitem__(self, name: Any, value: Any) -> None:
        self._find()[name] = value

    def __len__(self) -> int:
        return len(self._find())

    def __enter__(self) -> Any:
        return self._find().__enter__()

    def __exit__(self, *error: object) -> None:
        self._find().__exit__(*error)


class _NoGauges:
    def __init__(self, *_: Any) -> None: ...
    def start(self) -> None: ...
    def export(self) -> None: ...


class _Watcher:
    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None: ...
    def update(self) -> None: ...


_NO_INVENTORY = SimpleNamespace(prepare_node=lambda *_: None, write_inputs=lambda *_: None)


class _FaultHandler:
    """Python's `faulthandler`: ends a process in which nothing moves."""

    def __init__(self, world: World, files: Files) -> None:
        self.world, self.files = world, files
        self.armed: dict[Process, int] = {}

    def dump_traceback_later(self, timeout: float, *, exit: bool, file: Any) -> None:
        assert self.world.current is not None
        process, number = self.world.current.process, file.fileno()
        self.armed[process] = mark = self.armed.get(process, 0) + 1

        def end() -> None:
            if self.armed[process] != mark or process.is_dead:
                return
            if process.stopped_until > self.world.now:  # it is stopped, and its watchdog with it
                self.world.call_later(process.stopped_until - self.world.now + 1e-3, end)
                return
            opened = self.files.open_files.get(number)
            if opened is not None and opened.disk.fault is None:
                opened.inode.data[:] = b"stacks"
            self.world.kill(process)

        self.world.call_later(timeout, end)

    def cancel_dump_traceback_later(self) -> None:
        assert self.world.current is not None
        self.armed[self.world.current.process] = -1


class _Log(logging.Handler):
    """What the product logs, in the schedule."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        """A line of it."""
        self.world.note(f"log: {record.getMessage()}")


def _open_parquet(path: Any) -> Any:
    return pyarrow.parquet.ParquetFile(pa.BufferReader(path.read_bytes()))


def _save_random() -> Any:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _load_random(state: Any) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
