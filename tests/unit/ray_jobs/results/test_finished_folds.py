"""Combining the folds that are finished, and what is said of damage in one that was."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.made_map_run import make_map_run
from support.made_run import make_run

from ensemble.config import EnsembleConfig
from ray_jobs.cli.console import open_console
from ray_jobs.config.recipes import RECIPES
from ray_jobs.errors import IncompleteRunError, RunFolderError
from ray_jobs.prediction.job import PredictRequest, check_request
from ray_jobs.reporting.html_report import write_report
from ray_jobs.reporting.outcome import print_outcome
from ray_jobs.results.checks import check_finished
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.runs.files import write_parquet
from ray_jobs.runs.json_files.summary import SubmissionRecord

FINISHED = EnsembleConfig(folds="finished")
WIDE = "wide model.hidden_dim=128"


@pytest.mark.parametrize("method", ["mean", "weighted_mean"])
def test_the_finished_folds_make_a_submission_that_says_so(tmp_path, capsys, method):
    ensemble = dataclasses.replace(FINISHED, method=method, interval=0.8)
    folder, config, summary = make_run(tmp_path / "run", num_folds=4, num_epochs=1, waiting=(1,), ensemble=ensemble)
    submission = summary.stage.submission.facts
    assert (submission["n_models"], submission["folds"], submission["num_folds"]) == (3, [0, 2, 3], 4)
    assert [model["fold"] for model in submission["model_weights"]] == [0, 2, 3]
    assert (submission["interval"]["kind"], submission["interval"]["guaranteed"]) == ("empirical", None)
    assert summary.outcome == "partial"
    models = [pq.read_table(folder.fold(fold).predictions("test", "best"))["prediction"] for fold in (0, 2, 3)]
    table = pq.read_table(folder.test_predictions)
    for number, model in enumerate(models):
        assert table[f"model_{number}"].to_pylist() == model.to_pylist()
    print_outcome(open_console(), folder, summary)
    write_report(folder, config, summary)
    for text in (" ".join(capsys.readouterr().out.split()), folder.report.read_text(), folder.readme.read_text()):
        assert "of folds 0, 2, 3 of 4 (the others are not finished)" in text


def test_without_it_the_way_is_named(tmp_path):
    folder, config, summary = make_run(tmp_path / "run", num_epochs=1, waiting=(1,))
    assert summary.stage.submission.reason.endswith("; ensemble.folds=finished combines the others")
    with pytest.raises(IncompleteRunError, match=r"folds \[1\] of .* or combine the others by ensemble.folds=finished"):
        check_finished(folder, config, ["main"])
    check_finished(folder, dataclasses.replace(config, ensemble=FINISHED), ["main"])
    _, _, summary = make_run(tmp_path / "none", num_epochs=1, waiting=(0, 1, 2), ensemble=FINISHED)
    assert summary.stage.submission == SubmissionRecord(reason="no fold is finished")


def test_of_members_the_folds_that_all_have_are_combined_and_compared_on_their_rows(tmp_path):
    ensemble = dataclasses.replace(FINISHED, method="greedy", interval=0.8)
    folder, config, _ = make_run(tmp_path / "run", num_folds=4, num_epochs=1, members=(WIDE,), ensemble=ensemble)
    shutil.rmtree(folder.fold(3).root)
    shutil.rmtree(folder.of_member("wide").fold(0).root)
    stage = run_ensemble_stage(str(folder.root))
    assert stage.submission.facts["folds"] == [1, 2]
    assert stage.combinations.num_rows == 120
    ids = pq.read_table(folder.honest_predictions)["id"].to_pylist()
    assert {row_id.partition("_")[0] for row_id in ids} == {"v1", "v2"}
    external = dataclasses.replace(ensemble, external=str(folder.oof))
    with pytest.raises(IncompleteRunError, match=r"combines folds 1, 2 of 4, and ensemble.external has predictions"):
        check_finished(folder, dataclasses.replace(config, ensemble=external), ["main", "wide"])
    write_parquet(folder.of_member("wide").own_fold_plan, pq.read_table(folder.own_fold_plan))
    with pytest.raises(IncompleteRunError, match=r"member wide, with a division of its own, has other rows in these"):
        check_finished(folder, config, ["main", "wide"])
    assert "member wide" in run_ensemble_stage(str(folder.root)).submission.reason


def test_new_rows_are_predicted_by_the_finished_folds(tmp_path):
    ensemble = dataclasses.replace(FINISHED, interval=0.8)
    folder, config, _ = make_run(tmp_path / "run", num_epochs=1, waiting=(1,), ensemble=ensemble)
    (tmp_path / "new" / "test").mkdir(parents=True)
    new = pd.DataFrame({"id": ["a", "b"], "title": "t", "description": "d", "date": "2025-01-01"})
    new.to_csv(tmp_path / "new" / "test.csv", index=False)
    work = check_request(folder, config, PredictRequest(tmp_path / "new", shows_models=True))
    assert work.folds == (0, 2)
    assert work.columns == ("ID", "price", "price_low", "price_high", "model_fold_0", "model_fold_2", "std")
    combined = work.combiner.combine(np.array(["a", "b"]), np.array([[5.0, 7.0], [5.0, 9.0]]), shows_models=False)
    assert combined[0][0] == pytest.approx(5.0)
    assert combined[1][0] <= 5.0 <= combined[2][0]


def test_maps_of_the_finished_folds_are_combined(tmp_path):
    folder, config, _ = make_map_run(tmp_path / "run")
    shutil.rmtree(folder.fold(0).root)
    folder.write_config(dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, folds="finished")))
    submission = run_ensemble_stage(str(folder.root)).submission
    assert submission.created, submission
    assert submission.facts["folds"] == list(range(1, config.folds.count))


def test_weights_of_fold_models_do_not_go_together_with_some_of_the_folds():
    ensemble = EnsembleConfig("weighted_mean", weights=(1.0, 2.0, 3.0), folds="finished")
    with pytest.raises(ValueError, match=r"ensemble.weights gives each of 3 folds one, and ensemble.folds=finished"):
        dataclasses.replace(RECIPES["clip_multimodal_small"](), ensemble=ensemble)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_called_damaged(tmp_path, damage):
    folder, config, _ = make_run(tmp_path / "run", num_epochs=1)
    (tensors,) = folder.fold(1).checkpoint("final").glob("*.safetensors")
    damage(tensors)
    for look in (lambda: check_finished(folder, config, ["main"]), lambda: run_ensemble_stage(str(folder.root))):
        with pytest.raises(
            RunFolderError, match=rf"{tensors.name} is missing or damaged; `kfold.py` trains fold 1 again"
        ):
            look()
