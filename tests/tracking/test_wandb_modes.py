"""`wandb offline`, `disabled`, `init` and `login` as a user types them, and where the rows then go."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.processes import REPOSITORY

from ray_jobs.cli.command_line import parse_kfold
from ray_jobs.tracking.wandb_runs import list_wandb_runs
from ray_jobs.tracking.wandb_sink import WandbSink


@pytest.fixture
def work(server, tmp_path, monkeypatch):
    """The working directory of the job, which is not the repository."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def wandb(*words, **environment):
    subprocess.run(
        [sys.executable, "-m", "wandb", *words], check=True, capture_output=True, env=os.environ | environment
    )


def publish(folder, config, **options):
    said = []
    sink = WandbSink(folder, config, said.append, **options)
    sink.start()
    return sink.finish(60), "\n".join(said)


def sync(folder, *words):
    command = [sys.executable, str(REPOSITORY / "ray_jobs" / "wandb_sync.py"), str(folder.root), *words]
    return subprocess.run(command, text=True, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("place", ["here", "WANDB_DIR", "WANDB_CONFIG_DIR"])
def test_after_wandb_offline_no_row_leaves_until_it_is_taken_back_or_synced(
    server, work, make_run, tmp_path, monkeypatch, place
):
    folder, config = make_run(20)
    path = work / "wandb" / "settings"
    if place != "here":
        monkeypatch.setenv(place, str(tmp_path / "elsewhere"))
        (tmp_path / "elsewhere").mkdir()
        path = tmp_path / "elsewhere" / ("wandb/settings" if place == "WANDB_DIR" else "settings")
    if place == "WANDB_CONFIG_DIR":
        path.write_text("[default]\nmode = offline\n")
    else:
        wandb("offline")
    is_whole, said = publish(folder, config)
    assert not is_whole
    assert said.splitlines()[0] == f"W&B: offline, as {path} says"
    assert "40 rows offline" in said
    assert server.requests == []
    done = sync(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    path.unlink()
    assert publish(folder, config)[0]


def test_after_wandb_disabled_nothing_is_written(server, work, make_run):
    wandb("disabled")
    folder, config = make_run(10)
    assert publish(folder, config) == (False, f"W&B: disabled, as {work / 'wandb' / 'settings'} says")
    assert not folder.wandb.exists()
    wandb("enabled")
    assert publish(folder, config)[0]


def test_wandb_init_and_the_server_of_a_settings_file_say_where_the_rows_go(server, work, make_run, monkeypatch):
    monkeypatch.delenv("WANDB_BASE_URL")
    settings = work / "home" / ".config" / "wandb" / "settings"
    monkeypatch.setenv("HOME", str(work / "home"))
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[default]\nbase_url = {server.url}\n")
    wandb("init", "-p", "chosen", "-e", "tester")
    folder, config = make_run(10, **vars(parse_kfold(["tracking.wandb=online"]).config.tracking))
    is_whole, said = publish(folder, config)
    assert is_whole, said
    assert said.splitlines()[0] == "W&B: online, as tracking.wandb says"
    run = server.runs[list_wandb_runs(folder, config)[0].id]
    assert (run.project, run.entity) == ("chosen", "tester")


@pytest.mark.parametrize("text", [b"[default]\nmode = ofline\n", b"\xff\xfe"])
def test_a_broken_settings_file_is_said_and_keeps_the_rows_at_home(server, work, make_run, text):
    path = work / "wandb" / "settings"
    path.parent.mkdir()
    path.write_bytes(text)
    folder, config = make_run(10)
    is_whole, said = publish(folder, config)
    assert not is_whole
    assert said.startswith(f"W&B: offline, as {path} ")
    assert "20 rows offline" in said, (folder.log / "wandb.log").read_text()
    done = sync(folder)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert server.requests == []
    path.unlink()
    assert sync(folder).returncode == 0
