"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trainers.storage.whole_files import write_whole


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
