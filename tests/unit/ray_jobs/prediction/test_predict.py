"""What predict.py finds out before anything is launched, how a run's models become one, and how its output is
written."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from support.made_run import make_run

from ensemble.config import EnsembleConfig
from ensemble.predictions import PredictionError, stack_models
from ray_jobs.cli.console import open_console
from ray_jobs.cli.progress import RowProgress
from ray_jobs.errors import IncompleteRunError, RunError, RunFolderError
from ray_jobs.predict import main
from ray_jobs.prediction import models
from ray_jobs.prediction.job import PredictRequest, _write, check_request, choose_block_rows, explain
from ray_jobs.prediction.models import describe_soup, read_models, settle_run
from ray_jobs.prediction.stream import _pack, _unpack
from ray_jobs.prediction.tables import open_table
from ray_jobs.runs.files import read_parquet, write_csv

WIDE, DEEP = "wide model.hidden_dim=128", "deep model.hidden_dim=32"


@pytest.fixture
def table(tmp_path):
    """A folder with rows to predict and a picture folder."""
    (tmp_path / "new" / "test").mkdir(parents=True)
    pd.DataFrame({"id": ["a", "b"], "title": "t", "description": "d", "date": "2025-01-01"}).to_csv(
        tmp_path / "new" / "test.csv", index=False
    )
    return tmp_path / "new"


def test_a_wish_is_checked_and_its_output_stands_below_the_run(tmp_path, table):
    folder, config, _ = make_run(tmp_path / "run", members=(WIDE,))
    work = check_request(folder, config, PredictRequest(table, shows_models=True))
    assert (work.num_rows, work.rows.path) == (2, table / "test.csv")
    assert work.output == folder.root / "predictions" / "new_mean.csv"
    assert work.columns == ("ID", "price", "model_main", "model_wide", "std")
    work = check_request(folder, config, PredictRequest(table / "test.csv", tmp_path / "x.parquet"))
    assert (work.output, work.columns) == (tmp_path / "x.parquet", ("ID", "price"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (PredictRequest("none"), "no such file"),
        (PredictRequest("new", "out.txt"), "--output=.*out.txt: expected a file that ends in .csv or .parquet"),
        (PredictRequest("new", "new"), "--output=.*new: expected a file"),
        (PredictRequest("new/test.csv", "new/test.csv"), "is the table to be predicted"),
        (
            PredictRequest("new", "new/test.csv/x.csv"),
            "test.csv is no folder that can be written to; --output=.*x.csv: ",
        ),
    ],
)
def test_a_request_that_cannot_be_is_refused(tmp_path, table, asked, message):
    folder, config, _ = make_run(tmp_path / "run")
    output = asked.output and tmp_path / asked.output
    with pytest.raises((RunError, ValueError), match=message):
        check_request(folder, config, PredictRequest(tmp_path / asked.place, output))


def test_the_mean_of_weights_predicts_as_one_model_where_folds_begin_alike(tmp_path, table, monkeypatch):
    folder, config, _ = make_run(tmp_path / "run", num_blend=4, members=(WIDE,), ensemble=EnsembleConfig("simplex"))
    request = PredictRequest(table, is_soup=True)
    with pytest.raises(RunError, match=r"--soup: the folds of run, .* began with different weights or with unknown"):
        check_request(folder, config, request)
    monkeypatch.setattr(type(config.trainer), "BEGINS_ALIKE", True, raising=False)
    work = check_request(folder, config, request)
    assert work.output == folder.root / "predictions" / "new_soup.csv"
    assert (work.is_soup, work.folds, work.config.combined_members) == (True, (0, 1, 2), ["main"])
    found = work.combiner.combine(["a", "b"], np.array([[3.0, 5.0]]), shows_models=False)
    np.testing.assert_allclose(found, [[3.0, 5.0]])
    said = describe_soup(folder, work.config)
    assert said == "one model, the mean of the weights of 3 fold models (best checkpoints). Nothing has scored it"
    single, own, _ = make_run(tmp_path / "single", num_folds=1)
    with pytest.raises(RunError, match="--soup: single has 1 fold models to combine: expected two or more"):
        check_request(single, own, request)
    with pytest.raises(RunError, match="--refit and --soup: expected one of both"):
        main([str(folder.root), "--data", str(table), "--refit", "--soup"])


@pytest.mark.parametrize(
    ("num_blend", "message"),
    [(4, "`evaluate.py run --blend` scores it on 4 rows that no fold has seen"), (0, "No training row scores it")],
)
def test_what_scores_a_mean_of_weights_is_said(tmp_path, monkeypatch, num_blend, message):
    folder, config, _ = make_run(tmp_path / "run", num_blend=num_blend)
    monkeypatch.setattr(models, "load_evaluate_module", lambda family: family)
    assert message in describe_soup(folder, config)


def test_a_relative_path_in_a_submitted_job_is_refused(tmp_path, table, monkeypatch):
    folder, config, _ = make_run(tmp_path / "run")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="--data=new is a relative path"):
        check_request(folder, config, PredictRequest(table.relative_to(tmp_path)))


def test_a_run_whose_models_are_not_there_or_not_whole_is_refused(tmp_path, table):
    folder, config, _ = make_run(tmp_path / "waiting", waiting=(1,))
    with pytest.raises(IncompleteRunError, match=r"folds \[1\] of .* are not finished"):
        check_request(folder, config, PredictRequest(table))
    folder, config, _ = make_run(tmp_path / "damaged", members=(WIDE,))
    damaged = next(folder.of_member("wide").fold(2).checkpoint("best").glob("*.safetensors"))
    damaged.write_bytes(b"nono")
    with pytest.raises(RunFolderError, match=r"is missing or damaged; `kfold.py` trains wide fold 2 again"):
        check_request(folder, config, PredictRequest(table))
    folder, config, _ = make_run(tmp_path / "external", members=(WIDE,))
    object.__setattr__(config.ensemble, "external", "other.parquet")
    with pytest.raises(RunError, match="members from a file cannot predict new rows"):
        check_request(folder, config, PredictRequest(table))


def test_a_checkpoint_may_share_tensors_with_a_file_beside_it_only(tmp_path):
    folder, config, _ = make_run(tmp_path / "run")
    path = folder.fold(0).checkpoint("best") / "checkpoint.json"
    values = json.loads(path.read_text())
    del values["checksum"]
    for place, message in (
        ({"path": "../../etc/passwd", "sha256": "0"}, "expected <name>-<checksum>.safetensors"),
        ({"path": f"frozen_encoders-{'0' * 12}.safetensors", "sha256": "0"}, "is missing or damaged"),
    ):
        values["description"]["shared_tensors"] = place
        path.write_text(json.dumps(values))
        with pytest.raises(RunFolderError, match=message):
            read_models(folder, config, range(3))


@pytest.mark.parametrize(
    ("members", "ensemble"),
    [
        ((), EnsembleConfig()),
        ((), EnsembleConfig("median", "raw", checkpoint="final")),
        ((), EnsembleConfig("weighted_mean")),
        ((), EnsembleConfig("weighted_mean", weights=(1, 2, 3))),
        ((WIDE, DEEP), EnsembleConfig("simplex")),
        ((WIDE, DEEP), EnsembleConfig("ridge", fold_method="median")),
        ((WIDE, DEEP), EnsembleConfig("weighted_mean", "raw", members=("main", "deep"))),
        ((), EnsembleConfig(interval=0.8)),
        ((WIDE, DEEP), EnsembleConfig("simplex", interval=0.8)),
    ],
)
def test_the_runs_ensemble_combines_blocks_as_its_submission_combines_all_rows(tmp_path, members, ensemble):
    folder, config, _ = make_run(tmp_path / "run", members=members, ensemble=ensemble)
    of_members = [folder.of_member(name) for name in config.combined_members]
    paths = [own.fold(fold).predictions("test", ensemble.checkpoint) for own in of_members for fold in range(3)]
    ids, predictions_FN = stack_models([read_parquet(path) for path in paths])
    run = settle_run(folder, config)
    parts = [run.combine(ids[rows], predictions_FN[:, rows], shows_models=True) for rows in (slice(7), slice(7, 40))]
    names = run.list_columns("price", shows_models=True)
    found = dict(zip(names, np.concatenate(parts, axis=1), strict=True))
    submitted = pd.read_csv(folder.submission(ensemble.method))
    assert list(submitted.columns[1:]) == list(run.list_columns("price", shows_models=False))
    for name in submitted.columns[1:]:
        np.testing.assert_allclose(found[name], submitted[name], rtol=1e-12)
    known = pd.read_parquet(folder.test_predictions)
    for number, name in enumerate(run.names):
        np.testing.assert_allclose(found[f"model_{name}"], known[f"model_{number}"], rtol=1e-12)
    np.testing.assert_allclose(found["std"], known["std"], rtol=1e-12)
    predictions_FN[-1, 5] = np.nan
    last = config.combined_members[-1]
    with pytest.raises(PredictionError, match=f"member {last}, fold 2: the prediction of id 't5' is not finite"):
        run.combine(ids, predictions_FN, shows_models=False)


def test_blocks_are_whole_batches_and_all_workers_have_some():
    assert choose_block_rows(120, 3, 256) == 256
    assert choose_block_rows(3000, 3, 64) == 1024
    assert choose_block_rows(300, 3, 64) == 128
    assert choose_block_rows(10**6, 3, 768) == 1536


def test_a_block_is_one_row_of_ray_data_and_comes_back_as_it_was():
    block = pa.table({"id": ["a", "b"], "text": ["", None], "number": [1.0, np.pi]})
    packed = _pack(block)
    assert packed.num_rows == 1
    assert _unpack(packed) == block
    assert _unpack(pa.concat_tables([packed, packed]).slice(1, 1)) == block


def test_a_table_that_changes_while_it_is_predicted_gives_no_output(tmp_path, table):
    folder, config, _ = make_run(tmp_path / "run")
    work = check_request(folder, config, PredictRequest(table))
    blocks = [pa.table({"0": ["a", "b", "c"], "1": [1.0, 2.0, 3.0], "problem": [None, "no test/b.jpg", None]})]
    with pytest.raises(RunError, match=r"had 2 rows when it was checked and 3 when it was read"):
        _write(work, iter(blocks), RowProgress(open_console(), 2))
    assert not any(folder.predictions.iterdir())
    assert _write(replace(work, num_rows=3), iter(blocks), RowProgress(open_console(), 3)) == 1
    assert (folder.predictions / "new_mean.csv").read_text() == "ID,price\na,1.0\nb,2.0\nc,3.0\n"
    assert (folder.predictions / "new_mean_bad_rows.csv").read_text() == "id,problem\nb,no test/b.jpg\n"


def test_an_error_of_a_worker_is_told_without_rays_words():
    class TaskError(Exception):
        cause = PredictionError("model 0 fails\nFailed to apply UDF transform after 1/1 attempts")

    class ActorDiedError(Exception):
        pass

    assert explain(TaskError()) == "model 0 fails"
    assert "resources.max_folds_at_once=1" in explain(ActorDiedError("The actor died."))


@pytest.mark.filterwarnings("error")
def test_what_is_not_known_is_an_empty_cell(tmp_path):
    with open_table(tmp_path / "t.csv", ["id", "dice"]) as write:
        write(pa.table({"0": ["a", "b"], "1": pa.array([None, 0.5], pa.float64())}))
    assert (tmp_path / "t.csv").read_text() == "id,dice\na,\nb,0.5\n"


def test_a_streamed_table_is_the_table_written_at_once_and_a_failed_one_leaves_nothing(tmp_path):
    numbers = np.expm1(np.random.default_rng(0).normal(5, 3, 10))
    rows = pa.table({"id": [f"v,{n}" for n in range(10)], "prediction": numbers})
    for name in ("t.csv", "t.parquet"):
        with open_table(tmp_path / name, ["ID", "=price"]) as write:
            write(rows.slice(0, 6))
            assert not (tmp_path / name).exists()
            write(rows.slice(6))
    write_csv(
        tmp_path / "w.csv",
        ["ID", "=price"],
        [[i, repr(float(v))] for i, v in zip(rows["id"].to_pylist(), numbers, strict=True)],
    )
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "w.csv").read_bytes()
    assert read_parquet(tmp_path / "t.parquet")["=price"].to_pylist() == numbers.tolist()

    def fail(name):
        with open_table(tmp_path / "no" / name, ["ID", "price"]) as write:
            write(rows)
            raise KeyboardInterrupt

    for name in ("t.csv", "t.parquet"):
        with pytest.raises(KeyboardInterrupt):
            fail(name)
    assert list((tmp_path / "no").iterdir()) == []


def test_object_storage_is_refused_by_name_with_what_to_do_instead(tmp_path):
    folder, _, _ = make_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"--data=s3://lab/new.csv: .* not in object storage; copy the table"):
        main([str(folder.root), "--data", "s3://lab/new.csv"])
