"""`python ray_jobs/kfold.py` as a newcomer types it: nothing is running, nothing is given."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_squared_log_error
from support.processes import REPOSITORY, clean_environment
from support.run_files import list_unknown_files

from ensemble.predictions import SCHEMA
from ray_jobs.runs.record import read_lines


def kfold(home: Path, *words: str, job: str = "kfold", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the job with its own HOME, so that `~/ray_results` is there, and from that folder."""
    return subprocess.run(
        [sys.executable, REPOSITORY / "ray_jobs" / f"{job}.py", *words],
        cwd=home,
        env=clean_environment(HOME=str(home), **environment),
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )


def find_by_home(home: Path) -> list[str]:
    """Command lines of the processes that have this HOME."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"HOME={home}\0".encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The embedded default, run once for this module: its output and its folder."""
    home = tmp_path_factory.mktemp("home")
    done = kfold(home)
    assert done.returncode == 0, done.stdout + done.stderr
    return done, home / "ray_results" / "clip_multimodal_small"


def test_the_default_trains_three_folds_and_beats_the_constant_predictor(default_run):
    done, run = default_run
    summary = json.loads((run / "summary.json").read_text())
    overall = summary["scores"]["out_of_fold"]
    assert summary["outcome"] == "complete"
    assert overall["num_rows"] == 600
    assert overall["best"]["msle"] <= 0.6 * overall["constant"]["msle"]
    for word in ("dashboard: http://", "out of fold", "constant", "submission: ", str(run)):
        assert word in done.stdout
    assert "raylet" not in done.stdout + done.stderr


def test_the_folds_trained_side_by_side(default_run):
    _, run = default_run
    times = [json.loads((run / f"folds/{i}/status.json").read_text()) for i in range(3)]
    assert max(t["started"] for t in times) < min(t["finished"] for t in times)


def test_the_run_folder_keeps_its_contract(default_run):
    _, run = default_run
    expected = ["config.json", "fold_plan.parquet", "fold_info.csv", "events.jsonl", "oof.parquet", "summary.json"]
    expected += ["README.md", "submission_mean.csv", "submission_mean.json", "metrics/ensemble.jsonl"]
    expected += ["metrics/submission.jsonl", *(f"metrics/fold_{i}.jsonl" for i in range(3))]
    expected += ["report.html", "figures/loss_of_all_folds.png", "wandb/ids.json"]
    for fold in range(3):
        for checkpoint in ("best", "final"):
            expected.append(f"folds/{fold}/checkpoints/{checkpoint}/checkpoint.json")
            expected += [f"folds/{fold}/predictions/{r}_{checkpoint}.parquet" for r in ("validation", "test")]
    assert [name for name in expected if not (run / name).is_file()] == []
    assert list_unknown_files(run) == []
    assert not list(run.rglob("*.tmp"))
    assert not (run / ".ray_train").exists()
    plan = pd.read_parquet(run / "fold_plan.parquet")
    assert list(plan.columns[:3]) == ["id", "repeat", "fold"]
    info = pd.read_csv(run / "fold_info.csv")
    assert info.to_dict("list") == {"fold": [0, 1, 2], "train_size": [400] * 3, "val_size": [200] * 3}


def test_every_out_of_fold_row_was_predicted_by_the_model_that_did_not_see_it(default_run):
    _, run = default_run
    oof, plan = pd.read_parquet(run / "oof.parquet"), pd.read_parquet(run / "fold_plan.parquet")
    assert list(oof.columns) == SCHEMA.names
    assert oof["id"].is_unique
    assert not oof["in_sample"].any()
    merged = oof.merge(plan, on="id", suffixes=("", "_planned"))
    assert len(merged) == len(plan) == 600
    assert (merged["fold"] == merged["fold_planned"]).all()
    summary = json.loads((run / "summary.json").read_text())
    assert mean_squared_log_error(oof["target"], oof["prediction"]) == summary["scores"]["out_of_fold"]["best"]["msle"]


