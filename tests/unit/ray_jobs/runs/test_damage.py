"""Damage that a driver finds when it starts, and what the stages that only read do about it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support.made_run import make_run

from ray_jobs import submit
from ray_jobs.errors import RunFolderError
from ray_jobs.planning.continuation import is_plan_whole
from ray_jobs.planning.folds import FoldPlan
from ray_jobs.runs.files import read_json, write_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, last_attempt, read_status, write_status
from ray_jobs.runs.record import Record, read_lines
from ray_jobs.runs.repair import reset_damaged_folds
from trainers.storage.whole_files import write_whole


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made") / "run"
    make_run(root)
    return root


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def flip_bit(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


def mend(folder):
    said = []
    reset_damaged_folds(folder, 3, said.append)
    return said


def test_a_whole_run_is_left_as_it_is(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")}
    assert mend(folder) == []
    assert {path: path.stat().st_mtime_ns for path in folder.root.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("predictions/test_final.parquet", flip_bit),
        ("checkpoints/final/checkpoint.json", flip_bit),
        ("predictions/validation_best.parquet", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("checkpoints/best", lambda path: flip_bit(next(path.glob("*.safetensors")))),
        ("checkpoints/best", lambda path: next(path.glob("*.safetensors")).unlink()),
        ("manifest.json", flip_bit),
        ("manifest.json", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_fold_with_a_damaged_file_is_said_and_trained_again_and_the_others_are_kept(folder, name, damage):
    damage(folder.fold(1).root / name)
    (said,) = mend(folder)
    assert str(folder.fold(1).root / name) in said
    assert "fold 1 has to be trained again and gives the same bits" in said
    assert folder.completed_folds(3) == [0, 2]
    assert read_status(folder, 1).state == FoldState.WAITING
    assert mend(folder) == []


def test_shared_tensors_are_written_again_by_one_fold_alone(folder):
    path = folder.root / "frozen-0123456789ab.safetensors"
    write_whole(path, b"other content than its name says")
    (said,) = mend(folder)
    assert f"{path} is damaged: fold 0 has to be trained again" in said
    assert not path.exists()
    assert folder.completed_folds(3) == [1, 2]


@pytest.mark.parametrize(
    "damage", [lambda path: flip_bit(path, 0.3), lambda path: path.write_bytes(b'{"fold": 1, "sta')]
)
def test_a_damaged_status_is_made_anew_from_the_events_and_the_record(folder, damage):
    events = Record(folder.events)
    events.append({"time": 1.0, "event": "RunStarted", "total_samples": 6, "sizes": [[0, 4, 2], [1, 5, 3], [2, 4, 2]]})
    for attempt in (1, 2):
        fold = {"fold": 1, "attempt": attempt}
        events.append({"time": 2.0, "event": "FoldLaunched", **fold, "num_workers": 1, "num_threads": 1})
        events.append({"time": 3.0, "event": "FoldStarted", **fold, "epoch": 0, "step": 0})
    events.append({"time": 9.0, "event": "FoldCompleted", **fold})
    events.close()
    status = FoldStatus(1, FoldState.COMPLETED, 2, train_size=5, val_size=3, started=3.0, finished=9.0, num_workers=1)
    write_status(folder, status)
    damage(folder.fold(1).status)
    assert read_status(folder, 1) == FoldStatus(1, attempt=2)  # what fencing needs
    (said,) = mend(folder)
    assert str(folder.fold(1).status) in said
    made_anew = read_status(folder, 1)
    assert (made_anew.best_score, made_anew.best_epoch) != (None, None)
    learned = {name: getattr(made_anew, name) for name in ("epoch", "step", "train_loss", "val_loss", "score")}
    others = ("samples_per_second", "best_score", "best_epoch", "best_step", "pace")
    learned |= {name: getattr(made_anew, name) for name in others}
    assert replace(status, **learned) == made_anew


def test_a_torn_last_line_of_the_events_is_left_out_and_a_damaged_one_is_named(folder):
    events = Record(folder.events)
    for attempt in (1, 2):
        events.append({"time": 1.0, "event": "FoldLaunched", "fold": 0, "attempt": attempt})
    events.close()
    with folder.events.open("a") as file:
        file.write('{"time": 2.0, "event": "FoldLau')
    assert last_attempt(folder, 0) == 2
    lines = folder.events.read_bytes().splitlines(keepends=True)
    folder.events.write_bytes(lines[0].replace(b'"event"', b'"event') + lines[1])
    with pytest.raises(RunFolderError, match=r"events\.jsonl is damaged in line 1"):
        read_lines(folder.events)


def test_another_digit_in_the_config_is_noticed(folder):
    folder.write_config(folder.read_config())
    folder.config.write_text(folder.config.read_text().replace('"log_interval": 10', '"log_interval": 11'))
    with pytest.raises(RunFolderError, match=r"config\.json is missing or damaged: its checksum does not match"):
        folder.read_config()


def test_a_fold_plan_that_says_something_else_is_noticed(folder):
    plan = FoldPlan(np.array(["a", "b", "c"]), np.array([0, 1, -1]), 2, ordered=False)
    for folds, is_whole in (([0, 1, -1], True), ([0, 0, -1], False)):
        write_parquet(folder.fold_plan, pa.table({"id": ["a", "b", "c"], "fold": pa.array(folds, pa.int32())}))
        assert is_plan_whole(folder, plan) == is_whole
    folder.fold_plan.write_bytes(b"PAR1")
    assert not is_plan_whole(folder, plan)


@pytest.mark.parametrize("damage", [flip_bit, lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
def test_submit_refuses_damaged_predictions_and_names_the_command_that_repairs(folder, monkeypatch, damage):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    path = folder.fold(2).predictions("test", "best")
    damage(path)
    before = folder.submission("mean").read_bytes()
    command = read_json(folder.provenance)["command"]
    with pytest.raises(RunFolderError, match=rf"{path} is missing or damaged; `{command}` trains fold 2 again"):
        submit.main([str(folder.root)])
    assert folder.submission("mean").read_bytes() == before


def test_what_a_killed_process_left_is_removed_and_resume_points_of_unfinished_folds_stay(folder):
    folder.fold(0).manifest.unlink()
    for fold in (0, 1):
        write_whole(folder.fold(fold).checkpoint("resume_1") / "checkpoint.json", b"{}")
    write_whole(folder.metrics / ".fold_0.jsonl.0123456789ab.tmp", b"half")
    folder.remove_leftovers()
    assert not list(folder.root.rglob("*.tmp"))
    assert folder.fold(0).checkpoint("resume_1").exists()
    assert not folder.fold(1).checkpoint("resume_1").exists()
    assert folder.completed_folds(3) == [1, 2]


def test_tensors_that_no_checkpoint_names_are_not_kept(folder):
    stray = folder.fold(0).checkpoint("best") / "model-0123456789ab.safetensors"
    stray.write_bytes(b"of a kill between tensors and manifest")
    folder.fold(0).write_manifest()
    assert not stray.exists()
    assert folder.fold(0).find_damage() == []
