"""Storage that is full, read-only or away: writers wait, double nothing, write nowhere else, and give up with one
message."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from ray.train import WorkerGroupError
from support.private_storage import private_storage
from support.processes import REPOSITORY

from ray_jobs.driver.coordinator import Coordination
from ray_jobs.driver.failures import Cause, explain_failure
from ray_jobs.errors import RunFolderError, StorageError
from ray_jobs.runs.checkpoints import open_checkpoint, write_checkpoint
from ray_jobs.runs.files import write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.events import FoldCompleted, FoldLaunched, FoldStarted
from ray_jobs.runs.json_files.status import FoldState, read_status
from ray_jobs.runs.outages import Storage, StorageProbe
from ray_jobs.runs.record import read_lines
from trainers.storage.whole_files import write_whole


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    write_json(folder.config, {})
    return folder


@contextlib.contextmanager
def away(folder):
    """The run is nowhere; putting it back fails if somebody has begun another in its context."""
    elsewhere = folder.root.with_name("elsewhere")
    folder.root.rename(elsewhere)
    yield
    elsewhere.rename(folder.root)


# Every write of a fold while its disk is full, and again while it is read-only; both end by themselves after 0.4 s.
FOLD = """
import logging, subprocess, sys, threading, time
from pathlib import Path
import numpy as np, torch
from ensemble.kinds import load_kind
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.files import write_json
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.worker.context import RayFoldContext
from ray_jobs.worker.watchdog import Watchdog
from trainers.predictions import Predictions

logging.basicConfig(level=logging.INFO, format="%(message)s")
disk = Path(sys.argv[1])
folder = RunFolder(disk / "run")
write_json(folder.config, {})
folder.fold(0).root.mkdir(parents=True)
context = RayFoldContext(folder, 0, 1, rank=0, world_size=1, device="cpu", num_threads=1, kind=load_kind("number"),
                     tracking=TrackingConfig(log_batch_metrics=True),
                     checkpoint=CheckpointConfig(storage_patience_s=30),
                     watchdog=Watchdog(folder, 0, 1, 0, None))
context.recording.journal = FoldJournal(folder, 0, log_batches=True, storage=context.storage)
tensors = {"weight": torch.arange(30_000.0)}
numbers = np.arange(20_000.0)
predictions = Predictions(np.arange(20_000).astype(str), numbers, numbers, numbers)
steps = iter(range(1_000))

def log_many():  # more than the rest of the record's last block takes
    for step in range(100):
        context.log(next(steps), {"train/loss_step": 1 / 3})

