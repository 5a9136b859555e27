"""Which part of a picture a row's prediction rests on."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from support.made_run import make_run

from ray_jobs.prediction import occlusion
from ray_jobs.prediction.importance import FoldRows
from ray_jobs.prediction.occlusion import PARTS, OccludedRow, cover_part, draw_change, find_occlusion, write_occlusion
from ray_jobs.reporting.report_figures import write_pictures
from trainers.predictions import BlockPredictions


def make_picture(part):
    """Grey, with one white part."""
    picture = np.full((70, 84, 3), 100, np.uint8)
    top, left = 10 * part[0], 12 * part[1]
    picture[top : top + 10, left : left + 12] = 255
    return picture


class Brightness:
    """A model that predicts the mean of a picture."""

    def __init__(self, folder):
        self.folder = folder

    def predict(self, block):
        ids = block["id"].to_pylist()
        values = [float(np.asarray(Image.open(self.folder / f"{row_id}.png")).mean()) for row_id in ids]
        return BlockPredictions(np.array(ids), np.array([values]), ())


def test_the_part_that_the_model_looks_at_is_found_of_the_worst_and_of_the_best_rows(tmp_path, monkeypatch):
    folder, config, _ = make_run(tmp_path / "run")
    pictures = {f"r{n}": make_picture((n % PARTS, 3)) for n in range(8)}
    truth = np.array([one.mean() for one in pictures.values()])
    predicted = truth + np.arange(8.0)[::-1] ** 2  # the first rows are the worst
    rows = SimpleNamespace(id_column="id", with_pictures=lambda place: place)
    block = pa.table({"id": list(pictures)})
    folds = [FoldRows(0, np.array(list(pictures)), block, truth, lambda _: predicted)]
    monkeypatch.setattr(occlusion, "open_model", lambda _folder, _config, place, _fold: Brightness(place))
    family = SimpleNamespace(open_backgrounds=lambda _config, _inputs, _table: pictures.get)
    monkeypatch.setattr(occlusion, "load_inventory_module", lambda _: family)
    found = find_occlusion(folder, config, rows, folds, lambda _: None)
    assert [one.row_id for one in found] == ["r0", "r1", "r2", "r5", "r6", "r7"]
    best = found[-1]
    assert np.unravel_index(best.change_GG.argmax(), best.change_GG.shape) == (7 % PARTS, 3)


def test_rows_without_pictures_are_left_alone(tmp_path):
    folder, config, _ = make_run(tmp_path / "run")
    assert find_occlusion(folder, config, SimpleNamespace(id_column="id"), [], print) == []


def test_a_part_is_covered_by_the_mean_and_the_parts_cover_all():
    picture = make_picture((2, 4))
    covered = cover_part(picture, 2, 4)
    assert (covered != picture).any(axis=2).sum() == 120
    assert np.ptp(covered) < 10
    counts = sum((cover_part(np.indices((50, 61)).sum(0)[..., None].repeat(3, 2).astype(np.uint8), *divmod(n, PARTS))
                  != np.indices((50, 61)).sum(0)[..., None]).any(axis=2) for n in range(PARTS * PARTS))  # fmt: skip
    assert counts.max() == 1


@pytest.mark.parametrize(("sign", "channel"), [(1, 0), (-1, 2)])
def test_what_helps_is_orange_and_what_hurts_is_blue(sign, channel):
    change = np.zeros((PARTS, PARTS))
    change[3, 3] = sign
    drawn = draw_change(OccludedRow("a", 0.1, change, np.full((70, 70, 3), 90, np.uint8))).astype(int)
    assert drawn[35, 35].argmax() == channel
    assert drawn[2, 2].tolist() == [90, 90, 90]


def test_the_report_shows_them_and_a_second_call_leaves_nothing_of_the_first(tmp_path):
    folder, config, summary = make_run(tmp_path / "run")
    row = OccludedRow("a", 0.1, np.eye(PARTS), make_picture((1, 1)))
    write_occlusion(folder, [row] * 6)
    write_occlusion(folder, [row] * 2)
    assert sorted(path.name for path in folder.occlusion.iterdir()) == ["0_a.png", "1_a.png"]
    assert {one.picture.name: one for one in write_pictures(folder, config, summary)}["occlusion"].png
