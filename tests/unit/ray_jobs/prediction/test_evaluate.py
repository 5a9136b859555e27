"""`evaluate.py` and `ablation.py`: a run of a family without an evaluation of its own is refused, and so is no run."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.made_run import make_run

from ray_jobs import ablation, evaluate
from ray_jobs.errors import RunError
from ray_jobs.prediction.blend_rows import open_blend_rows
from ray_jobs.runs.folder import RunFolder
from trainers.interface import TrainedModel


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "made")[0].root


@pytest.mark.parametrize("command", [evaluate, ablation])
def test_a_run_of_a_family_without_an_evaluation_is_refused(run, command):
    with pytest.raises(RunError, match=r"is a run of clip_regression, which has no evaluation of its own: expected"):
        command.main([str(run)])


def test_without_a_run_the_usage_is_told():
    with pytest.raises(RunError, match=r"RUN is missing; usage: .*evaluate.py RUN"):
        evaluate.main(["--data", "x.jsonl"])


def test_the_rows_come_from_one_place():
    with pytest.raises(ValueError, match=r"--blend=.*x\.jsonl.*: expected no --data"):
        evaluate.Arguments("made", data="x.jsonl", blend=True)


@dataclass(frozen=True)
class Rows:
    """The training rows of a family, as new rows."""

    ids: tuple[str, ...]
    path = Path("train.csv")
    id_column = "name"
    batch_rows = 4

    def read(self, num_rows):
        for start in range(0, len(self.ids), num_rows):
            yield pa.table({"name": self.ids[start : start + num_rows]})


def test_the_blend_set_is_read_from_the_training_table_in_its_order(tmp_path):
    folder, _, _ = make_run(tmp_path / "made", num_blend=6)
    ids = pq.read_table(folder.fold_plan)["id"].to_pylist()
    blend = [row_id for row_id in ids if row_id.startswith("b")]
    rows = open_blend_rows(folder, Rows(tuple(reversed(ids))))
    assert rows.check() == 6
    blocks = list(rows.read(4))
    assert [len(block) for block in blocks] == [4, 2]
    assert pa.concat_tables(blocks)["name"].to_pylist() == blend[::-1]
    with pytest.raises(
        RunError, match=r"train\.csv: 1 of 6 rows of the blend set are not there any more, such as 'b5'"
    ):
        open_blend_rows(folder, Rows(tuple(ids[:-1]))).check()


def test_without_a_blend_set_it_is_said_how_to_have_one(run):
    with pytest.raises(RunError, match=r"made has no blend set, .* folds\.blend_fraction=0\.1 or so, or --data FILE"):
        open_blend_rows(RunFolder(run), Rows(()))


@pytest.mark.parametrize(
    ("name", "is_own"), [("fold_0", True), ("fold_12", True), ("wide_fold_0", False), ("fold_2_fold_0", False)]
)
def test_a_model_of_a_further_member_is_not_taken_for_one_of_the_run_s_own_recipe(name, is_own):
    assert TrainedModel({}, {}, {}, name=name).is_own == is_own
