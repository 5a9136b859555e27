"""What is read of a run again and again is read once: events by fold, statuses, the lines of a record."""

import json
import os

import pytest

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files import events_by_fold, status
from ray_jobs.runs.json_files.events_by_fold import read_events
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, StatusReader, last_attempt, write_status


def add(folder, *rows):
    folder.root.mkdir(exist_ok=True)
    with folder.events.open("ab") as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in rows)


def launch(fold, attempt):
    return {"event": "FoldLaunched", "fold": fold, "attempt": attempt, "num_workers": 1}


def test_events_are_parsed_once_however_many_folds_ask(tmp_path, monkeypatch):
    folder, parsed = RunFolder(tmp_path / "run"), []
    loads = json.loads
    monkeypatch.setattr(events_by_fold.json, "loads", lambda line: parsed.append(line) or loads(line))
    assert last_attempt(folder, 0) == 0
    add(folder, {"event": "RunStarted"}, *(launch(fold, 1) for fold in range(50)))
    assert [last_attempt(folder, fold) for fold in range(51)] == [1] * 50 + [0]
    add(folder, launch(3, 2))
    assert [last_attempt(folder, fold) for fold in (2, 3)] == [1, 2]
    assert len(parsed) == 52


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path):
    folder = RunFolder(tmp_path / "run")
    add(folder, launch(0, 1))
    line = json.dumps(launch(0, 2)).encode() + b"\n"
    with folder.events.open("ab", buffering=0) as file:
        file.write(line[:20])
        assert last_attempt(folder, 0) == 1
        file.write(line[20:])
    assert last_attempt(folder, 0) == 2


def test_a_file_that_is_replaced_or_removed_is_read_anew(tmp_path):
    folder = RunFolder(tmp_path / "run")
    add(folder, launch(0, 1), launch(0, 2))
    assert last_attempt(folder, 0) == 2
    other = tmp_path / "other"
    other.write_text(json.dumps(launch(0, 1)) + "\n")
    os.replace(other, folder.events)
    assert last_attempt(folder, 0) == 1
    folder.events.unlink()
    assert last_attempt(folder, 0) == 0


def test_a_damaged_line_is_named_each_time(tmp_path):
    folder = RunFolder(tmp_path / "run")
    add(folder, launch(0, 1))
    with folder.events.open("ab") as file:
        file.write(b"{]\n")
    for _ in range(2):
        with pytest.raises(RunFolderError, match="damaged in line 2"):
            read_events(folder, 0)


def test_a_few_files_are_followed_at_the_same_time(tmp_path):
    folders = [RunFolder(tmp_path / f"run{n}") for n in range(40)]
    for n, folder in enumerate(folders):
        add(folder, launch(0, n))
    assert [last_attempt(folder, 0) for folder in folders] == list(range(40))
    assert len(events_by_fold._FOLLOWED) <= 16


def test_a_status_is_read_again_where_its_file_has_changed(tmp_path, monkeypatch):
    folder, read = RunFolder(tmp_path / "run"), []
    read_status = status.read_status
    monkeypatch.setattr(status, "read_status", lambda folder, fold: read.append(fold) or read_status(folder, fold))
    for fold in range(3):
        write_status(folder, FoldStatus(fold))
    reader = StatusReader()
    assert reader.read(folder, 4) == [FoldStatus(fold) for fold in range(4)]
    write_status(folder, FoldStatus(1, state=FoldState.FAILED))
    assert [one.state for one in reader.read(folder, 3)] == [FoldState.WAITING, FoldState.FAILED, FoldState.WAITING]
    assert read == [0, 1, 2, 3, 1]
