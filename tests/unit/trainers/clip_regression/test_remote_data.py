"""A data.root in object storage, on a real server: the same rows as from a folder, read once; what is wrong is told
with its URI."""

import time

import numpy as np
import pytest
from PIL import Image
from support.object_server import BUCKET
from support.small_training import TINY, train_small

from trainers.clip_regression.config import Config, DataConfig, ModelConfig
from trainers.clip_regression.inventory import take_inventory, write_inputs
from trainers.clip_regression.rows import remote_data
from trainers.clip_regression.rows.rows_file import place_rows, read_rows
from trainers.interface import DataError


@pytest.fixture
def storage(bucket_server, monkeypatch):
    """The server, whose objects count as old enough to be remembered at once."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote_data, "SETTLED_S", -10.0)
    return bucket_server


@pytest.fixture
def put_data(storage, small_frame, write_data, request):
    """A function that puts the small data into a folder of the bucket that this test has for itself; its URI and local
    folder."""

    def put(train=None, test=None):
        root = write_data(small_frame if train is None else train, test)
        storage.put_folder(root, request.node.name)
        return f"s3://{BUCKET}/{request.node.name}", root

    return put


def take(uri, folder, spread=None, **data):
    spread = spread or (lambda function, items: function(items))
    return take_inventory(Config(data=DataConfig(root=uri, **data), model=TINY.model), folder, folder / "cache", spread)


def test_rows_keys_and_what_the_folds_read_are_those_of_the_same_data_in_a_folder(put_data, small_frame, tmp_path):
    uri, root = put_data(test=small_frame.tail(5).drop(columns="views"))
    found = {}
    for name, place in (("remote", f"{uri}/"), ("local", str(root))):
        config, inventory = take(place, tmp_path)
        write_inputs(config, inventory, tmp_path / name)
        rows = read_rows(place_rows(tmp_path / name, config.data, "train"), inputs=True)
        found[name] = inventory, rows, [picture.read_bytes() for picture in rows.pictures]
    (remote, remote_rows, remote_pictures), (local, local_rows, local_pictures) = found.values()
    assert remote_rows.pictures[3].uri == f"{uri}/train_val/v03.jpg"
    assert remote_pictures == local_pictures
    for kind in ("picture", "text"):
        np.testing.assert_array_equal(remote_rows.digests[kind], local_rows.digests[kind])
    np.testing.assert_array_equal(remote.ids, local.ids)
    np.testing.assert_array_equal(remote.test_ids, local.test_ids)
    same = [inventory.row_keys["picture"] for inventory in (remote, local)]
    for part in ("train", "test"):  # other numbers, the same rows alike
        numbers = [np.unique(getattr(keys, part), return_inverse=True)[1] for keys in same]
        np.testing.assert_array_equal(*map(to_first_seen, numbers))


def to_first_seen(number_N):
    order = {number: first for first, number in enumerate(dict.fromkeys(number_N.tolist()))}
    return [order[number] for number in number_N.tolist()]


def test_a_second_start_reads_nothing_and_a_later_one_only_what_has_changed(put_data, storage, tmp_path):
    uri, root = put_data()
    key, asked = uri.removeprefix(f"s3://{BUCKET}/"), []

    def spread(function, items):
        asked.extend(item[0] for item in items)
        return function(items)

    first = take(uri, tmp_path, spread)[1].fingerprint
    assert len(asked) == 24
    read = len(storage.list_read())
    assert take(uri, tmp_path, spread)[1].fingerprint == first
    assert (len(asked), len(storage.list_read())) == (24, read)
    content = (root / "train_val" / "v03.jpg").read_bytes()
    changed = content.replace(b"JFIF", b"JFIG")
    assert len(changed) == len(content)
    time.sleep(1)  # the server's times have no more digits
    storage.put(f"{key}/train_val/v03.jpg", changed)
    assert take(uri, tmp_path, spread)[1].fingerprint != first
    assert asked[24:] == [f"{uri}/train_val/v03.jpg"]
    table = (root / "train_val.csv").read_text()
    storage.put(f"{key}/train_val.csv", table.replace("title 3", "title X").encode())
    assert (
        take(uri, tmp_path, spread)[1].row_keys["text"].train[3]
        != take(str(root), tmp_path)[1].row_keys["text"].train[3]
    )


def test_what_was_written_a_moment_before_it_was_listed_is_read_again(put_data, storage, tmp_path, monkeypatch):
    """Another object may follow within the second that its time has."""
    monkeypatch.setattr(remote_data, "SETTLED_S", 10.0)
    uri, root = put_data()
    first = take(uri, tmp_path)[1].fingerprint
    changed = (root / "train_val" / "v03.jpg").read_bytes().replace(b"JFIF", b"JFIG")
    storage.put(f"{uri.removeprefix(f's3://{BUCKET}/')}/train_val/v03.jpg", changed)
    assert take(uri, tmp_path)[1].fingerprint != first


def test_only_the_pictures_of_rows_that_are_wanted_are_read(put_data, storage, tmp_path):
    uri, _ = put_data()
    read = len(storage.list_read())
    take(uri, tmp_path, max_rows=5)
    assert len(set(storage.list_read()[read:])) == 1 + 5  # the table


def test_pictures_that_are_missing_or_broken_are_named_with_their_rows_before_anything_is_launched(
    put_data, storage, tmp_path
):
    uri, root = put_data()
    key = uri.removeprefix(f"s3://{BUCKET}/")
    storage.files.delete_file(f"{BUCKET}/{key}/train_val/v03.jpg")
    storage.put(f"{key}/train_val/v05.jpg", (root / "train_val" / "v05.jpg").read_bytes()[:300])
    storage.put(f"{key}/train_val/v07.jpg", b"no picture")
    storage.put(f"{key}/train_val/v09.png", b"")
    with pytest.raises(DataError) as refused:
        take(uri, tmp_path)
    assert f"{uri}/train_val.csv cannot be used" in str(refused.value)
    assert "several pictures of one id: 1 of 24 rows: row 10 (id 'v09'" in str(refused.value)
    storage.files.delete_file(f"{BUCKET}/{key}/train_val/v09.png")
    with pytest.raises(DataError) as refused:
        take(uri, tmp_path)
    assert "picture missing or unreadable: 3 of 24 rows" in str(refused.value)
    for name in ("v03", "v05", "v07"):
        assert f"(id '{name}': " in str(refused.value)
    assert f"no {uri}/train_val/v03.jpg" in str(refused.value)
    assert f"{uri}/train_val/v07.jpg is not a whole picture: cannot identify image file" in str(refused.value)
    _, inventory = take(uri, tmp_path, on_bad_row="drop")
    assert len(inventory.ids) == 21
    assert [row["id"] for row in inventory.bad_rows] == ["v03", "v05", "v07"]


def test_places_that_are_not_there_are_refused_with_what_to_do(put_data, tmp_path):
    uri, _ = put_data()
    with pytest.raises(DataError, match=r"data.root=s3://nobody/x: no such bucket"):
        take("s3://nobody/x", tmp_path)
    with pytest.raises(
        DataError, match=rf"{uri}/nothing/train_val.csv: no such file; set data.root .*of classes.* from a disk only"
    ):
        take(f"{uri}/nothing", tmp_path)
    with pytest.raises(DataError, match=rf"{uri}/nowhere: no objects, and so no pictures for train_val.csv"):
        take(uri, tmp_path, train_pictures="nowhere")
    with pytest.raises(DataError, match=r"data.root=ftp://lab/x: expected s3://"):
        take("ftp://lab/x", tmp_path)
    with pytest.raises(DataError, match=rf"{uri}/train_val.csv: no column 'price'"):
        take(uri, tmp_path, target="price")


def test_a_test_table_that_is_removed_is_not_read_from_an_old_copy(put_data, storage, small_frame, tmp_path):
    uri, _ = put_data(test=small_frame.tail(5).drop(columns="views"))
    assert take(uri, tmp_path)[1].num_test == 5
    storage.files.delete_file(f"{uri.removeprefix('s3://')}/test.csv")
    assert take(uri, tmp_path)[1].num_test == 0


FROZEN = {"model": ModelConfig(**{**vars(TINY.model), "freeze": True, "allow_random_frozen": True})}


@pytest.mark.parametrize("sections", [{}, FROZEN], ids=["learning encoders", "frozen encoders"])
def test_a_fold_learns_the_same_bits_and_another_machine_computes_no_block(put_data, storage, tmp_path, sections):
    """Machines are folders here: nothing but the bucket is common to them."""
    uri, root = put_data()
    places, cache_uri = {}, f"{uri}/.kfold_cache"
    for name, place, shared in (("local", root, None), ("first", uri, cache_uri), ("second", uri, cache_uri)):
        (tmp_path / name).mkdir()
        places[name] = train_small(tmp_path / name, place, cache_uri=shared, **sections)
    for name in ("first", "second"):
        np.testing.assert_array_equal(
            places[name].predictions["final", "validation"].prediction,
            places["local"].predictions["final", "validation"].prediction,
        )
    assert {what for what, _, _ in places["first"].prepared} & {"encoding", "decoding"}
    fetched = places["second"].prepared
    assert {what for what, _, _ in fetched} == {"fetching"}
    assert fetched[-1][1] == fetched[-1][2]


def test_a_picture_that_is_exchanged_while_the_run_works_ends_the_fold(put_data, storage, tmp_path):
    uri, _ = put_data()
    config, inventory = take(uri, tmp_path)
    write_inputs(config, inventory, tmp_path / "inputs")
    rows = read_rows(place_rows(tmp_path / "inputs", config.data, "train"), inputs=True)
    Image.new("RGB", (40, 50)).save(tmp_path / "other.jpg")
    storage.put(f"{uri.removeprefix(f's3://{BUCKET}/')}/train_val/v03.jpg", (tmp_path / "other.jpg").read_bytes())
    assert rows.pictures[3].read_bytes()  # this machine has a copy of the old one
    for path in (tmp_path / "cache" / "objects").glob("??/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"train_val/v03.jpg was changed while the run works"):
        rows.pictures[3].read_bytes()