def test_the_submission_is_the_mean_of_logs_of_the_folds_test_predictions(default_run):
    _, run = default_run
    submission = pd.read_csv(run / "submission_mean.csv")
    assert list(submission.columns) == ["ID", "views"]
    models = [pd.read_parquet(run / f"folds/{i}/predictions/test_best.parquet").set_index("id") for i in range(3)]
    stacked = np.stack([np.log1p(model["prediction"].loc[submission["ID"]]) for model in models])
    np.testing.assert_allclose(submission["views"], np.expm1(stacked.mean(axis=0)))
    info = json.loads((run / "submission_mean.json").read_text())
    assert (info["n_models"], info["checkpoints"], info["space"], info["test_samples"]) == (3, "best", "z", 120)


def test_each_modality_of_the_made_data_matters_to_the_trained_models(default_run):
    _, run = default_run
    last = [row for row in read_lines(run / "metrics/fold_0.jsonl") if "fold_0/weights/image" in row][-1]
    weights = [last[f"fold_0/weights/{name}"] for name in ("image", "text", "age")]
    assert sum(weights) == pytest.approx(1)
    assert min(weights) > 0.2


def test_bad_input_ends_before_anything_is_launched(tmp_path):
    began = time.monotonic()
    done = kfold(tmp_path, "--config-name=clip_multimodal", "data.root=/no/such/folder", "model.pretrained=none",
                 "model.freeze=false")  # fmt: skip
    assert done.returncode == 2
    assert "data.root=/no/such/folder: no such folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ray_results").exists()
    assert time.monotonic() - began < 30
    deadline = time.monotonic() + 10  # Ray was being started while the data was looked for
    while find_by_home(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not find_by_home(tmp_path)


def test_an_address_where_nobody_answers_is_refused_at_once(tmp_path):
    began = time.monotonic()
    done = kfold(tmp_path, RAY_ADDRESS="127.0.0.1:9")
    assert done.returncode == 2
    assert "RAY_ADDRESS=127.0.0.1:9: no Ray cluster answers there" in done.stderr
    assert time.monotonic() - began < 30


def test_a_dry_run_shows_config_and_plan_and_writes_nothing(tmp_path):
    done = kfold(tmp_path, "--dry-run", "folds.count=4")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[: done.stdout.rindex("}") + 1])["folds"]["count"] == 4
    assert "fold 3: 450 rows train, 150 validate" in done.stdout
    assert not (tmp_path / "ray_results").exists()


def test_rows_that_are_the_same_are_told_before_training_and_listed(default_run):
    """Among the made-up titles some are drawn twice."""
    done, run = default_run
    assert done.stdout.index("leak: 20 of 600 validation rows") < done.stdout.index("out of fold")
    listed = pd.read_csv(run / "leaks.csv")
    assert list(listed.columns) == ["kind", "fold", "id", "other_id", "where"]
    assert listed["where"].value_counts().to_dict() == {"fold": 20, "test": 4}
    for name in ("provenance.json", "summary.json"):
        leaks = json.loads((run / name).read_text())["leaks"]
        assert leaks["text"] == {"validation_rows": 20, "blend_rows": 0, "test_rows": 4}
        assert leaks["picture"] == {"validation_rows": 0, "blend_rows": 0, "test_rows": 0}
    assert "20 validation rows share their text" in (run / "README.md").read_text()
    assert "20 validation rows share their text" in (run / "report.html").read_text()


