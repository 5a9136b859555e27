"""New rows for models of two families: read side by side, predicted by each, put together in the order of the models."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ray_jobs.prediction import families
from ray_jobs.prediction.families import Part, PredictorOfFamilies, RowsOfFamilies
from trainers.interface import DataError
from trainers.predictions import BlockPredictions, NewMap


@dataclass(frozen=True)
class Rows:
    """Rows that a family has found."""

    PROBLEMS = "a picture that is torn"

    path: Path
    ids: tuple[str, ...]
    column: str
    batch_rows: int = 2
    notes: tuple[str, ...] = ("a note",)

    def check(self):
        return len(self.ids)

    def read(self, num_rows):
        for start in range(0, len(self.ids), num_rows):
            yield pa.table({self.column: pa.array(self.ids[start : start + num_rows])})


class Predictor:
    """Models that add their own number to that of a row."""

    def __init__(self, models, rows, device, num_threads):
        self.models, self.column = models, rows.column

    def predict(self, block):
        ids = block[self.column].to_numpy(zero_copy_only=False).astype(str)
        values = np.array([[model + float(row_id) for row_id in ids] for model in self.models])
        return BlockPredictions(ids, values, ((ids[0], "odd"),))


class MapPredictor(Predictor):
    """One of maps."""

    def predict(self, block):
        for row_id in block[self.column].to_pylist():
            maps = np.full((len(self.models), 1, 2, 2), np.array(self.models).reshape(-1, 1, 1, 1), np.float32)
            yield NewMap(row_id, maps, None, np.zeros((2, 2, 3), np.uint8), "odd")


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Of two families, the second with the middle one of three members of two folds."""
    monkeypatch.setattr(families, "load_predictor", lambda family: Predictor)
    own = Rows(tmp_path / "a.csv", ("1", "2", "3", "4", "5"), "id")
    other = Rows(tmp_path / "b.csv", own.ids, "name", batch_rows=3)
    return RowsOfFamilies((Part("one", (0, 1, 4, 5), own), Part("two", (2, 3), other)))


def test_blocks_are_read_side_by_side_and_predicted_in_the_order_of_the_models(rows):
    rows = pickle.loads(pickle.dumps(rows))
    assert (rows.check(), rows.batch_rows, rows.path.name) == (5, 6, "a.csv")
    assert (rows.PROBLEMS, rows.notes) == ("a picture that is torn", ("a note",))
    assert not hasattr(rows, "masks")
    predictor = PredictorOfFamilies([0, 10, 20, 30, 40, 50], rows, "cpu", 1)
    found = [predictor.predict(block) for block in rows.read(4)]
    assert np.concatenate([one.ids for one in found]).tolist() == list("12345")
    assert found[0].prediction[:, 0].tolist() == [1, 11, 21, 31, 41, 51]
    assert found[0].problems == (("1", "odd"),)


def test_maps_are_predicted_in_the_order_of_the_models(rows, monkeypatch):
    monkeypatch.setattr(families, "load_predictor", lambda family: MapPredictor)
    (first, *_) = PredictorOfFamilies([0, 10, 20, 30, 40, 50], rows, "cpu", 1).predict(next(rows.read(4)))
    assert first.probability_MCHW[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert (first.row_id, first.problem) == ("1", "odd")


def test_families_that_find_other_rows_are_refused(rows, tmp_path):
    fewer = RowsOfFamilies((rows.parts[0], Part("two", (2, 3), Rows(tmp_path / "b.csv", ("1", "2"), "name"))))
    with pytest.raises(DataError, match=r"one finds 5 rows in .*a.csv, and two 2 in .*b.csv"):
        fewer.check()
    swapped = RowsOfFamilies((rows.parts[0], Part("two", (2, 3), Rows(tmp_path / "b.csv", tuple("13245"), "name"))))
    predictor = PredictorOfFamilies(range(6), swapped, "cpu", 1)
    with pytest.raises(DataError, match=r"where one finds id '2' in .*a.csv, two finds '3' in .*b.csv"):
        predictor.predict(next(swapped.read(4)))
