"""The W&B side of a run: real client, real processes, and a server that fails."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from support.publishing import fill, find_cores, sync

from ray_jobs.config.run import to_dict
from ray_jobs.runs.files import write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import find_place, note_put, note_uri
from ray_jobs.runs.record import MetricRecord, read_lines
from ray_jobs.tracking.wandb_files import find_wandb_files, read_wandb_file, repair_wandb_files
from ray_jobs.tracking.wandb_runs import list_wandb_runs
from ray_jobs.tracking.wandb_sink import PUBLISHER, PublisherExit, WandbSink


def publish(folder, config, timeout_s=60.0, **options):
    """Publishes a run to its end; returns whether all has arrived, and what was said."""
    said = []
    sink = WandbSink(folder, config, said.append, **options)
    sink.start()
    return sink.finish(timeout_s), "\n".join(said)


def wandb_sync(folder):
    """W&B's own command on the offline files."""
    files = sorted(map(str, folder.wandb.glob("offline-run-*")))
    command = [sys.executable, "-m", "wandb", "sync", *files]
    return subprocess.run(command, cwd=folder.root, text=True, capture_output=True, timeout=120, check=False)


def stored(server, folder, config):
    """{key: the server's run}."""
    return {run.key: server.runs[run.id] for run in list_wandb_runs(folder, config) if run.id in server.runs}


def test_runs_arrive_with_names_groups_config_tables_pictures_and_every_row(server, make_run):
    folder, config = make_run(120, tags=("night",), entity="tester")
    record = MetricRecord(folder.metrics / "submission.jsonl")
    table = {"columns": ["fold", "image"], "data": [[0, 0.5], [1, None]]}
    folder.figures.mkdir()
    Image.new("RGB", (8, 8)).save(folder.figures / "loss.png")
    record.log(0, {"ensemble/method": "mean", "ensemble/model_weights": table, "ensemble/final_pred_std": float("nan")})
    record.log(1, {"ensemble/figures/loss": {"image": "figures/loss.png"}})
    record.close()
    is_whole, said = publish(folder, config)
    assert is_whole, said
    assert "W&B holds all 242 rows" in said
    runs = stored(server, folder, config)
    assert set(runs) == {"fold_0", "fold_1", "submission"}
    for fold in (0, 1):
        run = runs[f"fold_{fold}"]
        assert (run.display_name, run.group, run.job_type) == (f"exp_fold{fold}", "exp", f"fold_{fold}")
        assert run.project == "challenge_CSC_43M04_EP"
        assert run.tags == ["clip_multimodal_small", "night"]
        assert run.config["fold"] == fold
        assert run.config["optimizer"]["lr"] == config.trainer.optimizer.lr
        written = read_lines(folder.fold_record(fold))
        for row, sent in zip(written, run.rows(), strict=True):
            assert sent["_step"] == row["step"]
            assert sent["_timestamp"] == pytest.approx(row["time"])
            assert {k: sent[k] for k in row if k not in ("step", "time")} == {
                k: v for k, v in row.items() if k not in ("step", "time")
            }
    submission = runs["submission"]
    assert (submission.display_name, submission.job_type) == ("exp_submission", "ensemble_submission")
    assert submission.rows()[0]["ensemble/model_weights"]["_type"] == "table-file"
    assert submission.rows()[0]["ensemble/final_pred_std"] == "NaN"
    assert submission.rows()[1]["ensemble/figures/loss"]["_type"] == "image-file"
    assert any("figures/loss" in name for name in submission.files)
    assert server.unknown == []


