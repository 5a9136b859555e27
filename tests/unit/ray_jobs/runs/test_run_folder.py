"""Files appear whole, damage is noticed, one driver a run."""

import fcntl
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import ray_jobs.errors
from ensemble.predictions import PredictionError
from ray_jobs.errors import LostFileError, RunBusyError, RunFolderError
from ray_jobs.runs.checkpoints import open_checkpoint, write_checkpoint
from ray_jobs.runs.files import read_json, share_whole, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.requests import is_leave_requested, request_leave
from trainers.interface import DataError
from trainers.storage.whole_files import write_whole


def test_a_file_is_replaced_whole_and_nothing_temporary_stays(tmp_path):
    write_whole(tmp_path / "a" / "file", b"old")
    write_whole(tmp_path / "a" / "file", b"new")
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path / "a") == ["file"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_checkpoint_is_replaced_and_the_old_tensors_go(tmp_path):
    write_checkpoint(tmp_path, b"first", {"epoch": 1})
    write_checkpoint(tmp_path, b"second", {"epoch": 2})
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.read_tensors(), checkpoint.description) == ([b"second"], {"epoch": 2})
    assert len(list(tmp_path.iterdir())) == 2


def test_one_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    write_checkpoint(tmp_path, bytes(1000), {})
    file = next(tmp_path.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match="checksum"):
        open_checkpoint(tmp_path).check()


def test_a_fold_counts_as_complete_only_with_its_manifest_and_every_file(tmp_path):
    fold = RunFolder(tmp_path).fold(0)
    write_whole(fold.predictions("test", "best"), b"content")
    write_json(fold.status, {"state": "training"})
    assert not fold.is_complete()
    fold.write_manifest()
    assert fold.is_complete()
    fold.predictions("test", "best").write_bytes(b"short")
    assert not fold.is_complete()


def test_a_file_that_is_just_being_written_is_no_part_of_a_manifest(tmp_path):
    """The coordinator may write a fold's status while the fold writes its manifest."""
    fold = RunFolder(tmp_path).fold(0)
    write_whole(fold.predictions("test", "best"), b"content")
    passing = fold.root / ".status.json.0123456789ab.tmp"
    passing.write_bytes(b"{")
    fold.write_manifest()
    passing.unlink()
    assert fold.is_complete()
    assert list(read_json(fold.manifest)["files"]) == ["predictions/test_best.parquet"]


def test_tensors_that_could_not_be_removed_are_no_part_of_a_manifest(tmp_path, monkeypatch):
    fold = RunFolder(tmp_path).fold(0)
    write_checkpoint(fold.checkpoint("best"), b"first", {"epoch": 1})
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    write_checkpoint(fold.checkpoint("best"), b"second", {"epoch": 2})
    assert len(list(fold.checkpoint("best").glob("*.safetensors"))) == 2
    fold.write_manifest()
    listed = [Path(name).name for name in read_json(fold.manifest)["files"]]
    assert sorted(listed) == ["checkpoint.json", open_checkpoint(fold.checkpoint("best")).tensors.name]


def test_a_file_that_somebody_removes_while_the_manifest_is_made_is_missed(tmp_path, monkeypatch):
    fold = RunFolder(tmp_path).fold(0)
    saved = fold.predictions("test", "best")
    write_whole(saved, b"content")
    monkeypatch.setattr(fold, "list_checkpoints", lambda: saved.unlink() or {})
    with pytest.raises(LostFileError, match="somebody has removed"):
        fold.write_manifest(needed=[saved])
    assert not fold.manifest.exists()


def test_only_the_attempt_that_is_asked_to_leave_leaves_and_the_request_is_no_part_of_the_fold(tmp_path):
    fold = RunFolder(tmp_path).fold(0)
    assert not is_leave_requested(fold, 1)
    request_leave(fold, 2)
    assert [is_leave_requested(fold, attempt) for attempt in (1, 2, 3)] == [False, True, False]
    fold.write_manifest()  # it was done before it heard
    fold.leave_request.unlink()
    assert fold.is_complete()
    assert not fold.find_damage()


def test_damaged_json_is_an_error_unless_a_default_is_given(tmp_path):
    (tmp_path / "torn.json").write_text('{"a": ')
    assert read_json(tmp_path / "torn.json", default=None) is None
    with pytest.raises(RunFolderError, match=r"torn.json is missing or damaged"):
        read_json(tmp_path / "torn.json")


def test_a_second_driver_is_refused_while_the_first_lives_and_not_after_it_was_killed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    code = (
        "import sys, time\nfrom ray_jobs.runs.folder import RunFolder\nwith "
        f"RunFolder({str(folder.root)!r}).lock():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        assert folder.is_locked()
        with pytest.raises(RunBusyError, match=f"process {first.pid}"), folder.lock():
            pass
        first.send_signal(signal.SIGKILL)
        first.wait()
    with folder.lock():
        pass
    assert not folder.is_locked()


@pytest.mark.parametrize(
    "error",
    [DataError("x"), PredictionError("x")]
    + [kind("x") for kind in vars(ray_jobs.errors).values() if isinstance(kind, type) and issubclass(kind, Exception)],
)
def test_every_exception_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == "x"


def test_a_file_of_the_cache_is_shared_without_a_copy_and_a_damaged_one_is_removed(tmp_path):
    source, sha256 = tmp_path / "cache" / "weights", hashlib.sha256(b"weights").hexdigest()
    write_whole(source, b"weights")
    for name in ("run1", "run2"):
        (tmp_path / name).mkdir()
        share_whole(source, tmp_path / name / "shared", sha256)
        share_whole(source, tmp_path / name / "shared", sha256)  # another fold of the same run
        assert [path.name for path in (tmp_path / name).iterdir()] == ["shared"]
    assert (tmp_path / "run2" / "shared").samefile(source)
    write_whole(source, b"Weights")
    with pytest.raises(RunFolderError, match=r"weights was damaged and is removed; the same command makes it again"):
        share_whole(source, tmp_path / "run3", sha256)
    assert not source.exists()


def test_where_files_cannot_be_linked_they_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    write_whole(tmp_path / "weights", b"weights")
    monkeypatch.setattr(os, "link", refuse)
    share_whole(tmp_path / "weights", tmp_path / "shared", hashlib.sha256(b"weights").hexdigest())
    assert (tmp_path / "shared").read_bytes() == b"weights"


def test_sizes_are_measured(tmp_path):
    write_whole(tmp_path / "a", bytes(np.zeros(10, np.uint8)))
    assert RunFolder(tmp_path).measure_bytes() == 10


def test_a_reader_that_looks_for_a_driver_in_this_instant_is_no_driver(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        pass
    with folder.driver_lock.open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        timer = threading.Timer(0.1, fcntl.flock, (reader, fcntl.LOCK_UN))
        timer.start()
        with folder.lock():
            assert folder.is_locked()
        timer.join()
