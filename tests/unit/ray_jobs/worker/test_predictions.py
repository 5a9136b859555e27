"""Predictions of several ranks become one file in the order of the rows, whatever their kind."""

import numpy as np
import pytest

from ensemble.kinds import load_kind
from ensemble.maps.files import MAP_SCHEMA
from ensemble.predictions import SCHEMA, PredictionError
from ray_jobs.worker.predictions import gather_predictions, join_in_order
from ray_jobs.worker.ranks import Ranks
from trainers.predictions import PredictedMap, Predictions

IDS = np.array([f"row{number}" for number in range(7)])
WHOSE = {"fold": 2, "checkpoint": "best", "member": "main"}


def block(rows):
    values = np.array(rows, float)
    return Predictions(IDS[rows], values, values / 10, np.where(values > 4, np.nan, values))


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