def test_new_rows_are_predicted_as_the_run_predicts_its_test_rows(default_run):
    """The run's own test rows, and once more those of them that have no picture any more, under other ids."""
    run = default_run[1]
    home, new, table = run.parents[1], run.parent / "new", pd.read_csv(run / "made_data" / "test.csv")
    shutil.copytree(run / "made_data" / "test", new / "test")
    pd.concat([table, table.head(3).assign(id=["x0", "x1", "x2"])]).to_csv(new / "rows.csv", index=False)
    done = kfold(
        home, run.name, "--data", str(new / "rows.csv"), "--models", "resources.max_folds_at_once=1", job="predict"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "123 rows of",
        "3 rows have a picture, a date or a number that cannot be used",
        "predicted 123 rows in",
    ):
        assert words in done.stdout
    assert done.stderr == ""
    found, submission = pd.read_csv(run / "predictions" / "rows_mean.csv"), pd.read_csv(run / "submission_mean.csv")
    assert list(found.columns) == ["ID", "views", "model_fold_0", "model_fold_1", "model_fold_2", "std"]
    assert found["ID"].tolist() == [*table["id"], "x0", "x1", "x2"]
    np.testing.assert_allclose(found["views"].head(120), submission["views"], rtol=1e-6)
    assert np.isfinite(found["views"]).all()
    assert (found["views"].tail(3).to_numpy() != submission["views"].head(3).to_numpy()).all()
    listed = pd.read_csv(run / "predictions" / "rows_mean_bad_rows.csv")
    assert listed["id"].tolist() == ["x0", "x1", "x2"]
    assert listed["problem"].str.contains("no test/x").all()
    assert sorted(path.name for path in (run / "predictions").iterdir()) == ["rows_mean.csv", "rows_mean_bad_rows.csv"]


@pytest.mark.slow
def test_a_member_that_is_added_later_trains_alone_and_is_combined(default_run):
    """The last one with this run, which it changes."""
    run = default_run[1]
    home = run.parents[1]
    before = {path: path.stat().st_mtime_ns for path in run.glob("folds/*/predictions/*")}
    member = "members=[words training.epochs=2 data.train_pictures= data.test_pictures=]"
    done = kfold(home, member, "ensemble.method=simplex", "run.dashboard=false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "training words fold 0, words fold 1, words fold 2" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in run.glob("folds/*/predictions/*")} == before
    summary = json.loads((run / "summary.json").read_text())
    assert {name: len(scores["folds"]) for name, scores in summary["members"].items()} == {"main": 3, "words": 3}
    rows = {row["name"]: row for row in summary["combinations"]["rows"]}
    assert rows["main"]["error"] == pytest.approx(summary["scores"]["out_of_fold"]["best"]["msle"])
    assert rows["words"]["error"] > rows["simplex, z space"]["error"]
    assert [model["member"] for model in summary["submission"]["model_weights"]] == ["main", "words"]
    assert sorted(path.name for path in run.glob("members/words/metrics/*.jsonl")) == [
        "ensemble.jsonl", "fold_0.jsonl", "fold_1.jsonl", "fold_2.jsonl",
    ]  # fmt: skip
    assert len(list(run.glob("wandb/*words_fold2/*.wandb"))) == 1
    again = kfold(home, member, "ensemble.method=simplex", "run.dashboard=false")
    assert "is finished: nothing to do" in again.stdout
    board = subprocess.run(
        [sys.executable, "ray_jobs/leaderboard.py", str(run)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ensemble (simplex)" in board.stdout


@pytest.mark.slow
@pytest.mark.real_data
def test_real_data_with_another_target_reaches_its_mark(real_data_root, tmp_path):
    """2,178 art auction lots: the constant predictor scores MSLE 1.33, the date alone 1.03, ridge on the text 0.69."""
    words = (f"data.root={real_data_root / 'art_auction'}", "data.target=price", "training.epochs=10")
    done = kfold(tmp_path, "run.name=art", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "ray_results" / "art"
    overall = json.loads((run / "summary.json").read_text())["scores"]["out_of_fold"]
    assert overall["num_rows"] == 2178
    assert overall["constant"]["msle"] == pytest.approx(1.327, abs=0.005)
    assert overall["best"]["msle"] <= 0.85
    assert overall["final"]["msle"] <= 0.85
    leaks = json.loads((run / "summary.json").read_text())["leaks"]
    assert leaks["picture"] == {
        "validation_rows": 6,
        "blend_rows": 0,
        "test_rows": 0,
    }  # lots that came up for auction again
    assert leaks["text"]["test_rows"] == 18
    assert len(pd.read_csv(run / "submission_mean.csv")) == 544
