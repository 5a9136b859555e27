"""The stand-in server holds what the real client sends, faults lose nothing, and a run resumes from what it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from PIL import Image
from support.wandb_server import StandInServer

# Runs the lines that it reads. Its waiting times are those of the client divided by about ten.
CLIENT = """
import asyncio, sys
import wandb
from wandb.sdk.lib import run_stopping

run_stopping._SLEEP = lambda _: asyncio.sleep(0.2)  # between questions whether Stop was pressed; no setting for it
settings = wandb.Settings(
    console="off", silent=True, x_disable_stats=True, init_timeout=20, finish_timeout=30,
    x_transaction_log_flush_interval=1.0, x_file_stream_transmit_interval=1.0, x_file_stream_timeout_seconds=1,
    x_file_stream_retry_wait_min_seconds=0.1, x_file_stream_retry_wait_max_seconds=0.3,
    stop_fn=lambda: print("stopped", flush=True),
)
run = wandb.init(
    entity="team", project="project", id="run", name="fold 0", group="group", job_type="fold",
    config={"lr": 0.1, "model": {"depth": 2}}, tags=["a", "b"], resume="allow", settings=settings,
)

def log_rows(first, end):
    for step in range(first, end):
        run.log({"loss": step / 10}, step=step, commit=True)

print("ready", run.starting_step, flush=True)
for line in sys.stdin:
    exec(line)
run.finish()
"""


class Client:
    """A process with one wandb run; leaving the block finishes the run."""

    def __init__(self, server: StandInServer, folder: Path) -> None:
        places = {name: str(folder) for name in ("HOME", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR")}
        credentials = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env={"PATH": os.environ["PATH"]} | places | credentials,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        assert self.process.stdout
        self.starting_step = int(self.process.stdout.readline().removeprefix("ready "))
        return self

    def do(self, line: str) -> None:
        """Let the client run a line of Python."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __exit__(self, *error: object) -> None:
        if error[0]:
            self.process.kill()
        self.output, _ = self.process.communicate(timeout=30)
        assert error[0] or self.process.returncode == 0


@pytest.fixture
def server() -> Iterator[StandInServer]:
    with StandInServer() as running:
        yield running


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.02)


def file_stream_requests(server: StandInServer) -> int:
    return sum(what.endswith("file_stream") for _, what in server.requests)


def test_an_online_run_arrives_with_rows_names_config_table_and_picture(server, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    with Client(server, tmp_path) as client:
        client.do("log_rows(0, 20)")
        client.do("run.log({'t': wandb.Table(columns=['a', 'b'], data=[[1, 'x']])}, step=20, commit=True)")
        client.do("run.log({'p': wandb.Image('picture.png')}, step=21, commit=True)")
    run = server.runs["run"]
    assert run.steps() == list(range(22))
    assert [row["loss"] for row in run.rows()[:20]] == [step / 10 for step in range(20)]
    assert (run.entity, run.project, run.display_name) == ("team", "project", "fold 0")
    assert (run.group, run.job_type, run.tags) == ("group", "fold", ["a", "b"])
    assert run.config.items() >= {"lr": 0.1, "model": {"depth": 2}}.items()
    assert (run.state, run.exit_code, run.summary["loss"]) == ("finished", 0, 1.9)
    assert run.files[run.rows()[21]["p"]["path"]] == (tmp_path / "picture.png").read_bytes()
    assert json.loads(run.files[run.rows()[20]["t"]["path"]]) == {"columns": ["a", "b"], "data": [[1, "x"]]}
    (table,) = run.artifacts.values()
    assert table.committed
    assert json.loads(table.files["t.table.json"])["data"] == [[1, "x"]]
    assert server.unknown == []


def test_a_resumed_run_goes_on_at_the_next_step_and_keeps_its_rows(server, tmp_path):
    for first, end in ((0, 5), (5, 8)):
        with Client(server, tmp_path) as client:
            assert client.starting_step == first
            client.do(f"log_rows({first}, {end})")
    assert server.runs["run"].steps() == list(range(8))


def test_a_process_of_its_own_reads_row_count_and_last_step(server, tmp_path):
    with Client(server, tmp_path) as client:
        client.do("log_rows(0, 5)")
    ask = (
        "import wandb; run = wandb.Api().run('team/project/run');"
        "print(run.historyLineCount, run.lastHistoryStep, [row['_step'] for row in run.scan_history()])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", ask],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WANDB_DIR": str(tmp_path)}
        | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "5 4 [0, 1, 2, 3, 4]\n"
    assert server.unknown == []


def test_a_chunk_that_is_sent_again_is_not_doubled(server, tmp_path):
    with Client(server, tmp_path) as client:
        server.fault_on, server.fault = "file_stream", "hang"
        before = file_stream_requests(server)
        client.do("log_rows(0, 10)")
        wait_until(lambda: file_stream_requests(server) >= before + 2)
        server.fault = None  # every waiting message is stored now, though the client gave the first up
    assert server.runs["run"].steps() == list(range(10))


@pytest.mark.parametrize("fault", ["500", "429"])
def test_an_error_of_the_server_that_passes_loses_nothing(server, tmp_path, fault):
    with Client(server, tmp_path) as client:
        server.fault = fault
        before = file_stream_requests(server)
        client.do("log_rows(0, 10)")
        wait_until(lambda: file_stream_requests(server) > before)
        assert server.runs["run"].rows() == []
        server.fault = None
    assert server.runs["run"].steps() == list(range(10))
    assert server.runs["run"].state == "finished"


def test_a_server_that_dies_and_comes_back_has_every_row(server, tmp_path):
    with Client(server, tmp_path) as client:
        client.do("log_rows(0, 5)")
        wait_until(lambda: len(server.runs["run"].rows()) == 5)
        server.die()
        client.do("log_rows(5, 10)")
        time.sleep(1)  # the client meets a refused connection
        server.start()
    assert server.runs["run"].steps() == list(range(10))
    assert server.runs["run"].state == "finished"


def test_stop_on_the_web_page_reaches_the_client(server, tmp_path):
    with Client(server, tmp_path) as client:
        server.stop_run("run")
        client.do("log_rows(0, 1)")
        assert client.process.stdout.readline() == "stopped\n"


def test_an_api_key_of_another_length_is_refused(server):
    request = urllib.request.Request(f"{server.url}/graphql", b'{"query": "query Viewer { viewer { id } }"}')
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(request)
    refused.value.close()


def test_death_does_not_wait_for_hanging_requests_and_the_port_stays(server):
    server.fault = "hang"
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"{server.url}/graphql", timeout=0.2)
    url, started = server.url, time.monotonic()
    server.die()
    assert time.monotonic() - started < 1
    server.start()
    assert server.url == url