def test_of_a_run_on_object_storage_w_and_b_gets_what_has_been_put(server, make_run, tmp_path, monkeypatch):
    """What has not may be lost with this machine; another driver would write other rows, and W&B takes none back."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere, config = make_run()
    folder = RunFolder(find_place("s3://lab/runs", "exp"))
    note_uri(folder, "s3://lab/runs/exp")
    shutil.copy(elsewhere.config, folder.config)
    record = MetricRecord(folder.ensemble_record)

    def put():
        note_put(folder, {folder.ensemble_record.relative_to(folder.root).as_posix(): record.path.stat().st_size})

    record.log(0, {"ensemble/num_folds_completed": 1})
    put()
    record.log(1, {"ensemble/num_folds_completed": 2})
    is_whole, said = publish(folder, config, 8.0)
    assert not is_whole
    assert "1 of 2 rows" in said
    assert [row["_step"] for row in stored(server, folder, config)["ensemble"].rows()] == [0]
    is_whole, said = publish(folder, config, put=put)
    assert is_whole, said
    assert [row["_step"] for row in stored(server, folder, config)["ensemble"].rows()] == [0, 1]


def test_what_the_server_holds_is_not_sent_again_after_a_rollback_or_a_second_start(server, make_run):
    folder, config = make_run(50)
    assert publish(folder, config)[0]
    num_requests = len(server.requests)
    assert publish(folder, config)[0]
    assert not [what for _, what in server.requests[num_requests:] if "file_stream" in what]
    fill(folder.fold_record(0), 0, 80, keep=20)
    assert publish(folder, config)[0]
    runs = stored(server, folder, config)
    assert runs["fold_0"].steps() == list(range(80))
    assert runs["fold_1"].steps() == list(range(50))


def test_without_a_key_everything_goes_offline_and_can_be_uploaded_later(server, make_run, monkeypatch):
    folder, config = make_run(50)
    monkeypatch.delenv("WANDB_API_KEY")
    is_whole, said = publish(folder, config)
    assert not is_whole
    assert "100 rows offline" in said
    assert "wandb_sync.py" in said
    assert not server.runs
    fill(folder.fold_record(0), 0, 60, keep=50)
    publish(folder, config)
    for fold, num_rows in ((0, 60), (1, 50)):
        run = list_wandb_runs(folder, config)[fold]
        files = [read_wandb_file(path) for path in find_wandb_files(folder.wandb, run.id)]
        assert sum(file.num_rows for file in files) == num_rows  # a second start adds what is new
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    done = sync(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    again = sync(folder)
    assert again.returncode == 0
    runs = stored(server, folder, config)
    assert [run.steps() for run in runs.values()] == [list(range(60)), list(range(50))]


def test_where_there_is_no_key_the_upload_ends_after_one_look(server, make_run, monkeypatch):
    """The publisher's exit code says so, though the sink lets go of it as soon as it says nothing more."""
    folder, config = make_run(5)
    monkeypatch.delenv("WANDB_API_KEY")
    ended, run_publisher = [], WandbSink._run_publisher
    monkeypatch.setattr(WandbSink, "_run_publisher", lambda *a, **b: ended.append(run_publisher(*a, **b)) or ended[-1])
    is_whole, said = publish(folder, config, falls_back=False)
    assert not is_whole
    assert "W&B cannot be reached: there is no API key" in said
    assert ended == [PublisherExit.UNREACHABLE]


