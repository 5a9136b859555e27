"""Checkpoints as folders: files beside tensors, parts of several ranks, damage, replacement."""

from __future__ import annotations

import json

import pytest

from ray_jobs.errors import RunFolderError
from ray_jobs.runs.checkpoints import open_checkpoint, write_checkpoint, write_tensors
from ray_jobs.runs.folder import RunFolder


@pytest.fixture
def source(tmp_path):
    """What a tokenizer or an adapter saves."""
    folder = tmp_path / "source"
    (folder / "vocabulary").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "vocabulary" / "merges.txt").write_text("a b")
    return folder


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run").fold(0).checkpoint("best")


def list_names(folder):
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def write(folder, number, source):
    shards = [write_tensors(folder, f"shard {rank} of {number}".encode(), f"shard{rank}") for rank in range(2)]
    write_checkpoint(folder, f"tensors {number}".encode(), {"number": number}, shards=shards, files=source)


def test_files_and_parts_are_kept_beside_the_tensors_and_replaced_with_them(folder, source):
    for number in (1, 2):
        (source / "config.json").write_text(str(number))
        write(folder, number, source)
        checkpoint = open_checkpoint(folder)
        checkpoint.check()
        assert checkpoint.read_tensors() == [
            f"{part} {number}".encode() for part in ("tensors", "shard 0 of", "shard 1 of")
        ]
        assert checkpoint.read_files() == {"config.json": str(number).encode(), "vocabulary/merges.txt": b"a b"}
        assert (checkpoint.find_files() / "vocabulary" / "merges.txt").read_text() == "a b"
        assert list_names(folder) == ["checkpoint.json", "files", "model", "shard0", "shard1"]
    write_checkpoint(folder, b"tensors 3", {})
    assert list_names(folder) == ["checkpoint.json", "model"]


def test_one_without_files_and_parts_is_written_as_it_always_was(folder):
    write_checkpoint(folder, b"tensors", {"epoch": 1})
    assert set(json.loads((folder / "checkpoint.json").read_text())) == {
        "tensors",
        "sha256",
        "bytes",
        "description",
        "checksum",
    }
    assert open_checkpoint(folder).find_files() is None


@pytest.mark.parametrize("name", ["shard1-*", "files-*/vocabulary/merges.txt", "model-*"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), lambda path: path.unlink()])
def test_each_damaged_file_is_named(folder, source, name, damage):
    write(folder, 1, source)
    (path,) = folder.glob(name)
    damage(path)
    with pytest.raises(RunFolderError, match=f"{path.name} is missing or damaged"):
        open_checkpoint(folder).check()
    assert open_checkpoint(folder).description == {"number": 1}


def test_what_fails_half_way_leaves_the_one_before(folder, source, monkeypatch):
    write(folder, 1, source)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refuse(*_, **__):
        raise OSError("no room")

    (source / "config.json").write_text("new")
    monkeypatch.setattr("ray_jobs.runs.checkpoints.write_json", refuse)
    with pytest.raises(OSError, match="no room"):
        write(folder, 2, source)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [("shards", "shard0-0123456789ab.safetensors/../../x"), ("shards", "../secret"), ("files", "files-0123456789ab/../../x"),
     ("files", "/etc/passwd"), ("files", "files-0123456789ab"), ("files", 3), ("files", "secret/x"), ("shards", "")],
)  # fmt: skip
def test_a_checkpoint_names_no_file_outside_of_its_folder(folder, kind, name):
    write_checkpoint(folder, b"tensors", {})
    manifest = json.loads((folder / "checkpoint.json").read_text())
    del manifest["checksum"]
    manifest[kind] = [{"name": name, "sha256": "0", "bytes": 1}]
    (folder / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match="is damaged"):
        open_checkpoint(folder)


def test_files_that_could_not_be_kept_are_refused(folder, source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected a folder of files"):
        write_checkpoint(folder, b"tensors", {}, files=tmp_path / "empty")
    (source / ".hidden").write_text("")
    with pytest.raises(ValueError, match="do not begin with a dot"):
        write_checkpoint(folder, b"tensors", {}, files=source)
    assert not list(folder.iterdir())
