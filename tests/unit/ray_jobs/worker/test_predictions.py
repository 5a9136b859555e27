"""Predictions of several ranks become one file in the order of the rows, whatever their kind."""

import gc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ensemble.kinds import load_kind
from ensemble.maps.files import MAP_SCHEMA
from ensemble.predictions import SCHEMA, PredictionError
from ray_jobs.worker.predictions import arrange, gather_predictions, save_in_parts
from ray_jobs.worker.ranks import Ranks
from trainers.predictions import PredictedMap, Predictions

IDS = np.array([f"row{number}" for number in range(7)])
WHOSE = {"fold": 2, "checkpoint": "best", "member": "main"}


def block(rows):
    values = np.array(rows, float)
    return Predictions(IDS[rows], values, values / 10, np.where(values > 4, np.nan, values))


def join_in_order(tables, ids):
    return pa.concat_tables(arrange(tables, ids))


def gather(kind, predictions, seen):
    return gather_predictions(Ranks(0, 1, "cpu"), load_kind(kind), predictions, lambda: seen.append(1), **WHOSE)


def test_blocks_of_numbers_in_any_order_come_into_the_order_of_the_rows():
    seen = []
    table = join_in_order(gather("number", (block(rows) for rows in ([6, 1], [3, 0, 2], [4, 5])), seen), IDS)
    assert len(seen) == 3
    assert table.schema == SCHEMA
    assert table["id"].to_pylist() == IDS.tolist()
    assert table["prediction"].to_pylist() == [0, 1, 2, 3, 4, 5, 6]
    assert table["target"].to_pylist() == [0, 1, 2, 3, 4, None, None]


def test_maps_are_encoded_while_the_next_is_predicted():
    seen, order = [], [3, 1, 0, 2]

    def predict():
        for row in order:
            assert len(seen) == order.index(row)
            yield PredictedMap(IDS[row], np.full((1, 2, 2), row / 10, np.float32), None)

    table = join_in_order(gather("map", predict(), seen), IDS[:4])
    assert table.schema == MAP_SCHEMA
    assert table["id"].to_pylist() == IDS[:4].tolist()


@pytest.mark.parametrize(
    ("rows", "missing"), [([0, 1, 2], "'row3'"), ([0, 1, 2, 2], "'row3'"), ([0, 1, 2, 3, 3], "no id")]
)
def test_each_row_is_predicted_once(rows, missing):
    with pytest.raises(PredictionError, match=f"{len(rows)} predictions for 4 rows.*missing is {missing}"):
        join_in_order(gather("number", [block(rows)], []), IDS[:4])


def make_maps(order, size=20):
    rng = np.random.default_rng(0)
    maps = rng.random((len(order), 1, size, size)).astype(np.float32)
    return (PredictedMap(IDS[row], maps[row], None) for row in order)


def test_each_row_is_given_as_soon_as_all_before_it_are_there():
    given, order = [], [0, 2, 4, 1, 3, 5, 6]  # of three rows of one rank, then of another
    for table in arrange(gather("map", make_maps(order), seen := []), IDS):
        given.append((len(seen), table["id"].to_pylist()))
    assert given[0] == (1, ["row0"])
    assert given[1] == (4, ["row1", "row2"])
    assert [row_id for _, rows in given for row_id in rows] == IDS.tolist()


def save(path, order, **how):
    save_in_parts(path, arrange(gather("map", make_maps(order), []), IDS), lambda do: do(), **how)


def test_a_large_file_is_made_of_parts_and_holds_what_a_small_one_does(tmp_path):
    path, whole = tmp_path / "parts" / "maps.parquet", tmp_path / "whole.parquet"
    order = [0, 2, 4, 1, 3, 5, 6]
    save(whole, order)
    save(path, order, most_bytes=500)
    assert pq.ParquetFile(whole).num_row_groups == 1
    assert pq.ParquetFile(path).num_row_groups > 3
    assert pq.read_table(path).equals(pq.read_table(whole))
    assert [one.name for one in path.parent.iterdir()] == ["maps.parquet"]


def test_no_more_than_a_part_is_in_memory(tmp_path):
    gc.collect()
    before, held = pa.total_allocated_bytes(), []

    def predict():
        for one in make_maps(range(len(IDS)), size=500):
            gc.collect()
            held.append(pa.total_allocated_bytes() - before)
            yield one

    save_in_parts(tmp_path / "maps.parquet", arrange(gather("map", predict(), []), IDS), lambda do: do(), most_bytes=1)
    one_map = (tmp_path / "maps.parquet").stat().st_size / len(IDS)
    assert max(held) < 4 * one_map


def test_a_part_that_the_storage_does_not_take_is_written_again(tmp_path):
    path, tries = tmp_path / "maps.parquet", []

    def write(do):
        tries.append(1)
        if len(tries) % 2:
            return write(do)  # nothing was written
        return do()

    save_in_parts(path, arrange(gather("map", make_maps(range(7)), []), IDS), write, most_bytes=1)
    assert pq.read_table(path)["id"].to_pylist() == IDS.tolist()


def test_a_prediction_of_a_row_that_is_not_asked_for_is_refused():
    with pytest.raises(PredictionError, match=r"1 predictions for 0 rows.*missing is no id"):
        join_in_order(gather("number", [block([0])], []), IDS[:0])
