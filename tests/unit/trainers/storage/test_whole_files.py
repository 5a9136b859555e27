"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trainers.storage.whole_files import remove_unfinished, write_whole


def test_a_file_for_which_there_is_no_room_is_named_with_the_reason_and_the_one_before_stays(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    write_whole(path, b"before")
    for place, name in ((Path, "open"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(OSError, match="No space left on device") as refused:
                write_whole(path, b"after")
        assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_stood_still_never_replaces_what_its_successor_has_written(tmp_path):
    """Before it looked whether it may write, the look refuses it; after that its rename finds nothing."""
    path = tmp_path / "manifest.json"

    def look_then_stand_still():
        remove_unfinished(path)
        write_whole(path, b"the successor's")

    with pytest.raises(FileNotFoundError):
        write_whole(path, b"the predecessor's", confirm=look_then_stand_still)
    with pytest.raises(PermissionError):
        write_whole(path, b"the predecessor's", confirm=refuse)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {path.name: b"the successor's"}


def refuse():
    raise PermissionError
