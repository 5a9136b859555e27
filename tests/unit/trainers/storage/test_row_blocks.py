"""Blocks of rows: found by content, whole or missing, filled by several at once."""

import errno
import threading

import numpy as np
import pyarrow as pa
import pytest
from support.made_blocks import NUM_ROWS, make_keys, make_part, make_place, split_of

from trainers.storage import row_blocks
from trainers.storage.row_blocks import BLOCK_ROWS, _order_of_slot, fill


def test_what_was_computed_once_is_found_by_whoever_has_the_same_rows(tmp_path):
    keys_NK = make_keys()
    first, computed = make_part(tmp_path, keys_NK)
    fill([first], "adding", split_of(0), make_place())
    again, computed_again = make_part(tmp_path, keys_NK)
    fill([again], "adding", split_of(0), make_place())
    assert (sorted(computed), computed_again) == (list(range(NUM_ROWS)), [])
    positions = np.array([NUM_ROWS - 1, 0, BLOCK_ROWS])
    np.testing.assert_array_equal(again.blocks.take(positions)[:, 0], keys_NK[positions].sum(1))
    assert again.blocks.problems == {7: "odd"}


def test_a_changed_row_computes_its_block_alone(tmp_path):
    keys_NK = make_keys()
    fill([make_part(tmp_path, keys_NK)[0]], "adding", split_of(0), make_place())
    changed_NK = keys_NK.copy()
    changed_NK[2 * BLOCK_ROWS + 5, 0] ^= 1
    part, computed = make_part(tmp_path, changed_NK)
    fill([part], "adding", split_of(0), make_place())
    assert computed == list(range(2 * BLOCK_ROWS, 3 * BLOCK_ROWS))


def test_what_is_noted_of_a_row_belongs_to_the_checksum(tmp_path):
    part, _ = make_part(tmp_path, make_keys())
    fill([part], "adding", split_of(0), make_place())
    content = part.blocks.paths[0].read_bytes()
    assert content.count(b"odd") == 1
    part.blocks.paths[0].write_bytes(content.replace(b"odd", b"add"))
    assert make_part(tmp_path, make_keys())[0].blocks.num_missing_rows == BLOCK_ROWS


@pytest.mark.parametrize("harm", ["flip a bit", "cut", "empty"])
def test_a_damaged_block_counts_as_missing_and_is_computed_again(tmp_path, harm):
    keys_NK = make_keys()
    part, _ = make_part(tmp_path, keys_NK)
    fill([part], "adding", split_of(0), make_place())
    content = bytearray(part.blocks.paths[1].read_bytes())
    content[content.index(keys_NK[BLOCK_ROWS].sum(dtype=np.float32).tobytes())] ^= 1
    part.blocks.paths[1].write_bytes({"flip a bit": content, "cut": content[: len(content) // 2], "empty": b""}[harm])
    part, computed = make_part(tmp_path, keys_NK)
    assert part.blocks.num_missing_rows == BLOCK_ROWS
    fill([part], "adding", split_of(0), make_place())
    assert computed == list(range(BLOCK_ROWS, 2 * BLOCK_ROWS))


def test_a_block_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    keys_NK = make_keys()
    part, _ = make_part(tmp_path, keys_NK)
    fill([part], "adding", split_of(0), make_place())

    def refuse(_):
        raise OSError(errno.EIO, "away")

    monkeypatch.setattr(pa, "memory_map", refuse)
    with pytest.raises(OSError, match="away"):
        make_part(tmp_path, keys_NK)[0].blocks.find(0)
    assert all(path.exists() for path in part.blocks.paths)


@pytest.mark.parametrize("limit", ["of a table", "of the process", "of the system"])
def test_blocks_beyond_those_that_can_be_mapped_are_read(tmp_path, monkeypatch, limit):
    keys_NK = make_keys()
    fill([make_part(tmp_path, keys_NK)[0]], "adding", split_of(0), make_place())
    if limit == "of a table":
        monkeypatch.setattr(row_blocks, "MOST_MAPPED", 1)
    elif limit == "of the process":
        monkeypatch.setattr(row_blocks, "MOST_MAPPED_IN_ALL", row_blocks.count_mapped() + 1)
    else:

        def refuse(_):
            raise OSError(errno.ENOMEM, "no more")

        monkeypatch.setattr(pa, "memory_map", refuse)
    part, computed = make_part(tmp_path, keys_NK)
    fill([part], "adding", split_of(0), make_place())
    assert computed == []
    assert len(part.blocks.mapped) == (limit != "of the system")
    positions = np.array([NUM_ROWS - 1, 0, BLOCK_ROWS, BLOCK_ROWS + 1, 0])
    np.testing.assert_array_equal(part.blocks.take(positions)[:, 0], keys_NK[positions].sum(1))
    assert part.blocks.problems == {7: "odd"}
    part.blocks.paths[-1].write_bytes(b"")
    with pytest.raises(OSError, match="cut off"):
        part.blocks.take(positions)


def test_an_interrupted_build_continues_where_it_was(tmp_path):
    class StoppedError(Exception):
        pass

    said = []

    def stop_after_two(what, done, total):
        said.append((what, done, total))
        if len(said) == 2:
            raise StoppedError

    part, computed = make_part(tmp_path, make_keys())
    with pytest.raises(StoppedError):
        fill([part], "adding", split_of(0), make_place(stop_after_two))
    assert said == [("adding", BLOCK_ROWS, NUM_ROWS), ("adding", 2 * BLOCK_ROWS, NUM_ROWS)]
    part, rest = make_part(tmp_path, make_keys())
    fill([part], "adding", split_of(0), make_place())
    assert sorted(computed + rest) == list(range(NUM_ROWS))


def test_three_folds_share_the_work_and_each_has_all_of_it(tmp_path):
    keys_NK = make_keys(30 * BLOCK_ROWS)
    made = [make_part(tmp_path, keys_NK, seconds=0.02) for _ in range(3)]
    workers = [
        threading.Thread(target=fill, args=([part], "adding", split_of(fold, 3), make_place()))
        for fold, (part, _) in enumerate(made)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part, _ in made:
        assert part.blocks.num_missing_rows == 0
        np.testing.assert_array_equal(part.blocks.take(np.arange(len(keys_NK)))[:, 0], keys_NK.sum(1))
    num_computed = sum(len(computed) for _, computed in made)
    assert len(keys_NK) <= num_computed <= len(keys_NK) + 6 * BLOCK_ROWS  # two may be on the same block where they meet
    assert len(list(tmp_path.iterdir())) == 30


@pytest.mark.parametrize(("total", "num_slots"), [(1, 3), (7, 3), (30, 3), (5, 1)])
def test_each_slot_visits_every_block_once_and_its_own_share_first(total, num_slots):
    first = []
    for slot in range(num_slots):
        order = list(_order_of_slot(total, slot, num_slots))
        assert sorted(order) == list(range(total))
        share = (slot + 1) * total // num_slots - slot * total // num_slots
        first += order[:share]
    assert sorted(first) == list(range(total))
