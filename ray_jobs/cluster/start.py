"""Starting or joining a Ray cluster."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray_jobs.cluster.access import (
    NAMESPACE,
    answers,
    ask_without_ray,
    prepare_home,
    prepare_token,
    refuse_temporary_folder,
    refuse_wrong_token,
)
from ray_jobs.cluster.heartbeat import GONE_AFTER_S, OWN_GONE_AFTER_S, Heartbeat, ending_when_lost
from ray_jobs.cluster.nodes import run_on_each_node
from ray_jobs.cluster.placement import ClusterResources
from ray_jobs.cluster.ray_private import (
    SETTINGS,
    SETTINGS_OF_JOINED_CLUSTER,
    SETTINGS_OF_OWN_CLUSTER,
    apply_settings,
    read_noted_address,
    read_token,
    use_token_if_there_is_one,
)
from ray_jobs.cluster.resources import find_resources
from ray_jobs.cluster.signals import without_hangup
from ray_jobs.cluster.versions import COMMON_PACKAGES, list_packages, package_versions, refuse_other_versions
from ray_jobs.config.members import list_families
from ray_jobs.config.run import RunConfig
from ray_jobs.errors import ClusterError, ClusterLostError
from trainers.interface import load_config_class

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Connection:
    """A Ray cluster to work on: what it has, its dashboard, whether it turns callers without its token away, whether
    this job started it."""

    resources: ClusterResources
    dashboard_url: str | None
    asks_for_token: bool
    is_own: bool
    heartbeat: Heartbeat


class RayStart:
    """Starts a cluster of this job's own, or joins the one that is there, when somebody first needs it: what reads data
    in object storage, or else the training. Always in the thread that asks, which is the main thread: Ray imports
    modules while it starts.

    Args:
        job_name: what the dashboard's list of jobs calls this driver (a submitted job is named when it is submitted).
        dashboard: whether a cluster of its own has one.
        metadata: what else the job's page in the dashboard shows.
        packages: which the nodes of a cluster that is joined need in the same versions.

    Attributes:
        note: why a cluster that is there was not joined, for the user.
        was_there: whether this process was connected before: then it stays so.
    """

    def __init__(
        self,
        job_name: str,
        *,
        dashboard: bool,
        metadata: Mapping[str, str] | None = None,
        packages: Sequence[str] = COMMON_PACKAGES,
    ) -> None:
        self.job_name, self.dashboard, self.metadata = job_name, dashboard, dict(metadata or {})
        self.packages = packages
        self.context: Any = None
        self.address: str | None = None
        self.note: str | None = None
        self.was_there = False

    @classmethod
    def for_run(cls, config: RunConfig, purpose: str | None = None) -> RayStart:
        """For a job on a run, or a tuning.

        Args:
            config: its run has a name.
            purpose: what the job does with it; None: it trains the run.
        """
        name, storage = config.run.name, config.run.storage
        assert name is not None
        metadata = {"run": name, "folder": f"{storage.rstrip('/')}/{name}", "recipe": config.recipe}
        job_name = f"{name}-{purpose}" if purpose else name
        packages = list_packages(*map(load_config_class, list_families(config)))
        return cls(job_name, dashboard=config.run.dashboard, metadata=metadata, packages=packages)

    @property
    def is_own(self) -> bool:
        """Whether the cluster is this job's own."""
        return self.address is None

    def join(self) -> Any:
        """Starts or joins Ray, the first time; returns what `ray.init` has returned.

        Raises:
            ClusterError: Ray does not start, or the named cluster does not answer.
        """
        if self.context is None and (address := _find_connection()):
            self.was_there, self.address, self.context = True, address, SimpleNamespace(dashboard_url=None)
        if self.context is None:
            self.address, self.note = _find_cluster()
            with _ending_when_lost(self.address):
                self.context = _start_ray(self.address, self.job_name, self.metadata, dashboard=self.dashboard)
        return self.context


