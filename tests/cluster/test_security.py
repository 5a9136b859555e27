"""Who may talk to a cluster, what a driver says of one that lets everybody in, and where secrets do not appear."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from support.processes import REPOSITORY, clean_environment

# What would run code, read objects or stop something, in each of the services that Ray's processes offer to each other.
METHODS = (
    "ray.rpc.ActorInfoGcsService/RegisterActor", "ray.rpc.InternalKVGcsService/InternalKVPut",
    "ray.rpc.JobInfoGcsService/AddJob", "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.autoscaler.AutoscalerStateService/DrainNode", "ray.rpc.NodeManagerService/RequestWorkerLease",
    "ray.rpc.NodeManagerService/ShutdownRaylet", "ray.rpc.ObjectManagerService/Pull",
    "ray.rpc.ObjectManagerService/Push",
    "ray.rpc.CoreWorkerService/PushTask", "ray.rpc.CoreWorkerService/KillActor",
    "ray.rpc.CoreWorkerService/GetObjectStatus",
    "ray.rpc.ReporterService/GetTraceback", "ray.rpc.LogService/StreamLog",
    "ray.rpc.events.EventAggregatorService/AddEvents",
)  # fmt: skip
HOLD = """
import sys
from ray_jobs.cluster.start import RayStart, connect
with connect(RayStart("held", dashboard=True)) as cluster:
    import ray
    print(cluster.asks_for_token, cluster.dashboard_url, ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def hold_driver(environment: dict[str, str]) -> Iterator[list[str]]:
    """A driver that joins or starts a cluster and stays: whether that asks for a token, its dashboard, its address."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        yield driver.stdout.readline().split()
        driver.stdin.close()  # it ends in order


@contextmanager
def start_own_cluster(**environment: str) -> Iterator[list[str]]:
    """The same, with a cluster of the driver's own."""
    own = {"RAY_ADDRESS": "local", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    with hold_driver(clean_environment(**own, **environment)) as held:
        yield held


@pytest.fixture(scope="module")
def busy_cluster(cluster):
    """The cluster with a driver, and so with workers."""
    with hold_driver(cluster.environment) as (asks_for_token, *_):
        assert asks_for_token == "True"
        yield cluster


def find_ports(root: int) -> dict[int, str]:
    """{port: address} of every TCP socket on which a process or one of its descendants listens."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {root}
    while new := {child for child, parent in parents.items() if parent in family} - family:
        family |= new
    links = [link for process in family for link in Path(f"/proc/{process}/fd").glob("*")]
    sockets = {os.readlink(link) for link in links if link.is_symlink()}
    ports = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:  # 0A: listens
                address, _, port = words[1].rpartition(":")
                raw = bytes.fromhex(address[:8])[::-1]
                ports[int(port, 16)] = "127.0.0.1" if raw == bytes(4) else ".".join(map(str, raw))
    return ports


def ask_http(url: str, token: str | None, data: bytes | None) -> int | None:
    """The HTTP status; None where nobody speaks HTTP/1."""
    request = urllib.request.Request(url, data, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, http.client.HTTPException):
        return None


def ask_grpc(address: str, token: str | None) -> dict[str, str]:
    """{method: status} of what a gRPC server answers to each of METHODS."""
    metadata = [("authorization", f"Bearer {token}")] if token else None
    answers = {}
    with grpc.insecure_channel(address) as channel:
        for method in METHODS:
            try:
                channel.unary_unary(f"/{method}")(b"", timeout=10, metadata=metadata)
                answers[method] = "OK"
            except grpc.RpcError as error:
                answers[method] = error.code().name
    return answers


@pytest.mark.parametrize("token", [None, "f" * 64], ids=["no token", "a wrong token"])
def test_every_port_of_a_cluster_but_the_metrics_refuses_a_caller_with(busy_cluster, token):
    """The metrics endpoints tell Prometheus, and everybody, numbers, addresses of nodes and names of runs."""
    refused, by_status, refusing = (401 if token is None else 403), {}, set()
    for _ in range(30):  # agents and the first workers come up seconds after the dashboard
        ports = find_ports(busy_cluster.pid)
        for port, address in ports.items():
            status = ask_http(f"http://{address}:{port}/api/jobs/", token, data=b"{}")
            by_status.setdefault(status, set()).add(port)
            answers = ask_grpc(f"{address}:{port}", token) if status is None else {}
            assert set(answers.values()) <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}, (port, answers)
            refusing |= {method for method, answer in answers.items() if answer == "UNAUTHENTICATED"}
        if refusing == set(METHODS) and len(by_status.get(refused, ())) >= 3:
            break
        time.sleep(1)
    assert refusing == set(METHODS)
    assert len(by_status.pop(refused)) >= 3  # the dashboard, its agent, the agent of runtime environments
    del by_status[None]
    assert set(by_status) == {405}  # the metrics' servers know GET alone
    named = {int(target.rpartition(":")[2]) for target in json.loads(busy_cluster.targets.read_text())[0]["targets"]}
    assert by_status[405] & named
    assert ports[int(busy_cluster.dashboard.rpartition(":")[2])] == "127.0.0.1"


@pytest.mark.parametrize("values", [{"RAY_AUTH_TOKEN": "f" * 64}, {"RAY_AUTH_MODE": "disabled"}], ids=str)
def test_a_driver_that_lacks_the_token_is_told_so_at_once(run_job, tmp_path, values):
    done = run_job("kfold", f"run.storage={tmp_path}", "data.max_rows=60", **values)
    assert done.returncode == 2
    assert re.search(r"error: the Ray cluster at \S+ asks for (its|another) token: export RAY_AUTH_MODE", done.stderr)


def test_a_cluster_of_the_drivers_own_asks_for_a_token_that_only_this_user_can_read(tmp_path):
    with start_own_cluster(HOME=str(tmp_path)) as (asks_for_token, dashboard, _):
        assert (asks_for_token, dashboard.partition(":")[0]) == ("True", "127.0.0.1")
        assert ask_http(f"http://{dashboard}/api/jobs/", None, b"{}") == 401
        assert (tmp_path / ".ray" / "auth_token").read_text()
        assert (tmp_path / ".ray").stat().st_mode & 0o077 == 0


def test_joining_a_cluster_without_authentication_is_warned_of(tmp_path):
    """Also where the driver has a token: such a cluster lets in who has none."""
    with start_own_cluster(HOME=str(tmp_path), RAY_AUTH_MODE="disabled") as (asks_for_token, _, address):
        assert asks_for_token == "False"
        done = subprocess.run(
            [sys.executable, "ray_jobs/kfold.py", f"run.storage={tmp_path}", "data.max_rows=60", "resources.cpus_per_fold=99"],
            cwd=REPOSITORY,
            env=clean_environment(RAY_ADDRESS=address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64),
            text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
    assert "no node can hold a worker" in done.stderr  # it got in
    assert "WARNING: the Ray cluster that this run joins has NO AUTHENTICATION" in done.stdout


def test_neither_token_nor_key_is_in_the_run_the_logs_or_what_the_dashboard_shows(cluster, submitted_run):
    """Both are in the environment of the head node and so of every process."""
    secrets = [cluster.environment[name] for name in ("RAY_AUTH_TOKEN", "WANDB_API_KEY")]
    texts = {path: path.read_bytes() for path in submitted_run.root.rglob("*") if path.is_file()}
    assert submitted_run.root / "wandb" / "ids.json" in texts
    logs = [path for path in cluster.folder.rglob("*") if path.is_file() and "/runtime_resources/" not in str(path)]
    assert any(path.name == "gcs_server.out" for path in logs)
    texts |= {path: path.read_bytes() for path in logs} | {"output": submitted_run.output.encode()}
    pages = ("jobs/", "v0/actors?detail=1", "v0/workers?detail=1", "v0/tasks?detail=1&limit=1000",
             "v0/runtime_envs?detail=1", "v0/jobs?detail=1", "cluster_status")  # fmt: skip
    texts |= {page: json.dumps(cluster.ask(f"/api/{page}")).encode() for page in pages}
    assert [place for place, text in texts.items() if any(secret.encode() in text for secret in secrets)] == []
