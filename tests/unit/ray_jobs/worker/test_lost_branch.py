"""What a killed attempt has saved after its last resume point: the next one goes on as if it had not been."""

from __future__ import annotations

import threading

import pytest
import torch
from support.object_server import BUCKET

from ensemble.kinds import load_kind
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.runs.checkpoints import open_checkpoint
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.no_mirror import NO_MIRROR
from ray_jobs.tracking.journal import FoldJournal
from ray_jobs.worker.context import RayFoldContext
from ray_jobs.worker.watchdog import Watchdog
from trainers.interface import ResumePoint


@pytest.fixture(params=["a folder", "objects"])
def begin(request, tmp_path, monkeypatch):
    """A function that begins an attempt, on object storage on a machine of its own."""
    uri = None
    if request.param == "objects":
        for name, value in request.getfixturevalue("bucket_server").environment.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{BUCKET}/{tmp_path.name}/run"

    def begin(attempt):
        folder = RunFolder(tmp_path / (f"machine{attempt}/run" if uri else "run"))
        folder.root.mkdir(parents=True, exist_ok=True)
        mirror = NO_MIRROR if uri is None else FoldMirror(folder, uri, 0, attempt)
        mirror.bring()
        context = RayFoldContext(
            folder, 0, attempt, rank=0, world_size=1, device="cpu", num_threads=1, kind=load_kind("number"),
            tracking=TrackingConfig(), checkpoint=CheckpointConfig(min_interval_s=0),
            watchdog=Watchdog(folder, 0, attempt, 0, None), mirror=mirror,
        )  # fmt: skip
        context._report_to_train = lambda metrics: None
        context.point = context._find_point()
        keep = 0 if context.point is None else context.point.description["record_lines"]
        context.recording.journal = FoldJournal(folder, 0, keep=keep)
        mirror.begin_record()
        return context

    return begin


def save(context, name, value):
    context.save_checkpoint(name, {"weight": torch.tensor(float(value))}, {"epoch": value})


def save_point(context, step):
    context.log(step, {"loss": step})
    context.save_resume_point(ResumePoint({"weight": torch.tensor(0.0)}, {}, {"step": step}), step)


def list_tensors(context):
    return len(list(context.files.checkpoint("best").glob("*.safetensors")))


def test_best_is_what_it_was_at_the_point_and_not_of_the_lost_branch(begin):
    first = begin(1)
    for step in (1, 2):
        save(first, "best", step)
        save_point(first, step)
    first.points.wait()
    for step in (3, 4):  # no point any more; the objects get them as with the next one
        save(first, "best", step)
        first.mirror.push()
    save(first, "another", 4)
    assert list_tensors(first) == 3  # of each point, and the last
    first.mirror.push()
    second = begin(2)
    assert second.load_resume_point().facts == {"step": 2}
    assert float(second.load_checkpoint("best")["weight"]) == 2.0
    assert open_checkpoint(second.files.checkpoint("best")).description == {"epoch": 2}
    assert not second.files.checkpoint("another").exists()
    second.finish()
    assert list_tensors(second) == 1
    assert second.files.is_complete()
    if second.mirror.uri:
        assert len([name for name in second.mirror.bucket.list() if name.endswith(".safetensors")]) == 1


def test_a_best_is_kept_whose_point_is_still_being_written(begin):
    first, is_free = begin(1), threading.Event()
    first.points.check = lambda: is_free.wait(20) and None
    save(first, "best", 1)
    save_point(first, 1)
    for step in (2, 3):
        save(first, "best", step)
    is_free.set()
    first.points.wait()
    second = begin(2)
    assert float(second.load_checkpoint("best")["weight"]) == 1.0


def test_a_trainer_that_saves_its_best_at_its_end_goes_on_from_a_point_before_it(begin):
    first = begin(1)
    for step in (1, 2):
        first.report_epoch(step - 1, 5, step, {"score": 1.0 / step})
        save_point(first, step)
    first.points.wait()
    first.mirror.push()
    second = begin(2)
    assert second.point.description["best"] == [0.5, 1, 2]
    assert second.load_resume_point().facts == {"step": 2}


def test_a_fold_begins_anew_where_the_best_of_its_point_is_damaged(begin, caplog):
    first = begin(1)
    save(first, "best", 1)
    save_point(first, 1)
    first.points.wait()
    (tensors,) = first.files.checkpoint("best").glob("*.safetensors")
    tensors.write_bytes(b"damaged")
    if first.mirror.uri:
        first.mirror.push()
    assert begin(2).load_resume_point() is None
    assert "starts over" in caplog.text