@contextmanager
def connect(start: RayStart) -> Iterator[Connection]:
    """Joins the cluster that RAY_ADDRESS or `ray start` on this machine names, else starts one for this job.

    Raises:
        ClusterError: a named cluster does not answer, asks for another token, or runs other package versions.
        ClusterLostError: it goes while it is joined.
    """
    context = start.join()
    import ray

    try:
        with _ending_when_lost(start.address):
            head = ray.get_runtime_context().gcs_address
            heartbeat = Heartbeat(head, OWN_GONE_AFTER_S if start.is_own else GONE_AFTER_S, _find_own_node())
        # Ray imports what serialises when that is first needed; here, because the driver's threads must not import
        # anything.
        ray.put(None)
        if not start.is_own:
            packages = start.packages
            found = run_on_each_node(package_versions, packages, check=heartbeat.check)
            refuse_other_versions(package_versions(packages), found)
        yield Connection(
            find_resources(is_own=start.is_own),
            context.dashboard_url or None,
            ask_without_ray(head) != "OK",
            start.is_own,
            heartbeat,
        )
    except ClusterLostError:
        raise  # without a shutdown, in which Ray may end the process before anything is said
    except ModuleNotFoundError as error:
        if not start.was_there:
            ray.shutdown()
        raise ClusterError(
            f"the workers of the Ray cluster cannot import {error.name}: install the project there or, where this "
            f"process starts Ray itself, set PYTHONPATH={REPOSITORY} before"
        ) from None
    except BaseException:
        if not start.was_there:
            ray.shutdown()
        raise
    else:
        if not start.was_there:
            ray.shutdown()


def _ending_when_lost(address: str | None) -> AbstractContextManager[None]:
    """Of a cluster that is joined by host:port."""
    return nullcontext() if address is None or "://" in address else ending_when_lost(address)


def _find_connection() -> str | None:
    """The address of the cluster that this process is connected to already, as a script may be; None: none."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    apply_settings(SETTINGS)
    address: str = ray.get_runtime_context().gcs_address
    return address


def _start_ray(address: str | None, job_name: str, metadata: Mapping[str, str], *, dashboard: bool) -> Any:
    """Joins the cluster at the address, or starts one; what `ray.init` returns."""
    is_own = address is None
    apply_settings(SETTINGS_OF_OWN_CLUSTER if is_own else SETTINGS_OF_JOINED_CLUSTER)
    import ray

    prepare_home()
    if address is None:
        refuse_temporary_folder()
        prepare_token()
    else:
        refuse_wrong_token(address)
    errors: list[Exception] = []
    # Ray's patience with its own processes is fixed, and too short for a machine that is busy.
    while len(errors) < (2 if is_own else 1):
        # Made anew for each try: Ray changes it.
        job_config = ray.job_config.JobConfig(metadata={"job_name": job_name, **metadata})
        try:
            # Workers look for modules where the driver is, and that is not wherever the user is.
            with chdir(REPOSITORY), without_hangup():
                return ray.init(
                    address=address or "local",
                    include_dashboard=dashboard if is_own else None,
                    job_config=job_config,
                    namespace=NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                )
        except SystemExit:  # Ray's own handler of SIGTERM
            raise KeyboardInterrupt from None
        except Exception as error:  # Ray raises what it likes
            errors.append(error)
    what = "Ray cannot be started" if is_own else f"the Ray cluster at {address} cannot be joined"
    raise ClusterError(f"{what}: {errors[0].__cause__ or errors[0]}")


def _find_own_node() -> str | None:
    """host:port of the node on this machine that the driver is connected to."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["NodeID"] == own]
    return f"{nodes[0]['NodeManagerAddress']}:{nodes[0]['NodeManagerPort']}" if nodes else None


def _find_cluster() -> tuple[str | None, str | None]:
    """Address of the cluster to join: RAY_ADDRESS, else the one that `ray start` noted on this machine and that
    answers, unless it is closed to this user: somebody else's. Of that one there is a note.

    Raises:
        ClusterError: nobody answers at RAY_ADDRESS.
    """
    apply_settings(SETTINGS)
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return None, None
    if named not in ("", "auto"):
        if "://" not in named and not answers(named):
            raise ClusterError(f"RAY_ADDRESS={named}: no Ray cluster answers there; start it, or unset RAY_ADDRESS")
        return named, None
    noted = read_noted_address()
    if noted and answers(noted):
        use_token_if_there_is_one()
        if named or ask_without_ray(noted, read_token()) != "UNAUTHENTICATED":
            return noted, None
        note = (
            f"the Ray cluster at {noted}, which `ray start` has noted on this machine, asks for another token: it may "
            f"be another user's, and is not used. RAY_ADDRESS={noted} and its token join it"
        )
        return None, note
    if named == "auto":
        raise ClusterError("RAY_ADDRESS=auto: no Ray cluster answers on this machine; start it, or unset RAY_ADDRESS")
    return None, None
