"""A run, or a tuning, at work on a cluster: what its driver does whatever it trains.

A `Session` goes to the cluster, hears interrupts, keeps what libraries print off the screen, and ends: the user reads
what has happened and how to go on, and there is an exit code. It decides neither which folds are trained nor what is
made of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from ray_jobs.cli.connection import on_cluster
from ray_jobs.cli.console import RunConsole, report_pending_nodes
from ray_jobs.cluster.nodes import refuse_private_storage, run_on_each_node
from ray_jobs.cluster.placement import FOLD_BYTES, Placement, count_in_memory
from ray_jobs.cluster.resources import find_free_bytes
from ray_jobs.cluster.signals import Interrupts, find_save_time_s
from ray_jobs.cluster.start import Connection, RayStart
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.resources import show_memory
from ray_jobs.config.run import RunConfig
from ray_jobs.driver.coordinator import start_actor
from ray_jobs.driver.fold_task import load_trainer
from ray_jobs.driver.launcher import FoldLauncher, MemberFold
from ray_jobs.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    ClusterLostError,
    RunBusyError,
    RunError,
    RunFolderError,
    StorageError,
)
from ray_jobs.planning.leaks import Leak, describe_grouping, describe_leaks
from ray_jobs.planning.plan import Plan
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import RunStarted
from ray_jobs.runs.location import find_place, find_uri
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.remote.no_mirror import NO_MIRROR, NoMirror
from ray_jobs.runs.remote.run_mirror import RunMirror
from trainers.interface import DataError, Inventory, load_inventory_module
from trainers.storage.object_storage import is_uri

LITTLE_SPACE_BYTES = 200_000_000


class Session:
    """See above.

    Args:
        continued: what the same command continues, such as "run a".
        folder: the run's, or the tuning's. It is there.
        config: the run's, or that of the recipe that is tuned.
        start: of Ray.
        console: where to.
        mirror: of a run on object storage.

    Attributes:
        storage: what the folder lies on.
        cluster, interrupts: of a session that is on its cluster.
    """

    cluster: Connection
    interrupts: Interrupts

    def __init__(
        self,
        continued: str,
        folder: RunFolder,
        config: RunConfig,
        start: RayStart,
        console: RunConsole,
        mirror: RunMirror | NoMirror = NO_MIRROR,
    ) -> None:
        self.continued, self.folder, self.config, self.start = continued, folder, config, start
        self.console, self.mirror, self.storage = console, mirror, Storage(folder, 0.0)
        self._is_told = False

    def run(self, work: Callable[[], int]) -> int:
        """Does a driver's work.

        Returns:
            Its exit code, or that of what has ended it, which the user then knows.
        """
        try:
            return work()
        except (OSError, RunFolderError, StorageError) as error:
            self.console.print(self.storage.explain(error), style="bold red")
            return EXIT_INCOMPLETE
        except KeyboardInterrupt:
            self._say_how_to_go_on("interrupted")
            return EXIT_INTERRUPTED
        except ClusterLostError as lost:
            # In the other order there was an interrupt, and the user knows.
            code = EXIT_INTERRUPTED if self._is_told else EXIT_INCOMPLETE
            self._say_how_to_go_on(str(lost))
            self.console.file.flush()
            self.mirror.release()
            os._exit(code)  # what is left of Ray would only print its logs over the message, or hang

    @contextmanager
    def on_cluster(self) -> Iterator[None]:
        """A cluster to train on; errors as in `ray_jobs.cli.connection.on_cluster`."""
        if self.config.resources.most_workers > 1:
            load_trainer()  # here, because the threads that launch folds must not import anything
        with on_cluster(self.start, self.folder.ray_log, self.console) as (self.cluster, self.interrupts):
            self.check()
            yield

    def check(self) -> None:
        """To be called again and again while folds train.

        Raises:
            KeyboardInterrupt: there was an interrupt.
            ClusterLostError: the cluster is gone.
        """
        self.interrupts.check()
        self.cluster.heartbeat.check()

    def announce(self, counts: str, placement: Placement) -> None:
        """Says where the folds train, and where their files are.

        Args:
            counts: how many folds train at once, with how many workers.
            placement: what each worker has.
        """
        console, cluster, root = self.console, self.cluster, self.folder.root
        device = f"{placement.gpus_per_worker:g} GPU" if placement.gpus_per_worker else "no GPU"
        memory = placement.memory_per_worker_bytes
        device = f", {device} and {show_memory(memory)} of memory" if memory else f" and {device}"
        console.print(
            f"{counts} with {placement.cpus_per_worker:g} CPU ({placement.threads_per_worker} threads){device}; "
            f"{'own Ray cluster' if cluster.is_own else 'joined a Ray cluster'}"
        )
        if placement.is_short_of_memory:
            console.print(describe_memory(placement.folds_at_once), style="yellow")
        report_pending_nodes(console, placement.waits_for)
        if cluster.dashboard_url:
            asks = " (it asks for a token: `ray get-auth-token` prints it)" if cluster.asks_for_token else ""
            console.print(f"dashboard: http://{cluster.dashboard_url}{asks}")
        console.print(f"folder: {root}")
        free_bytes = shutil.disk_usage(root).free
        if free_bytes < LITTLE_SPACE_BYTES:
            console.print(
                f"only {free_bytes / 1e6:.0f} MB are free there; a fold that finds the disk full waits for space",
                style="yellow",
            )

    def prepare_nodes(self, plan: Plan) -> None:
        """Looks whether each machine sees the run's folder, and lets it fetch what the members need there, once."""
        is_own = self.cluster.is_own
        if not is_own and find_uri(plan.folder) is None:
            refuse_private_storage(plan.folder.root, self.check)
        for member in plan.list_views():
            prepare_node = load_inventory_module(member.config.family).prepare_node
            if is_own:
                prepare_node(member.config.trainer)
            else:
                run_on_each_node(prepare_node, member.config.trainer, check=self.check)

    def make_launcher(self, plan: Plan, config: RunConfig, placement: Placement, coordinator: Any) -> FoldLauncher:
        """What trains folds of a plan here; Ray's dashboard calls them by the config's name."""
        trainers = {member.folder.root: member.config.trainer for member in plan.members.values()}
        here = (self.cluster, self.interrupts, self.mirror)
        return FoldLauncher(plan.folder, config, trainers, placement, coordinator, *here)

    def say_interrupted(self) -> None:
        """What a user has to know first of all: soon after an interrupt somebody may kill the driver."""
        time_s = find_save_time_s()
        self.console.print(
            f"\nthe folds save where they are (at most {time_s:.0f} s; another interrupt ends it at once)"
        )
        self._say_how_to_go_on("interrupted")

    def _say_how_to_go_on(self, what_happened: str) -> None:
        """Once: whoever calls first says it."""
        if not self._is_told:
            self._is_told = True
            self.console.print(
                f"{what_happened}: every fold goes on from its last checkpoint. The same command continues "
                f"{self.continued}"
            )