def test_offline_files_of_several_starts_upload_with_wandb_sync(server, make_run):
    folder, config = make_run(30, wandb="offline")
    _, said = publish(folder, config)
    assert "60 rows offline" in said
    assert "or `wandb sync`" in said
    for fold in (0, 1):
        fill(folder.fold_record(fold), fold, 55, keep=30)
    publish(folder, config)
    done = wandb_sync(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = stored(server, folder, config)
    assert [run.steps() for run in runs.values()] == [list(range(55))] * 2


def test_sync_repairs_torn_and_empty_files_and_says_so(server, make_run):
    folder, config = make_run(40, wandb="offline")
    publish(folder, config)
    torn, empty = (find_wandb_files(folder.wandb, run.id)[0] for run in list_wandb_runs(folder, config)[:2])
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size // 2)
    with empty.open("r+b") as file:
        file.truncate(7)
    done = sync(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of a torn record" in done.stdout
    assert "it held no record" in done.stdout
    assert not empty.exists()
    assert repair_wandb_files(folder.wandb, torn.stem.removeprefix("run-")) == []  # nothing is torn any more
    assert torn.with_name(torn.name + ".synced").exists()  # `wandb sync` would double its rows
    assert [run.steps() for run in stored(server, folder, config).values()] == [list(range(40))] * 2


@pytest.mark.parametrize("fault", ["dead", "hang", "500"])
def test_a_server_that_fails_from_the_start_costs_a_bounded_wait_and_no_row(server, make_run, fault):
    folder, config = make_run(40)
    if fault == "dead":
        server.die()
    else:
        server.fault = fault
    began = time.monotonic()
    is_whole, said = publish(folder, config, timeout_s=4)
    assert time.monotonic() - began < 8
    assert not is_whole
    assert "80 of 80 rows are not known to be uploaded; nothing is lost" in said
    server.fault = None
    if fault == "dead":
        server.start()
    assert sync(folder).returncode == 0
    assert [run.steps() for run in stored(server, folder, config).values()] == [list(range(40))] * 2


def test_a_server_that_cannot_be_reached_is_said_once_and_rows_go_offline(server, make_run):
    folder, config = make_run(40)
    server.fault = "401"
    said = []
    sink = WandbSink(folder, config, said.append)
    sink.start()
    run = list_wandb_runs(folder, config)[1]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        (files := find_wandb_files(folder.wandb, run.id)) and read_wandb_file(files[-1]).num_rows == 40
    ):
        time.sleep(0.2)
    assert files[-1].parent.name.startswith("offline-run-")
    server.fault = None
    assert sink.finish(60), said  # the end tries once more
    assert len([text for text in said if "cannot be reached" in text]) == 1
    assert [run.steps() for run in stored(server, folder, config).values()] == [list(range(40))] * 2


def test_rows_that_the_server_should_hold_but_does_not_are_sent_again(server, make_run):
    """Another account's key, a restored server: the note of what was uploaded is wrong."""
    folder, config = make_run(50)
    assert publish(folder, config)[0]
    server.runs.clear()
    for fold in (0, 1):
        fill(folder.fold_record(fold), fold, 60, keep=50)
    assert publish(folder, config)[0]
    assert [run.steps() for run in stored(server, folder, config).values()] == [list(range(60))] * 2


def test_offline_files_after_an_online_start_hold_every_row_and_the_advice_is_not_to_sync_them(
    server, make_run, monkeypatch
):
    folder, config = make_run(40)
    server.fault = "hang"
    publish(folder, config, timeout_s=1)
    monkeypatch.delenv("WANDB_API_KEY")
    for fold in (0, 1):
        fill(folder.fold_record(fold), fold, 60, keep=40)
    _, said = publish(folder, config)
    for run in list_wandb_runs(folder, config)[:2]:
        files = find_wandb_files(folder.wandb, run.id, offline_only=True)
        assert sum(read_wandb_file(path).num_rows for path in files) == 60
    has_online_files = any(
        folder.wandb.glob("run-*/*.wandb")
    )  # on a slow machine the client was ended before it made one
    assert ("`wandb sync`" in said) == (not has_online_files)


def test_wandb_sync_doubles_nothing_that_was_uploaded_meanwhile(server, make_run, monkeypatch):
    folder, config = make_run(40)
    monkeypatch.delenv("WANDB_API_KEY")
    publish(folder, config)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert publish(folder, config)[0]
    done = wandb_sync(folder)
    assert [run.steps() for run in stored(server, folder, config).values()] == [list(range(40))] * 2, done.stdout


def test_a_server_that_is_ahead_of_a_fold_that_repeats_its_steps_is_no_reason_to_wait(server, make_run):
    folder, config = make_run(60)
    assert publish(folder, config)[0]
    fill(folder.fold_record(0), 0, 30)
    began = time.monotonic()
    assert publish(folder, config)[0]
    assert time.monotonic() - began < 15
    assert stored(server, folder, config)["fold_0"].steps() == list(range(60))


@pytest.mark.parametrize("publisher", [[sys.executable, "-c", "raise SystemExit(1)"], ["/no/such/program"]])
def test_a_client_that_cannot_be_started_is_warned_of_once_and_the_end_says_what_is_missing(
    server, make_run, monkeypatch, publisher
):
    monkeypatch.setattr("ray_jobs.tracking.wandb_sink.PUBLISHER", publisher)
    folder, config = make_run(10)
    is_whole, said = publish(folder, config, timeout_s=6)
    assert not is_whole
    assert len([line for line in said.splitlines() if "training goes on" in line]) == 1
    assert "20 of 20 rows are not known to be uploaded" in said


def test_a_copy_of_a_run_gets_wandb_runs_of_its_own_and_a_moved_one_keeps_its(server, make_run):
    folder, config = make_run(10)
    assert publish(folder, config)[0]
    copy = RunFolder(folder.root.with_name("copy"))
    shutil.copytree(folder.root, copy.root, symlinks=True)
    fill(copy.fold_record(0), 0, 15, keep=10)
    assert publish(copy, config)[0]
    assert stored(server, folder, config)["fold_0"].steps() == list(range(10))
    assert stored(server, copy, config)["fold_0"].steps() == list(range(15))
    ids = [run.id for run in list_wandb_runs(copy, config)]
    moved = RunFolder(copy.root.rename(folder.root.with_name("moved")))
    assert publish(moved, config)[0]
    assert [run.id for run in list_wandb_runs(moved, config)] == ids


def test_another_project_gets_the_whole_run(server, make_run):
    folder, config = make_run(10)
    assert publish(folder, config)[0]
    other = dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, project="other"))
    write_json(folder.config, to_dict(other))
    assert publish(folder, other)[0]
    projects = {run.project: run.steps() for run in server.runs.values() if run.id.endswith("fold0")}
    assert projects == {"challenge_CSC_43M04_EP": list(range(10)), "other": list(range(10))}


