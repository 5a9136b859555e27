"""Work on many things that a model family hands out before anything is launched (`trainers.interface.Spread`), by Ray
Data: where its tasks have room, each on a portion, and again where a node is lost. Only what is found comes back.

Ray Data itself runs in a task: what it leaves in a process (threads, references that outlive the connection, a logger
that speaks) is not the driver's."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ray_jobs.cluster.start import RayStart
from ray_jobs.errors import ClusterError
from trainers.interface import DataError

PORTION = 64  # of items: a task has several, so that all end at about the same time
Function = Callable[[Sequence[Any]], list[Any]]


class ClusterSpread:
    """A `Spread` on the cluster that the run will use, which is started, or joined, when there is more to do than one
    portion.

    Args:
        start: of Ray.
        say: shows a line to the user.
    """

    def __init__(self, start: RayStart, say: Callable[[str], None]) -> None:
        self.start, self.say = start, say

    def __call__(self, function: Function, items: Sequence[Any]) -> list[Any]:
        """See `Spread`.

        Raises:
            DataError, OSError: of the function.
            ClusterError: Ray does not start, or could not do it.
        """
        if len(items) <= PORTION:  # done before Ray would begin
            return function(items)
        self.say(
            f"reading {len(items):,} objects of the data: new, or changed since a run of this storage has read them"
        )
        self.start.join()
        import ray

        try:
            return ray.get(ray.remote(num_cpus=0)(spread_by_data).options(name="spread").remote(function, items))
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, (DataError, OSError)):
                raise cause from None
            raise ClusterError(f"the cluster could not read the data: {error!s:.500}") from None


def spread_by_data(function: Function, items: Sequence[Any]) -> list[Any]:
    """Calls the function with portions of the items through Ray Data."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    portions = [items[start : start + PORTION] for start in range(0, len(items), PORTION)]
    rows = [{"number": number, "portion": pickle.dumps(portion)} for number, portion in enumerate(portions)]
    found: list[list[Any]] = [[] for _ in portions]
    for row in ray.data.from_items(rows).map(partial(_call, function)).iter_rows():
        result = pickle.loads(row["portion"])
        if isinstance(result, Exception):
            raise result
        found[row["number"]] = result
    return [result for results in found for result in results]


def _call(function: Function, row: dict[str, Any]) -> dict[str, Any]:
    """What is found of a portion, or the error: Ray Data would add to its words."""
    try:
        found: Any = function(pickle.loads(row["portion"]))
    except (DataError, OSError) as error:
        found = error
    return {"number": row["number"], "portion": pickle.dumps(found)}