def fill():
    with (disk / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

def free():
    (disk / "filling").unlink()

def protect():
    subprocess.run(["mount", "--bind", disk, disk], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)

def release():
    subprocess.run(["umount", "--lazy", disk], check=True)

for begin, end in ((fill, free), (protect, release)):
    for do in (
        log_many,
        lambda: context.save_checkpoint("best", tensors, {"epoch": 1}),
        lambda: context.share_tensors("frozen", {"weight": torch.ones(30_000)}),
        lambda: context.save_predictions("best", "test", predictions.ids, [predictions]),
        lambda: context.note_bad_row("test", "7", "broken", "mean colour"),
        context.files.write_manifest,
    )[: None if end is free else 4]:
        if do.__name__ == "write_manifest":
            do = lambda: context.retry_while_unavailable("the fold's manifest", context.files.write_manifest)
        tensors = {name: tensor + 1 for name, tensor in tensors.items()}
        if end is release and (shared := list(folder.root.glob("frozen*"))):
            shared[0].unlink()
        begin()
        threading.Timer(0.4, end).start()
        began = time.monotonic()
        do()
        print(f"waited {time.monotonic() - began:.1f}", flush=True)
        time.sleep(max(0, began + 0.5 - time.monotonic()))
context.finish()
"""


def test_every_write_of_a_fold_waits_for_a_disk_that_is_full_or_read_only(tmp_path):
    with private_storage(tmp_path / "disk", "4m") as storage:
        (tmp_path / "fold.py").write_text(FOLD)
        output = tmp_path / "output"
        script = storage.start(
            output, "env", f"PYTHONPATH={REPOSITORY}", sys.executable, str(tmp_path / "fold.py"), str(storage.path)
        )
        assert storage.wait(script, 120) == 0, output.read_text()
        said = output.read_text()
        folder = RunFolder(storage.inside / "run")
        waited = [float(line.split()[1]) for line in said.splitlines() if line.startswith("waited ")]
        assert len(waited) == 10
        # A line goes into a file that is open already: no read-only mount stops it.
        assert all(0.3 < seconds < 5 for number, seconds in enumerate(waited) if number != 6), waited
        for what in (
            "a line of the metric record",
            "checkpoint best",
            "the shared frozen",
            "the test predictions of best",
        ):
            assert f"{what} cannot be done: [Errno 28]" in said
            assert f"{what} done" in said
        assert "checkpoint best cannot be done: [Errno 30] Read-only file system" in said
        assert said.count("cannot be done") == said.count("works again after") == 9
        rows = read_lines(folder.fold_record(0))
        assert [row["step"] for row in rows] == [row["global_step"] for row in rows] == list(range(200))
        (batches,) = folder.fold_csv(0).glob("batch_metrics_*.csv")
        assert len(batches.read_text().splitlines()) == 201  # the lines of a full disk came later
        assert len(read_lines(folder.fold(0).bad_rows(0))) == 1
        assert open_checkpoint(folder.fold(0).checkpoint("best")).description == {"epoch": 1}
        assert len(list(folder.fold(0).checkpoint("best").iterdir())) == 2
        assert folder.fold(0).find_damage() == []
        assert not list(folder.root.rglob("*.tmp"))


def test_storage_that_is_away_is_waited_for_and_no_second_run_is_begun(folder, caplog):
    storage, path = Storage(folder, 30.0), folder.fold(0).predictions("test", "best")
    with away(folder):
        writer = threading.Thread(
            target=lambda: storage.retry_while_unavailable("a file", lambda: write_whole(path, b"content")), daemon=True
        )
        writer.start()
        time.sleep(0.5)
    writer.join(10)
    assert path.read_bytes() == b"content"
    assert [line.levelno for line in caplog.records] == [logging.WARNING] * 2
    assert "the run's folder is gone (unmounted or moved?)" in caplog.records[0].message
    assert "a file done" in caplog.records[1].message


def test_what_was_read_or_written_while_the_storage_went_away_does_not_count(folder):
    """It may have been read from, or written into, the empty folder below a mount point."""

    def write():
        folder.root.rename(folder.root.with_name("elsewhere"))
        write_whole(folder.root / "file", b"content")

    with pytest.raises(StorageError, match="the run's folder is gone"):
        Storage(folder, 0.0).retry_while_unavailable("a file", write)


def test_a_file_that_is_missing_while_the_run_is_there_is_no_outage(folder):
    began = time.monotonic()
    with pytest.raises(RunFolderError, match="is missing or damaged"):
        Storage(folder, 30.0).retry_while_unavailable(
            "reading", lambda: open_checkpoint(folder.fold(0).checkpoint("best"))
        )
    assert time.monotonic() - began < 1


def test_patience_ends_once_with_a_message_that_says_what_to_do(folder):
    storage, tries = Storage(folder, 0.4), []

    def fail():
        tries.append(time.monotonic())
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError) as ended:
        storage.retry_while_unavailable("checkpoint best", fail)
    assert 0.4 <= tries[-1] - tries[0] < 2
    assert len(tries) > 2
    num_tries, began = len(tries), time.monotonic()
    with pytest.raises(StorageError):  # the same outage is not waited for again
        storage.retry_while_unavailable("a line of the metric record", fail, by_name=False)
    assert len(tries) == num_tries + 1
    assert time.monotonic() - began < 0.2
    failure = explain_failure(WorkerGroupError("failed", {0: pickle.loads(pickle.dumps(ended.value))}))
    assert failure.cause == Cause.ERROR
    assert not failure.may_be_retried(1)
    assert re.fullmatch(
        r"checkpoint best could not be done for \d\.\d s: \[Errno 28\] No space left on device\. Free disk "
        r"space or bring the "
        "storage back; the same command continues",
        failure.message,
    )


def test_an_error_that_is_not_the_storages_is_not_tried_again(folder):
    for error in (ValueError("a bug"), IsADirectoryError(21, "Is a directory")):
        with pytest.raises(type(error)):
            Storage(folder, 30.0).retry_while_unavailable("a file", lambda error=error: (_ for _ in ()).throw(error))
        if isinstance(error, OSError):
            with pytest.raises(IsADirectoryError):
                Storage(folder, 0.0).explain(error)


def test_a_run_that_its_storage_ended_says_so(folder):
    storage = Storage(folder, 0.0)
    said = storage.explain(OSError(28, "No space left on device"))
    assert "No space left on device. Free disk space" in said
    assert "the same command continues the run" in said
    with away(folder):
        assert "the run's folder is gone" in storage.explain(RunFolderError("config.json is missing"))
    assert storage.explain(RunFolderError("config.json is missing")) == "error: config.json is missing"


def test_the_driver_says_once_that_its_storage_is_away_and_once_that_it_is_back(folder):
    said = []
    probe = StorageProbe(folder, said.append)

    def look():
        probe.last = 0.0
        probe.look()

    look()
    with away(folder):
        look()
        look()
    look()
    look()
    assert [line.split(" (")[0] for line in said] == [
        "the run's storage takes no files",
        "the run's storage works again",
    ]
    assert os.listdir(folder.root) == ["config.json"]


def test_a_disk_on_which_only_small_files_fit_is_told(folder, monkeypatch):
    write_checkpoint(folder.of_member("wide").fold(1).checkpoint("resume_0"), bytes(3_000_000), {})
    said = []
    for free in (3_500_000, 2_400_000):
        monkeypatch.setattr(
            "ray_jobs.runs.outages.shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free)
        )
        StorageProbe(folder, said.append).look()
    (line,) = said
    assert "2 MB are free and a checkpoint takes 3 MB" in line


def test_the_coordinator_keeps_what_the_storage_does_not_take_and_writes_it_in_order_later(folder, caplog):
    state = Coordination(folder, 1)
    state.apply(FoldLaunched(0, 1, 1, 1))
    with away(folder):
        state.apply(FoldStarted(0, 1))
        folder_of_fold = folder.root.with_name("elsewhere") / "folds" / "0"
        assert '"waiting"' in (folder_of_fold / "status.json").read_text()
        state.apply(FoldCompleted(0, 1))
    state.flush()
    folder.fold(0).write_manifest()
    assert read_status(folder, 0).state == FoldState.COMPLETED
    assert [row["event"] for row in read_lines(folder.events)] == ["FoldLaunched", "FoldStarted", "FoldCompleted"]
    names = [name for row in read_lines(folder.ensemble_record) for name in row if name.startswith("ensemble/")]
    assert names.index("ensemble/fold_0_start") < names.index("ensemble/fold_0_completed")
    assert len(names) == len(set(names))
    assert len(caplog.records) == 1