@contextmanager
def no_empty_run(storage: str, name: str) -> Iterator[None]:
    """A run, or a tuning, that is refused before anything was launched leaves no folder, unless there was one."""
    root = find_place(storage, name)
    was_there = root.exists()
    try:
        yield
    except (RunError, DataError):
        if not was_there and not any(root.rglob(RunFolder(root).events.name)):
            shutil.rmtree(root, ignore_errors=True)
        raise


def list_unfinished(plan: Plan) -> list[MemberFold]:
    """The wanted folds of all members that are not finished."""
    folders = [member.folder for member in plan.members.values()]
    folds = [MemberFold(folder, fold) for folder in folders for fold in plan.config.folds.wanted()]
    return [fold for fold in folds if not fold.folder.fold(fold.fold).is_complete()]


def write_inputs(plan: Plan) -> None:
    """Writes what the folds read; members that read the same share it."""
    for member in plan.list_views():
        write = load_inventory_module(member.config.family).write_inputs
        write(member.config.trainer, member.inventory, member.folder.inputs)


def start_coordinator(plan: Plan, placement: Placement) -> Any:
    """Starts the coordination actor of a plan's folds, and tells it what begins.

    Raises:
        RunBusyError: there is one already.
    """
    try:
        coordinator = start_actor(plan.folder, list(plan.members), plan.folds.count)
    except ValueError as error:  # the name is taken
        raise RunBusyError(f"a driver in this cluster already works on {plan.folder.root}: {error}") from None
    world_size = placement.workers_at_once
    num_gpus = placement.gpus_per_worker * world_size
    for name, member in plan.members.items():
        begin = RunStarted(len(plan.folds.ids), num_gpus, world_size, tuple(member.folds.sizes()))
        coordinator.apply.remote(name, begin)
    return coordinator


def say_dry_run_ends(console: Console, plan: Plan) -> None:
    """The last line of a dry run."""
    root = plan.config.trainer.data.root
    kept = f", but what it read of {root} is kept in {plan.folder.cache}" if is_uri(root or "") else ""
    console.print(f"dry run: nothing was launched or written{kept}")


def note_memory(config: RunConfig, num_folds: int) -> str | None:
    """What a dry run says of this machine's memory, where it is too little for so many folds at once without a GPU."""
    free_bytes, resources = find_free_bytes(), config.resources
    if (
        free_bytes is None
        or resources.max_folds_at_once
        or resources.memory_per_fold
        or resources.gpus_per_fold not in ("auto", 0)
    ):
        return None
    room = max(1, count_in_memory(free_bytes) // resources.least_workers)
    return f"without a GPU: {describe_memory(room)}" if room < num_folds else None


def describe_memory(num_folds: int) -> str:
    """That memory decides how many folds train at once."""
    return (
        f"there is memory for {num_folds} fold(s) at once, of {show_memory(FOLD_BYTES)} each, and the others wait; "
        "resources.max_folds_at_once sets another number"
    )


def print_leaks(
    console: Console, leaks: Sequence[Leak], folds: FoldsConfig, inventory: Inventory, folder: RunFolder
) -> None:
    """What is the same on both sides of a fold or in test, a line a kind, and where the rows are listed."""
    if folds.on_leak == "group":
        console.print(describe_grouping(folds, inventory))
    for line in describe_leaks(leaks, folds):
        console.print(line, style="yellow")
    if leaks and folder.leaks.exists():
        console.print(f"all such rows: {folder.leaks}", style="yellow")