def test_a_picture_that_was_drawn_anew_is_not_shown_for_the_submission_before(server, make_run):
    folder, config = make_run()
    folder.figures.mkdir(parents=True)
    path = folder.figures / "final.png"
    record = MetricRecord(folder.submission_record)
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(path)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        record.log(record.num_lines, {"ensemble/figures/final": {"image": "figures/final.png", "sha256": checksum}})
    record.close()
    assert publish(folder, config)[0]
    first, second = (row["ensemble/figures/final"] for row in stored(server, folder, config)["submission"].rows())
    assert first == "final.png was drawn anew by a later submission"
    assert second["_type"] == "image-file"


def test_disabled_starts_nothing(make_run, server):
    folder, config = make_run(10, wandb="disabled")
    assert publish(folder, config) == (False, "W&B: disabled, as tracking.wandb says")
    assert not folder.wandb.exists()


def test_a_killed_publisher_and_a_killed_wandb_core_are_replaced(server, make_run):
    folder, config = make_run(30)
    said = []
    sink = WandbSink(folder, config, said.append)
    sink.start()
    for num_rows in (60, 90):
        await_core(folder, sink)
        if num_rows == 60:
            sink.child.kill()
        else:
            for process in find_cores(folder):
                os.kill(process, signal.SIGKILL)
        fill(folder.fold_record(0), 0, num_rows, keep=num_rows - 30)
        time.sleep(2.5)
    assert sink.finish(60), said
    assert stored(server, folder, config)["fold_0"].steps() == list(range(90))


def await_core(folder, sink):
    """Waits until the publisher of now has opened a W&B run."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        child = sink.child
        for process in find_cores(folder):
            command = Path(f"/proc/{process}/cmdline")
            if child and command.exists() and f"{child.pid}".encode() in command.read_bytes():
                return
        time.sleep(0.1)
    raise AssertionError("no publisher came up")


def test_an_upload_that_an_answer_has_ended_for_good_begins_again(server, make_run, monkeypatch):
    """After one 404 W&B's client never uploads again and says nothing."""
    monkeypatch.setattr("ray_jobs.tracking.wandb_sink.PUBLISHER", [*PUBLISHER, "--check-s=3"])
    folder, config = make_run(30)
    said = []
    sink = WandbSink(folder, config, said.append)
    sink.start()
    await_core(folder, sink)
    server.fault, server.fault_on = "404", "file_stream"
    time.sleep(7)
    server.fault = None
    fill(folder.fold_record(0), 0, 60, keep=30)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(stored(server, folder, config)["fold_0"].steps()) < 60:
        time.sleep(0.5)
    assert stored(server, folder, config)["fold_0"].steps() == list(range(60))  # long before the end of the run
    assert "its upload has ended" in "".join(said)
    assert sink.finish(60)


def test_stop_on_the_web_page_is_reported_and_interrupts_nothing(server, make_run):
    folder, config = make_run(5)
    said, stopped = [], []
    sink = WandbSink(folder, config, said.append, on_stop=stopped.append)
    sink.start()
    await_core(folder, sink)
    deadline = time.monotonic() + 40
    step = 5
    while not stopped and time.monotonic() < deadline:
        for run in stored(server, folder, config).values():
            server.stop_run(run.id)
            break
        step += 5
        fill(folder.fold_record(0), 0, step, keep=step - 5)
        time.sleep(0.5)
    assert stopped
    assert set(stopped) <= {"exp_fold0", "exp_fold1"}
    assert sink.finish(60), said
    assert stored(server, folder, config)["fold_0"].steps() == list(range(step))


@pytest.mark.parametrize("is_up", [True, False])
def test_neither_the_key_nor_a_password_in_the_address_is_written_or_shown(server, make_run, monkeypatch, is_up):
    key, password = "feedc0ffee" * 4, "passw0rd-of-the-proxy"
    address = server.url if is_up else "http://127.0.0.1:9"
    monkeypatch.setenv("WANDB_BASE_URL", address.replace("://", f"://somebody:{password}@"))
    monkeypatch.setenv("WANDB_API_KEY", key)
    folder, config = make_run(20)
    is_whole, said = publish(folder, config, timeout_s=30.0 if is_up else 4.0)
    assert is_whole == is_up, said
    written = b"".join(path.read_bytes() for path in folder.root.rglob("*") if path.is_file())
    assert (folder.log / "wandb.log").exists()
    for secret in (key, password):
        assert secret not in said
        assert secret.encode() not in written
