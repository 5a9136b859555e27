"""Starting or joining a Ray cluster, with its token; noticing that it is gone."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.cluster import find_resources, package_versions, refuse_other_versions, run_on_each_node
from ray_jobs.config import RunConfig
from ray_jobs.coordinator import NAMESPACE
from ray_jobs.errors import ClusterError, ClusterLostError
from ray_jobs.interrupts import in_submitted_job
from ray_jobs.placement import ClusterResources

REPOSITORY = Path(__file__).resolve().parents[1]
CONNECT_TIMEOUT_S = 5.0
# How long nobody may answer at the cluster's address. Ray itself gives up after 60 s and ends the process without a word.
GONE_AFTER_S, OWN_GONE_AFTER_S = 45.0, 3.0
LOOK_INTERVAL_S = 2.0

# Ray's own settings, read when Ray or a TorchTrainer starts; a value that the user has set is kept.
_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a finished fold is noticed after 0.2 s rather than 2 s
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone on workers without a GPU; no warning
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that outlives the connection must not start another cluster
}
_SETTINGS_OF_JOINED_CLUSTER = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # runs in the API of a dashboard that stays; takes a process of its own
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",  # of the 25 s that a spot machine has left; 5 s by default
}
_SETTINGS_OF_OWN_CLUSTER = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one machine that nobody takes away
    "RAY_enable_worker_prestart": "0",
}


@dataclass(frozen=True)
class Connection:
    """A Ray cluster to work on: what it has, its dashboard, whether it turns callers without its token away, whether this
    job started it."""

    resources: ClusterResources
    dashboard_url: str | None
    asks_for_token: bool
    is_own: bool
    heartbeat: Heartbeat


class Heartbeat:
    """Notices that the cluster is gone: `ray stop`, or a head node that is lost. A head node that comes back in time (Ray
    can restart it elsewhere) is not gone. A driver whose own machine has no node any more has to end: Ray would end it without
    a word.

    Args:
        address: host:port of the head node's control service.
        patience_s: how long it may stay silent.
        own_node: host:port of the node on this machine; None: not looked for.
    """

    def __init__(self, address: str, patience_s: float, own_node: str | None = None) -> None:
        self.address, self.patience_s, self.own_node = address, patience_s, own_node
        self.looked = self.heard = time.monotonic()

    def check(self) -> None:
        """To be called again and again.

        Raises:
            ClusterLostError: nobody has answered for too long.
        """
        if time.monotonic() - self.looked < LOOK_INTERVAL_S:
            return
        if self.own_node and not (_answers(self.own_node) or _answers(self.own_node)):
            raise ClusterLostError(f"the Ray node of this machine, at {self.own_node}, is gone")
        if _answers(self.address):
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > self.patience_s:
            self.confirm()
        self.looked = time.monotonic()

    def confirm(self) -> None:
        """To be called when something else has failed.

        Raises:
            ClusterLostError: nobody answers now.
        """
        if not _answers(self.address):
            raise ClusterLostError(f"the Ray cluster at {self.address} is gone")


@contextmanager
def interrupted_when_lost(heartbeat: Heartbeat) -> Iterator[None]:
    """Interrupts the main thread, which a library may keep waiting, when the cluster is gone.

    Raises:
        ClusterLostError: it is.
    """
    done, lost = threading.Event(), []

    def watch() -> None:
        while not done.wait(LOOK_INTERVAL_S):
            try:
                heartbeat.check()
            except ClusterLostError as error:
                lost.append(error)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, Exception):
        if lost:
            raise lost[0] from None
        raise
    finally:
        done.set()


class RayStart:
    """Starts a cluster of this job's own, or joins the one that is there, when somebody first needs it: what reads data in object storage,
    or else the training. Always in the thread that asks, which is the main thread: Ray imports modules while it starts.

    Args:
        job_name: what the dashboard's list of jobs calls this driver (a submitted job is named when it is submitted).
        dashboard: whether a cluster of its own has one.
        metadata: what else the job's page in the dashboard shows.
    """

    def __init__(self, job_name: str, *, dashboard: bool, metadata: Mapping[str, str] | None = None) -> None:
        self.job_name, self.dashboard, self.metadata = job_name, dashboard, dict(metadata or {})
        self.context: Any = None
        self.address: str | None = None

    @classmethod
    def for_run(cls, config: RunConfig, purpose: str | None = None) -> RayStart:
        """For a job on a run, or a tuning.

        Args:
            config: its run has a name.
            purpose: what the job does with it; None: it trains the run.
        """
        name, storage = config.run.name, config.run.storage
        metadata = {"run": name, "folder": f"{storage.rstrip('/')}/{name}", "recipe": config.recipe}
        job_name = f"{name}-{purpose}" if purpose else name
        return cls(job_name, dashboard=config.run.dashboard, metadata=metadata)

    @property
    def is_own(self) -> bool:
        """Whether the cluster is this job's own."""
        return self.address is None

    def join(self) -> Any:
        """Starts or joins Ray, the first time; returns what `ray.init` has returned.

        Raises:
            ClusterError: Ray does not start, or the named cluster does not answer.
        """
        if self.context is None:
            self.address = _find_cluster()
            self.context = _start_ray(self.address, self.job_name, self.metadata, dashboard=self.dashboard)
        return self.context


