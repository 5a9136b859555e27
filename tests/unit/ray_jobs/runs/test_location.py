"""Where a run lives: a folder, or a URI with a folder of this machine in which it is worked on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ray_jobs.errors import RunError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.location import (
    find_place,
    find_uri,
    join_run,
    list_run_folders,
    note_uri,
    open_cache,
    refuse_other_storage,
    resolve_storage,
)


def test_a_run_in_a_folder_has_no_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_place("runs", "one") == tmp_path / "runs" / "one"
    assert resolve_storage("~/runs") == str(Path.home() / "runs")
    assert join_run("runs", "one") is None
    assert find_uri(RunFolder("runs/one")) is None


def test_a_run_in_object_storage_is_worked_on_in_one_place_of_this_user_s(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = find_place("s3://lab/runs/", "one")
    assert place == find_place("s3://lab/runs", "one") != find_place("s3://lab/others", "one")
    assert place.parents[1].stat().st_mode & 0o777 == 0o700
    uri = join_run("s3://lab/runs/", "one")
    assert uri == f"{resolve_storage('s3://lab/runs/')}/one" == "s3://lab/runs/one"
    folder = RunFolder(place)
    assert find_uri(folder) is None
    note_uri(folder, uri)
    assert find_uri(folder) == find_uri(folder.of_member("wide")) == uri


def test_the_cache_is_closed_to_others_and_not_used_where_they_may_write(tmp_path, monkeypatch):
    cache = RunFolder(tmp_path / "runs" / "one").cache
    assert open_cache(cache).stat().st_mode & 0o777 == 0o700
    cache.chmod(0o755)  # as an earlier version made it
    assert open_cache(cache).stat().st_mode & 0o777 == 0o700
    for mode in (0o770, 0o702):
        cache.chmod(mode)
        with pytest.raises(RunError, match=rf"may be written to by others \(mode {mode:o}\).* `chmod 700 {cache}`"):
            open_cache(cache)
    cache.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: cache.stat().st_uid + 1)
    with pytest.raises(RunError, match=r"belongs to somebody else \(user \d+\); choose another run.storage"):
        open_cache(cache)


def test_other_storages_are_refused():
    for storage, words in {
        "ftp://lab/runs": "run.storage=ftp://lab/runs: ",
        "s3://lab/members/x": "expected another name than members",
    }.items():
        with pytest.raises(RunError, match=words):
            refuse_other_storage(storage)
    refuse_other_storage("s3://lab/runs")
    refuse_other_storage("/runs")


def test_the_runs_below_a_folder_are_those_with_a_config(tmp_path):
    for name in ("b", "a", "empty"):
        (tmp_path / name).mkdir()
        if name != "empty":
            RunFolder(tmp_path / name).config.write_text("{}")
    assert [os.path.basename(root) for root in list_run_folders(str(tmp_path))] == ["a", "b"]


def test_where_there_is_no_home_folder_one_is_asked_for_and_another_is_taken(tmp_path, monkeypatch):
    """As for a user without an entry, such as a container's."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(RunError, match=r"^run.storage=~/ray_results: no such home folder; set HOME"):
        resolve_storage("~/ray_results")
    assert find_place(str(tmp_path), "one") == tmp_path / "one"
    assert list_run_folders("~/ray_results") == []
