"""How every command works on a cluster, whatever it does there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ray_jobs.cli.console import redirect_output
from ray_jobs.cluster.signals import Interrupts, listening
from ray_jobs.cluster.start import Connection, RayStart, connect


@contextmanager
def on_cluster(start: RayStart, log: Path, console: Console) -> Iterator[tuple[Connection, Interrupts]]:
    """A cluster to work on, this job's own or one that others use, too; while it is used, interrupts are heard and what
    libraries print goes into the log.

    Raises:
        ClusterError: none can be had.
        KeyboardInterrupt: there was an interrupt meanwhile.
    """
    with listening() as interrupts, redirect_output(log), connect(start) as cluster:
        interrupts.listen()
        interrupts.check()
        if start.note:
            console.print(start.note, style="yellow")
        if not cluster.asks_for_token:
            warn_of_open_cluster(console, is_own=cluster.is_own)
        yield cluster, interrupts


def warn_of_open_cluster(console: Console, *, is_own: bool) -> None:
    """Says, so that nobody overlooks it, that a cluster lets everybody in, and what closes it."""
    which, cure = (
        "the Ray cluster that this run joins",
        "`ray get-auth-token --generate` and RAY_AUTH_MODE=token, then ",
    )
    cure += "`ray stop` and `ray start` on each node"
    if is_own:
        which, cure = "this run's own Ray cluster", "unset RAY_AUTH_MODE"
    console.print(
        f"WARNING: {which} has NO AUTHENTICATION: whoever reaches its ports can run code on its machines and read "
        f"what is there. To close it: {cure}",
        style="bold red",
    )