@contextmanager
def connect(start: RayStart) -> Iterator[Connection]:
    """Joins the cluster that RAY_ADDRESS or `ray start` on this machine names, else starts one for this job.

    Raises:
        ClusterError: a named cluster does not answer, asks for another token, or runs other package versions.
    """
    context = start.join()
    import ray

    try:
        if not start.is_own:
            refuse_other_versions(package_versions(), run_on_each_node(package_versions))
        head = ray.get_runtime_context().gcs_address
        heartbeat = Heartbeat(head, OWN_GONE_AFTER_S if start.is_own else GONE_AFTER_S, _find_own_node())
        yield Connection(find_resources(), context.dashboard_url or None, _call(head) != "OK", start.is_own, heartbeat)
    except ClusterLostError:
        raise  # without a shutdown, in which Ray may end the process before anything is said
    except BaseException:
        ray.shutdown()
        raise
    else:
        ray.shutdown()


def _start_ray(address: str | None, job_name: str, metadata: Mapping[str, str], *, dashboard: bool) -> Any:
    """Joins the cluster at the address, or starts one; what `ray.init` returns."""
    is_own = address is None
    _set(_SETTINGS_OF_OWN_CLUSTER if is_own else _SETTINGS_OF_JOINED_CLUSTER)
    import ray

    settings = {
        "namespace": NAMESPACE,
        "job_config": ray.job_config.JobConfig(
            metadata={"job_name": job_name, **metadata},
            # Ray adds the working directory, wherever the user is; a submitted job's folder it brings to all nodes itself.
            _py_driver_sys_path=[] if in_submitted_job() else [str(REPOSITORY)],
        ),
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": True,
    }
    if is_own:
        settings["include_dashboard"] = dashboard
        _close_token_folder()
    else:
        _refuse_wrong_token(address)
    # Ray's patience with its own processes is fixed, and too short for a machine that is busy.
    tries = 2 if is_own else 1
    while True:
        tries -= 1
        try:
            return ray.init(address=address or "local", **settings)
        except SystemExit:  # Ray's own handler of SIGTERM
            raise KeyboardInterrupt from None
        except Exception as error:  # Ray raises what it likes
            if not tries:
                what = "Ray does not start" if is_own else f"the Ray cluster at {address} refuses"
                raise ClusterError(f"{what}: {error.__cause__ or error}") from None


def _set(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _find_own_node() -> str | None:
    """host:port of the node on this machine that the driver is connected to."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["NodeID"] == own]
    return f"{nodes[0]['NodeManagerAddress']}:{nodes[0]['NodeManagerPort']}" if nodes else None


def _find_cluster() -> str | None:
    """Address of the cluster to join: RAY_ADDRESS, else the one that `ray start` noted on this machine and that answers.

    `ray.init(address="auto")` would also take up the private cluster of any other process of this machine, and would
    wait 11 minutes for an address that does not answer.

    Raises:
        ClusterError: nobody answers at RAY_ADDRESS.
    """
    _set(_SETTINGS)
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    from ray._private.utils import read_ray_address

    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return None
    if named not in ("", "auto"):
        if "://" not in named and not _answers(named):
            raise ClusterError(f"no Ray cluster answers at RAY_ADDRESS={named}; start it, or unset RAY_ADDRESS")
        return named
    noted = read_ray_address()
    if noted and _answers(noted):
        # As ray.init does for clusters that it finds itself.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        return noted
    if named == "auto":
        raise ClusterError("RAY_ADDRESS=auto, but no cluster of `ray start` answers on this machine")
    return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


def _refuse_wrong_token(address: str) -> None:
    """Ray itself would try for 20 s and then not say why.

    Raises:
        ClusterError: the cluster asks for a token that this process does not have.
    """
    from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode

    loader, uses_token = AuthenticationTokenLoader.instance(), get_authentication_mode() == AuthenticationMode.TOKEN
    token = loader.get_raw_token() if uses_token and loader.has_token(ignore_auth_mode=True) else ""
    if _call(address, token) == "UNAUTHENTICATED":
        raise ClusterError(
            f"the Ray cluster at {address} asks for {'another' if token else 'its'} token: export RAY_AUTH_MODE=token and "
            "copy ~/.ray/auth_token from its head node (or export RAY_AUTH_TOKEN)"
        )


def _call(address: str, token: str = "") -> str:
    """The gRPC status of a harmless question to a cluster. Asking without a token is the only way to learn whether it has
    authentication: one that has none lets in whoever sends a token, too."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        try:
            ask(b"", timeout=CONNECT_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
    return "OK"


def _close_token_folder() -> None:
    """Ray writes a new token so that every user of the machine may read it; the folder around it is closed to them."""
    folder = Path("~/.ray").expanduser()
    with suppress(OSError):  # a folder of another owner, or a read-only one: whoever made it has decided
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
