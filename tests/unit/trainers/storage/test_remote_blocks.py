"""Blocks that machines share through object storage: two folders that have nothing but a bucket in common."""

import threading

import numpy as np
import pytest
from support.made_blocks import NUM_ROWS, make_keys, make_part, make_place, split_of
from support.object_server import BUCKET

from trainers.storage import remote_blocks
from trainers.storage.row_blocks import BLOCK_ROWS, fill


@pytest.fixture
def remote(bucket_server, monkeypatch, request):
    """URI of a folder that this test has for itself."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{request.node.name.partition('[')[0]}"


def test_what_one_machine_has_computed_another_fetches_and_computes_nothing(bucket_server, remote, tmp_path):
    keys_NK = make_keys()
    first, computed = make_part(tmp_path / "first", keys_NK, remote=remote)
    fill([first], "adding", split_of(0), make_place())
    second, computed_there = make_part(tmp_path / "second", keys_NK, remote=remote)
    assert (second.blocks.num_missing_rows, second.blocks.num_rows_away) == (0, NUM_ROWS)
    fill([second], "adding", split_of(0), make_place())
    assert (sorted(computed), computed_there) == (list(range(NUM_ROWS)), [])
    np.testing.assert_array_equal(second.blocks.take(np.arange(NUM_ROWS))[:, 0], keys_NK.sum(1))
    assert second.blocks.problems == {7: "odd"}
    for here, there in zip(first.blocks.paths, second.blocks.paths, strict=True):
        assert here.read_bytes() == there.read_bytes()
    read = len(bucket_server.list_read())
    third, _ = make_part(tmp_path / "second", keys_NK, remote=remote)
    fill([third], "adding", split_of(0), make_place())
    assert len(bucket_server.list_read()) == read  # what is here is not asked for


@pytest.mark.parametrize("harm", ["flip a bit", "cut", "empty"])
def test_a_damaged_object_is_computed_again_and_put_anew(bucket_server, remote, tmp_path, harm):
    keys_NK = make_keys()
    first, _ = make_part(tmp_path / "first", keys_NK, remote=remote)
    fill([first], "adding", split_of(0), make_place())
    path, content = first.blocks.paths[1], bytearray(first.blocks.paths[1].read_bytes())
    place = content.index(keys_NK[BLOCK_ROWS].sum(dtype=np.float32).tobytes())
    content[place] ^= 1
    key = f"{remote.removeprefix(f's3://{BUCKET}/')}/{path.name}"
    bucket_server.put(key, bytes({"flip a bit": content, "cut": content[:-50], "empty": b""}[harm]))
    said = []
    second, computed = make_part(tmp_path / "second", keys_NK, remote=remote)
    fill([second], "adding", split_of(0), make_place(lambda *words: said.append(words)))
    assert computed == list(range(BLOCK_ROWS, 2 * BLOCK_ROWS))
    assert [one for one in said if one[0] == "adding"] == [("adding", BLOCK_ROWS, BLOCK_ROWS)]
    with bucket_server.files.open_input_stream(f"{BUCKET}/{key}") as stream:
        assert stream.read() == path.read_bytes()


def test_two_machines_at_once_share_the_work(bucket_server, remote, tmp_path):
    keys_NK = make_keys(20 * BLOCK_ROWS)
    made = [make_part(tmp_path / f"machine{number}", keys_NK, seconds=0.1, remote=remote) for number in range(2)]
    workers = [
        threading.Thread(target=fill, args=([part], "adding", split_of(fold, 2), make_place()))
        for fold, (part, _) in enumerate(made)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part, _ in made:
        np.testing.assert_array_equal(part.blocks.take(np.arange(len(keys_NK)))[:, 0], keys_NK.sum(1))
    assert sum(len(computed) for _, computed in made) <= len(keys_NK) + 4 * BLOCK_ROWS  # where they meet
    assert len(bucket_server.files.get_file_info(selector(remote))) == 20


def selector(uri):
    from pyarrow.fs import FileSelector

    return FileSelector(uri.removeprefix("s3://"))


def test_while_the_storage_is_away_a_machine_computes_by_itself_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(remote_blocks, "PATIENCE_S", 0.1)
    part, computed = make_part(tmp_path, make_keys(), remote=f"s3://{BUCKET}/away")
    fill([part], "adding", split_of(0), make_place())
    assert sorted(computed) == list(range(NUM_ROWS))
    (record,) = caplog.records
    assert f"blocks are not shared through s3://{BUCKET}/away for the next 60 s" in record.getMessage()
