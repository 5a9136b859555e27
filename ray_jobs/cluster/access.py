"""Who may talk to a Ray cluster: its address, its token, and the names under which a run is known there."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path

from ray_jobs.cluster.ray_private import LIST_NODES, SESSION_PATH, has_token, read_token
from ray_jobs.errors import ClusterError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_uri

CONNECT_TIMEOUT_S = 5.0
NAMESPACE = "kfold"


def answers(address: str) -> bool:
    """Whether somebody listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


def refuse_wrong_token(address: str) -> None:
    """Ray itself would try for 20 s and then not say why.

    Raises:
        ClusterError: the cluster asks for a token that this process does not have.
    """
    token = read_token()
    if ask_without_ray(address, token) == "UNAUTHENTICATED":
        raise ClusterError(
            f"the Ray cluster at {address} asks for {'another' if token else 'its'} token: export RAY_AUTH_MODE=token "
            "and copy ~/.ray/auth_token from its head node (or export RAY_AUTH_TOKEN)"
        )


def ask_without_ray(address: str, token: str = "") -> str:
    """The gRPC status of a harmless question to a cluster. Asking without a token is the only way to learn whether it
    has authentication: one that has none lets in whoever sends a token, too."""
    import grpc

    metadata = [("authorization", f"Bearer {token}")] if token else None
    # As Ray itself: no proxy that is meant for the web.
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(LIST_NODES)
        try:
            ask(b"", timeout=CONNECT_TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def prepare_home() -> None:
    """Libraries end where a process has no home folder at all, and bear one that is not there, as daemons' users have
    it."""
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/nonexistent"


def prepare_token() -> None:
    """Ray writes a new token into ~/.ray so that every user of the machine may read it; the folder is closed to them.
    Where there is none to write to (no HOME, or a read-only one) the cluster gets a token that only this job's
    processes know."""
    folder = Path(os.path.expanduser("~"), ".ray")
    with suppress(OSError):  # a folder of another owner, or a read-only one: whoever made it has decided
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
    if not has_token() and not ("HOME" in os.environ and os.access(folder, os.W_OK)):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def refuse_temporary_folder() -> None:
    """Ray itself would leave a half-made session there.

    Raises:
        ClusterError: Ray's sockets cannot lie there.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    if name is None:
        return
    longest = (107 if sys.platform == "linux" else 103) - len(SESSION_PATH) - len(str(os.getpid()))
    folder = os.path.abspath(os.environ[name])
    if not folder.isascii() or len(folder) > longest:
        raise ClusterError(
            f"{name}={folder} cannot hold Ray's sockets: expected at most {longest} characters, all of them ASCII. "
            "Name another folder for Ray alone: export RAY_TMPDIR=/tmp"
        )


def actor_name(folder: RunFolder) -> str:
    """Name of the run's coordination actor: the run's name, and a mark of its folder so that two users' runs differ."""
    place = find_uri(folder) or str(folder.run_root)
    mark = hashlib.sha256(place.encode()).hexdigest()[:6]
    return f"{folder.run_root.name}-coordinator-{mark}"
