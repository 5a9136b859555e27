"""What the project uses of Ray that Ray does not promise to keep: private modules and options, environment variables
that its documentation leaves out, names of processes and messages. Decides nothing.

An upgrade of Ray looks here first: each has a test that fails where Ray has moved it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Read when Ray or a TorchTrainer starts. No option of `ray.init` or of a trainer sets any of them.
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a finished fold is noticed after 0.2 s rather than 2 s
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone on workers without a GPU; no warning
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # the driver watches draining nodes, for all folds (driver/watches.py)
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that outlives the connection must not start another cluster
}
SETTINGS_OF_JOINED_CLUSTER = {
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # runs in the API of a dashboard that stays; takes a process of its own
}
SETTINGS_OF_OWN_CLUSTER = {
    "RAY_enable_worker_prestart": "0",  # processes that no fold would use
}
SETTINGS_OF_GPU_RANKS = {  # of a fold of several workers: a collective that stands still ends the attempt
    "RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "1",
    "RAY_TRAIN_NCCL_RAS_ACTION": "fail",  # of itself it would only say so
}
LIST_NODES = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"  # of gRPC: harmless, and understood by every cluster
SESSION_PATH = "/ray/session_2026-01-01_00-00-00_000000_/sockets/plasma_store"  # below TMPDIR, without the process id
BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"  # where `ray up` leaves the config on the head node


def apply_settings(settings: Mapping[str, str]) -> None:
    """Sets what the user has not set."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def in_job(environment: Mapping[str, str]) -> bool:
    """Whether a process is the entry point of a submitted job. `ray.get_runtime_context` knows only once Ray is
    connected."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in environment


def find_draining_nodes() -> set[str]:
    """Ids of nodes that are being taken away: drained by hand or by an autoscaler, or whose spot machine has had its
    notice. `ray.nodes` shows them as alive."""
    import ray

    return set(ray._private.state.state.get_draining_nodes())


def read_cluster_config() -> Any:
    """What the cluster's manager has reported of its node types; None: nothing. `ray.autoscaler.sdk` can only ask for
    nodes."""
    import ray

    return ray._private.state.state.get_cluster_config()


def read_noted_address() -> str | None:
    """The address that `ray start` has noted on this machine. `ray.init(address="auto")` would also take up the private
    cluster of any other process here, and would wait 11 minutes for an address that does not answer."""
    from ray._private.utils import read_ray_address

    return read_ray_address()


def use_token_if_there_is_one() -> None:
    """As `ray.init` does for a cluster that it finds itself, and not for one that is named."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def has_token() -> bool:
    """Whether Ray finds a token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token), used or not."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    found: bool = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    return found


def read_token() -> str:
    """The token that this process would show to a cluster; empty: none. `ray get-auth-token` prints it, but not whether
    it is used."""
    from ray._raylet import (  # type: ignore[attr-defined] # its types leave out most of what is compiled
        AuthenticationMode,
        AuthenticationTokenLoader,
        get_authentication_mode,
    )

    loader = AuthenticationTokenLoader.instance()
    if get_authentication_mode() != AuthenticationMode.TOKEN or not loader.has_token(ignore_auth_mode=True):
        return ""
    token: str = loader.get_raw_token()
    return token


def is_worker_process(pid: int) -> bool:
    """Whether a process of this machine is one of Ray's workers, by its title: Ray's state API asks the cluster, which
    may be slow where something hangs.

    Raises:
        OSError: there is no such process.
    """
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")


class _Replaced:
    def __init__(self, of_ray: Any) -> None:
        self.of_ray = of_ray

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of_ray, name)


def make_dataset(frame: pd.DataFrame) -> Any:
    """As `ray.data.from_pandas`, which has a task of its own look at the rows: where the workers of folds hold every
    CPU it would wait for ever."""
    from ray.data.read_api import from_blocks
    from ray.data.util.data_batch_conversion import _cast_ndarray_columns_to_tensor_extension

    return from_blocks([_cast_ndarray_columns_to_tensor_extension(frame.copy())])


@contextmanager
def train_functions_replaced(own: Any) -> Iterator[Any]:
    """Within it `ray.train.report`, `get_checkpoint` and `get_dataset_shard` of this worker are methods of `own`; all
    else is as it was. Yields what has Ray's own three. In public a dataset shard can only come from the TorchTrainer,
    and a checkpoint to go on from only from a run of Ray Train's own that has failed."""
    from ray.train.v2._internal.execution.train_fn_utils import get_train_fn_utils, set_train_fn_utils

    known = get_train_fn_utils()
    replaced = _Replaced(known)
    vars(replaced).update({name: getattr(own, name) for name in ("report", "get_checkpoint", "get_dataset_shard")})
    set_train_fn_utils(replaced)
    try:
        yield known
    finally:
        set_train_fn_utils(known)
