"""A cluster of two machines on one: each has an address and a view of the folders of its own (Linux namespaces), and a
bridge joins them with the machine that the user sits at. Jobs are submitted from there, with the token."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.broken_pictures import break_on_decoding
from support.processes import RAY, REPOSITORY, clean_environment, start_node

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines
from ray_jobs.tracking.wandb_runs import list_wandb_runs

pytestmark = pytest.mark.slow
SMALL = ("data.max_rows=120", "checkpoint.every_steps=2")


class Machines:
    """A head node and a node that does not see the folder `hidden`, each of 2 CPUs.

    Args:
        root: everything of the cluster goes below it; short, since sockets do.
    """

    def __init__(self, root: Path) -> None:
        number = os.getpid() % 250 + 1
        self.root, self.hidden, self.bridge = root, root / "hidden", f"kf{number}"
        self.user, self.head, self.other = (f"10.211.{number}.{last}" for last in (1, 2, 3))
        self.dashboard, self.started = f"http://{self.head}:8265", []
        self.hidden.mkdir()
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = clean_environment(HOME=str(root), PATH=path, PYTHONUNBUFFERED="1", **token)

    def start(self) -> None:
        self._connect()
        there = (f"--dashboard-host={self.head}", "--port=6379", "--dashboard-port=8265", "--include-dashboard=true")
        self._start_node(self.head, self._within(self.head), "--head", *there)
        blind = (*self._within(self.other), "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.hidden))
        self._start_node(self.other, blind, f"--address={self.head}:6379")
        for _ in range(60):
            if subprocess.run(self.job("list"), env=self.environment, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(1)
        raise TimeoutError("jobs cannot be submitted")

    def job(self, verb: str, *words: str) -> list[str]:
        """A command of Ray's job API."""
        return [RAY, "job", verb, "--address", self.dashboard, *words]

    def submit(self, name: str, *fields: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Submits the K-fold job from the user's machine."""
        command = self.job("submit", f"--submission-id={name}", "--working-dir", ".", *options)
        return self._run([*command, "--", "python", "ray_jobs/kfold.py", *fields])

    def drive(self, home: Path, *fields: str) -> subprocess.Popen[str]:
        """Runs the K-fold job as a driver on the head node, as another user of it would."""
        home.mkdir(exist_ok=True)
        command = [*self._within(self.head), sys.executable, "ray_jobs/kfold.py", *fields]
        return self._run(command, HOME=str(home), RAY_ADDRESS=f"{self.head}:6379")

    def ask(self, path: str) -> Any:
        """What the dashboard's API answers to the bearer of the token."""
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        with urllib.request.urlopen(urllib.request.Request(self.dashboard + path, headers=headers), timeout=30) as page:
            return json.load(page)

    def take_away(self) -> None:
        """Google's notice on the other machine, which spot_notice.sh hears and hands on."""
        with serve_metadata(self.user, "TRUE") as address:
            command = [*self._within(self.other), "ray_jobs/deploy/spot_notice.sh", f"{self.head}:6379"]
            nodes = self.ask("/api/v0/nodes")["data"]["result"]["result"]
            # Ray finds it out by a file of its session, and here both machines see that of the head.
            (node,) = [node["node_id"] for node in nodes if node["node_ip"] == self.other]
            environment = self.environment | {"METADATA": address, "NODE_ID": node}
            subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True, timeout=60)

    def end(self) -> None:
        for node in reversed(self.started):
            node.terminate()
        for node in self.started:
            node.wait()
        for name in (self.head, self.other):
            subprocess.run(["ip", "netns", "delete", self._namespace(name)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)

    def _run(self, command: list[str], **environment: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=REPOSITORY, env=self.environment | environment, **pipes)

    def _start_node(self, address: str, within: tuple[str, ...], *words: str) -> None:
        """A folder for each: Ray unpacks a job's files anew on each node, and removes what lies there."""
        log, folder = self.root / f"{address}.log", f"--temp-dir={self.root}/{address.rpartition('.')[2]}"
        words = (f"--node-ip-address={address}", folder, *words)
        self.started.append(start_node(log, self.environment, *words, within=within))

    def _namespace(self, address: str) -> str:
        return f"{self.bridge}_{address.rpartition('.')[2]}"

    def _within(self, address: str) -> tuple[str, ...]:
        """What a command on one of the machines begins with."""
        return ("ip", "netns", "exec", self._namespace(address))

    def _connect(self) -> None:
        """Raises CalledProcessError where this is not allowed."""
        commands = [f"link add {self.bridge} type bridge", f"addr add {self.user}/24 dev {self.bridge}"]
        commands += [f"link set {self.bridge} up"]
        for address in (self.head, self.other):
            name, cable = self._namespace(address), f"v{self._namespace(address)}"
            commands += [f"netns add {name}", f"link add {cable} type veth peer name eth0 netns {name}"]
            commands += [f"link set {cable} master {self.bridge} up", f"-n {name} addr add {address}/24 dev eth0"]
            commands += [f"-n {name} link set eth0 up", f"-n {name} link set lo up"]
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def serve_metadata(host: str, value: str):
    """A server that answers as Google's metadata server does."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.startswith("/computeMetadata/v1/instance/preempted?wait_for_change=true")
            self.send_response(200 if known and self.headers["Metadata-Flavor"] == "Google" else 403)
            self.end_headers()
            self.wfile.write(value.encode())

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.HTTPServer((host, 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{host}:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def machines():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two machines on one take root and iproute2's `ip`")
    root = Path(tempfile.mkdtemp(prefix="two_", dir="/tmp"))
    machines = Machines(root)
    try:
        try:
            machines.start()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine allows no network namespaces: {' '.join(error.cmd)}: {error.stderr}")
        yield machines
    finally:
        machines.end()
        shutil.rmtree(root, ignore_errors=True)


def find_status(machines: Machines, name: str) -> str:
    return machines.ask(f"/api/jobs/{name}")["status"]


def test_folders_that_not_every_machine_sees_are_refused_before_launch(machines, small_frame, write_data):
    job = machines.submit("blind", f"run.storage={machines.hidden}", "run.name=blind", *SMALL)
    output, _ = job.communicate(timeout=120)
    assert (
        f"{machines.hidden}/blind is not shared: 1 of 2 nodes do not see what the driver writes there: {machines.other}"
        in output
    )
    assert (job.returncode, find_status(machines, "blind")) == (1, "FAILED")
    assert not [row for row in read_lines(machines.hidden / "blind" / "events.jsonl") if row["event"] == "FoldLaunched"]

    data = shutil.copytree(write_data(small_frame), machines.hidden / "data")
    driver = machines.drive(machines.root / "blind_data", "run.name=blind_data", f"data.root={data}")
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 2, output
    assert f"error: data.root={data}: no such folder on " in output


def test_a_job_with_a_fold_that_fails_has_failed(machines, small_frame, write_data):
    small_frame = small_frame.assign(date=[f"2020-01-{day + 1:02d}" for day in range(24)])
    root = shutil.copytree(write_data(small_frame), machines.root / "broken")
    break_on_decoding(root / "train_val", "v23")
    fields = ("training.epochs=1", "folds.kind=time", "tracking.wandb=disabled")
    job = machines.submit("broken", f"run.storage={machines.root}", "run.name=broken_run", f"data.root={root}", *fields)
    output, _ = job.communicate(timeout=200)
    assert "fold 2 FAILED: rank 0: train_val.csv: id 'v23'" in output
    info = machines.ask("/api/jobs/broken")
    assert (info["status"], info["driver_exit_code"], job.returncode) == ("FAILED", 1, 1)


def test_two_users_do_not_meet_and_a_job_that_is_stopped_goes_on_and_leaves_a_machine_that_is_taken_away(machines):
    """One user submits a job from another machine, the other drives a run on the head node: the same name, another
    storage and another home. What is stopped, continued and moved ends with the bits of what is left alone."""
    fields = ("run.name=same", "training.epochs=40", "tracking.wandb=offline", *SMALL)
    run, theirs = (RunFolder(machines.root / user / "runs" / "same") for user in ("one", "two"))
    patience = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}})
    mine = (f"run.storage={run.root.parent}", *fields)
    job = machines.submit("first", *mine, options=("--runtime-env-json", patience))
    told = []
    for line in job.stdout:  # as the driver prints them
        told.append(line)
        if "training (attempt 1)" in line:
            break
    assert find_status(machines, "first") == "RUNNING", "".join(told)
    other = machines.drive(machines.root / "two", f"run.storage={theirs.root.parent}", *fields)
    wait_for(lambda: all(count_lines(run.fold_record(fold)) > 6 for fold in range(3)), job)
    began = time.monotonic()
    subprocess.run(machines.job("stop", "first"), env=machines.environment, check=True, capture_output=True)
    rest, _ = job.communicate(timeout=60)
    assert time.monotonic() - began < 60  # then Ray would have killed it
    assert find_status(machines, "first") == "STOPPED"
    assert "the folds save where they are (at most 55 s" in rest
    steps = {fold: read_steps(run, fold)[-1] for fold in range(3)}

    output, _ = other.communicate(timeout=250)  # from here on there is room on both machines
    assert other.returncode == 0, output
    machines.submit("second", *mine, options=("--no-wait",)).communicate(timeout=60)
    job = machines._run(machines.job("logs", "--follow", "second"))
    wait_for(lambda: all(read_steps(run, fold)[-1] > steps[fold] + 4 for fold in range(3)), job)
    machines.take_away()
    rest, _ = job.communicate(timeout=250)
    assert "its node is being taken away" in rest, rest
    assert "submission: " in rest
    assert find_status(machines, "second") == "SUCCEEDED", rest
    starts = [row for row in read_lines(run.events) if row["event"] == "FoldStarted" and row["attempt"] == 2]
    assert {row["fold"]: row["step"] for row in starts} == steps  # what was stopped had saved its last step

    ids = [{one.id for one in list_wandb_runs(folder, folder.read_config())} for folder in (run, theirs)]
    assert ids[0]
    assert not ids[0] & ids[1]
    submissions = [(folder.root / "submission_mean.csv").read_bytes() for folder in (run, theirs)]
    assert submissions[0] == submissions[1]
    for folder in (run, theirs):
        assert [read_steps(folder, fold) for fold in range(3)] == [list(range(1, read_steps(run, 0)[-1] + 1))] * 3
    tasks = machines.ask("/api/v0/tasks?limit=10000&detail=1")["data"]["result"]["result"]
    used = {task["node_id"] for task in tasks if "/fold " in task["name"]}
    assert len(used) == 2


def read_steps(folder: RunFolder, fold: int) -> list[int]:
    """The optimiser steps in a fold's record."""
    rows = read_lines(folder.fold_record(fold))
    return [row["global_step"] for row in rows if f"fold_{fold}/train/loss_step" in row]


def wait_for(happened: Any, process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
