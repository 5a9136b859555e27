"""A finished run's recipe on all rows: its config, its steps, its plan and what is said of it."""

import dataclasses

import numpy as np
import pytest
from support.made_run import make_run

from ray_jobs.config.folds import FoldsConfig
from ray_jobs.driver.refit import build_config, describe_refit, find_steps, refit_run
from ray_jobs.errors import RunError
from ray_jobs.planning.folds import plan_folds
from ray_jobs.planning.leaks import find_leaks
from ray_jobs.planning.plan import build_plan_table, read_plan_table
from ray_jobs.results.stage import run_ensemble_stage
from ray_jobs.results.summary import build_summary
from ray_jobs.runs.files import read_json, write_json, write_parquet
from ray_jobs.runs.location import find_refit
from trainers.interface import Inventory, RowKeys


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, config, _ = make_run(tmp_path_factory.mktemp("runs") / "lots")
    for fold in range(3):
        status = read_json(folder.fold(fold).status)
        write_json(folder.fold(fold).status, status | {"best_step": 10 + 4 * fold, "step": 24})
    return folder, config


def test_it_takes_the_steps_that_the_folds_took_to_the_checkpoint_that_counts(run):
    folder, config = run
    assert find_steps(folder, config) == 14
    final = dataclasses.replace(config, ensemble=dataclasses.replace(config.ensemble, checkpoint="final"))
    assert find_steps(folder, final) == 24


def test_its_config_is_the_runs_but_for_the_rows_and_what_combines_models(run):
    folder, config = run
    refit = build_config(folder, config, 14)
    assert refit.trainer == config.trainer
    assert (refit.run.name, refit.run.storage) == ("lots_refit", str(folder.root.parent))
    assert (refit.folds.kind, refit.folds.count, refit.folds.last_step) == ("all", 1, 14)
    assert (refit.ensemble.checkpoint, refit.ensemble.metric) == ("final", config.ensemble.metric)
    assert find_refit("runs/lots/") == "runs/lots_refit"


def test_what_is_said_of_it_calls_the_out_of_fold_score_by_its_name(run):
    folder, config = run
    said = describe_refit(folder, config, 14)
    assert "for the 14 step(s) that its folds took on average to their best checkpoints" in said
    assert "its score is the out-of-fold one of that run's folds: MSLE on new rows: 0.15" in said


def test_every_row_trains_and_some_watch_without_being_called_leaks():
    ids = np.array([f"r{n}" for n in range(100)])
    keys = RowKeys(np.ones(100, np.uint64), np.array([], np.uint64))
    inventory = Inventory(ids, np.arange(100.0), "views", 0, "f", row_keys={"text": keys})
    plan = plan_folds(FoldsConfig(kind="all", count=1), inventory)
    assert len(plan.split(0).train_ids) == 100
    assert len(plan.split(0).validation_ids) == 5
    assert find_leaks(plan, inventory) == []
    again = read_plan_table(build_plan_table(plan), ids, 1, is_ordered=False)
    assert again.fingerprint() == plan.fingerprint()
    assert again.trains(0).all()
    plain = dataclasses.replace(plan, trains_all=False)
    assert plain.fingerprint() != plan.fingerprint()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "all"}, "folds.count=3: expected 1 with folds.kind=all; refit.py sets both"),
        ({"last_step": 5}, "folds.last_step=5: expected none with folds.kind=random"),
    ],
)
def test_only_refits_train_on_all_rows(fields, message):
    with pytest.raises(ValueError, match=message):
        FoldsConfig(**fields)


def test_a_refit_submits_and_has_no_score_of_its_own(tmp_path):
    folder, config, _ = make_run(tmp_path / "lots_refit", num_folds=1)
    config = build_config(folder, config, 14)
    folder.write_config(config)
    ids = [f"v0_{n}" for n in range(60)]
    inventory = Inventory(np.array(ids), np.arange(60.0), "price", 0, "f")
    write_parquet(folder.fold_plan, build_plan_table(plan_folds(config.folds, inventory)))
    folder.oof.unlink()
    stage = run_ensemble_stage(str(folder.root))
    assert stage.submission.created
    assert (stage.scores, stage.new_rows) == (None, None)
    assert not folder.oof.exists()
    assert build_summary(folder, config, stage, {}).outcome == "complete"


def test_a_refit_of_a_refit_and_of_an_unfinished_run_are_refused(run, tmp_path):
    folder, config = run
    unfinished, _, _ = make_run(tmp_path / "lots", waiting=(1,))
    with pytest.raises(RunError, match=r"folds \[1\] .* are not finished"):
        refit_run(unfinished, ["lots"])
    refit, _, _ = make_run(tmp_path / "lots_refit", num_folds=1)
    refit.write_config(build_config(folder, config, 14))
    with pytest.raises(RunError, match="is a refit: expected the run that it is of"):
        refit_run(refit, ["lots_refit"])
