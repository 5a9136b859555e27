"""What every driver of folds shares, of a run or of a tuning: a cluster to train on, its nodes, the coordinator,
exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from ray_jobs.cli.console import chatter_to, warn_of_open_cluster
from ray_jobs.cluster.nodes import refuse_private_storage, run_on_each_node
from ray_jobs.cluster.signals import Interrupts, find_save_time_s, listening
from ray_jobs.cluster.start import Connection, RayStart, connect
from ray_jobs.config.folds import FoldsConfig
from ray_jobs.config.run import RunConfig
from ray_jobs.driver.coordinator import start_actor
from ray_jobs.driver.launcher import MemberFold
from ray_jobs.errors import RunBusyError
from ray_jobs.planning.leaks import Leak, describe_grouping, describe_leaks
from ray_jobs.planning.plan import Plan
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_uri
from trainers.interface import Inventory, load_inventory_module
from trainers.storage.object_storage import is_uri

EXIT_OK, EXIT_INCOMPLETE, EXIT_INTERRUPTED = 0, 1, 130
INTERRUPTED = "interrupted"


def list_unfinished(plan: Plan) -> list[MemberFold]:
    """The wanted folds of all members that are not finished."""
    folders = [member.folder for member in plan.members.values()]
    folds = [MemberFold(folder, fold) for folder in folders for fold in plan.config.folds.wanted()]
    return [fold for fold in folds if not fold.folder.fold(fold.fold).is_complete()]


def say_interrupted(console: Console, say_how_to_go_on: Callable[[str], None]) -> None:
    """What a user has to know first of all: soon after an interrupt somebody may kill the driver."""
    time_s = find_save_time_s()
    console.print(f"\nthe folds save where they are (at most {time_s:.0f} s; another interrupt ends it at once)")
    say_how_to_go_on(INTERRUPTED)


@contextmanager
def on_cluster(
    folder: RunFolder, config: RunConfig, start: RayStart, console: Console
) -> Iterator[tuple[Connection, Interrupts]]:
    """A cluster to train on, this job's own or one that others use, too; while it is used, interrupts are heard and what libraries print
    goes into the run's log.

    Raises:
        ClusterError: none can be had.
        KeyboardInterrupt: there was an interrupt meanwhile.
    """
    if config.resources.most_workers > 1:
        # Here, because the threads that launch folds must not import anything.
        import ray_jobs.worker.worker  # noqa: F401
    with (
        listening() as interrupts,
        chatter_to(folder.ray_log),
        connect(start) as cluster,
    ):
        interrupts.listen()
        interrupts.check()
        if not cluster.asks_for_token:
            warn_of_open_cluster(console, is_own=cluster.is_own)
        yield cluster, interrupts


def leave_inputs(plan: Plan) -> None:
    """Writes what the folds read; members that read the same share it."""
    left = []
    for member in plan.members.values():
        trainer = member.config.trainer
        if (trainer.data, trainer.model) not in left:
            left.append((trainer.data, trainer.model))
            load_inventory_module(member.config.family).leave_inputs(trainer, member.inventory, plan.folder.inputs)


def prepare_nodes(plan: Plan, cluster: Connection) -> None:
    """Looks whether each machine sees the run's folder, and lets it fetch what the members need there, once."""
    if not cluster.is_own and find_uri(plan.folder) is None:
        refuse_private_storage(plan.folder.root)
    for member in plan.members.values():
        prepare_node = load_inventory_module(member.config.family).prepare_node
        if cluster.is_own:
            prepare_node(member.config.trainer)
        else:
            run_on_each_node(prepare_node, member.config.trainer)


def start_coordinator(plan: Plan) -> Any:
    try:
        return start_actor(plan.folder, list(plan.members), plan.folds.count)
    except ValueError as error:  # the name is taken
        raise RunBusyError(f"a driver in this cluster already works on {plan.folder.root}: {error}") from None


def say_dry_run_ends(console: Console, plan: Plan) -> None:
    """The last line of a dry run."""
    root = plan.config.trainer.data.root
    kept = f", but what it read of {root} is kept in {plan.folder.cache}" if is_uri(root or "") else ""
    console.print(f"dry run: nothing was launched or written{kept}")


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
