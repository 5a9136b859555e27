"""A run whose members are of two families: a network of pictures and texts, and a user's function on columns of the
table."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.processes import REPOSITORY, clean_environment
from support.run_files import list_unknown_files

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import count_lines, read_lines

RIDGE = f"ridge own_trainer trainer.path={REPOSITORY / 'tests' / 'support' / 'ridge.py'}:train_fold"
WORDS = ("run.name=mixed", "run.dashboard=false", "folds.count=2", "training.batch_size=8", "model.token_dropout=0.1")


def start(home: Path, *words: str, job: str = "kfold") -> subprocess.Popen[bytes]:
    with (home / "driver.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, f"ray_jobs/{job}.py", *words], cwd=REPOSITORY, stdout=output, stderr=output,
            env=clean_environment(HOME=str(home), WANDB_MODE="disabled"),
        )  # fmt: skip


def finish(home: Path, *words: str, job: str = "kfold") -> str:
    """What a job has printed that ended well."""
    (home / "driver.log").unlink(missing_ok=True)
    code = start(home, *words, job=job).wait(300)
    said = (home / "driver.log").read_text()
    assert code == 0, said
    return said


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """48 rows to learn from and 10 to predict; the month says most about the views."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, num_rows in (("train_val", 48), ("test", 10)):
        months = rng.integers(1, 13, num_rows)
        frame = pd.DataFrame(
            {
                "id": [f"{name}{number:02}" for number in range(num_rows)],
                "title": [f"title {'x' * (number % 7)}" for number in range(num_rows)],
                "date": [f"2020-{month:02}-15" for month in months],
                "description": "a picture",
                "views": np.expm1(months / 2 + rng.normal(0, 0.2, num_rows)).round(),
            }
        )
        frame.drop(columns="views" if name == "test" else []).to_csv(root / f"{name}.csv", index=False)
        (root / name).mkdir()
        for row_id, month in zip(frame["id"], months, strict=True):
            Image.new("RGB", (32, 32), (20 * int(month), 90, 90)).save(root / name / f"{row_id}.jpg")
    return root


@pytest.fixture(scope="module")
def mixed_run(data, tmp_path_factory):
    """Such a run: what it printed, and its folder."""
    home = tmp_path_factory.mktemp("home")
    said = finish(
        home, *WORDS, f"data.root={data}", "training.epochs=3", f"members=[{RIDGE}]", "ensemble.method=simplex"
    )
    return said, RunFolder(home / "ray_results" / "mixed")


@pytest.mark.slow
def test_both_families_are_trained_on_the_same_folds_and_combined(mixed_run):
    said, run = mixed_run
    for words in ("2 members", "training main fold 0, main fold 1, ridge fold 0, ridge fold 1", "ridge.py:train_fold"):
        assert words in said.replace("training fold 0, fold 1", "training main fold 0, main fold 1")
    oof, plan = pd.read_parquet(run.oof), pd.read_parquet(run.fold_plan).set_index("id")["fold"]
    assert oof.groupby("member")["id"].nunique().to_dict() == {"main": 48, "ridge": 48}
    assert (oof["fold"] == plan.loc[oof["id"]].to_numpy()).all()
    assert not oof["in_sample"].any()
    summary = json.loads(run.summary.read_text())
    rows = {row["name"]: row["error"] for row in summary["combinations"]["rows"]}
    assert {"main", "ridge", "simplex, z space"} <= set(rows)
    assert rows["simplex, z space"] <= max(rows["main"], rows["ridge"])
    assert [model["member"] for model in summary["submission"]["model_weights"]] == ["main", "ridge"]
    assert len(pd.read_csv(run.submission("simplex"))) == 10
    assert list_unknown_files(run.root) == []
    assert json.loads(run.of_member("ridge").config.read_text())["family"] == "own_trainer"
    assert {row["fold"] for row in read_lines(run.of_member("ridge").events) if row["event"] == "FoldCompleted"} == {
        0,
        1,
    }
    assert "ridge" in run.report.read_text()


@pytest.mark.slow
def test_new_rows_are_predicted_by_the_models_of_both_as_the_run_s_own_test_rows(mixed_run, data):
    _, run = mixed_run
    finish(run.root.parents[1], "mixed", "--data", str(data), "--models", job="predict")
    found = pd.read_csv(run.predictions / f"{data.name}_simplex.csv")
    submission = pd.read_csv(run.submission("simplex"))
    assert list(found.columns) == ["ID", "views", "model_main", "model_ridge", "std"]
    assert found["ID"].tolist() == submission["ID"].tolist()
    np.testing.assert_allclose(found["views"], submission["views"], rtol=1e-5)
    alone = [pd.read_parquet(run.of_member("ridge").fold(fold).predictions("test", "best")) for fold in range(2)]
    expected = np.expm1(np.mean([np.log1p(one["prediction"]) for one in alone], axis=0))
    np.testing.assert_allclose(found["model_ridge"], expected, rtol=1e-6)


@pytest.mark.slow
def test_sweep_status_and_leaderboard_see_both(mixed_run):
    _, run = mixed_run
    home = run.root.parents[1]
    assert "combinations of 2 models on 48 rows" in finish(home, "mixed", job="sweep")
    assert "ridge 1" in finish(home, "mixed", job="status")
    board = finish(home, "mixed", job="leaderboard")
    assert "ridge" in board
    assert "ensemble (simplex)" in board


@pytest.mark.slow
def test_a_run_of_two_families_that_is_killed_goes_on_to_the_same_bits(data, tmp_path):
    """The driver is killed while the functions train, which cannot go on from where they are, and begin anew."""
    words = (*WORDS, f"data.root={data}", "training.epochs=12", "checkpoint.min_interval_s=0")
    words = (*words, f"members=[{RIDGE} my.pause_s=4]")
    homes = [tmp_path / name for name in ("whole", "killed")]
    for home in homes:
        home.mkdir()
    finish(homes[0], *words)
    run, killed = RunFolder(homes[1] / "ray_results" / "mixed"), start(homes[1], *words)
    deadline = time.monotonic() + 400
    try:
        while not (count_lines(run.fold_record(0)) > 20 and _has_started(run.of_member("ridge"))):
            assert killed.poll() is None, (homes[1] / "driver.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert not list(run.root.rglob("members/*/folds/*/manifest.json"))
    finish(homes[1], *words)
    whole = RunFolder(homes[0] / "ray_results" / "mixed")
    for path in (run.oof, run.submission("mean"), run.honest_predictions, run.test_predictions):
        assert path.read_bytes() == (whole.root / path.relative_to(run.root)).read_bytes(), path
    starts = [row["attempt"] for row in read_lines(run.of_member("ridge").events) if row["event"] == "FoldStarted"]
    assert max(starts) == 2


def _has_started(run: RunFolder) -> bool:
    return run.events.exists() and any(row["event"] == "FoldStarted" for row in read_lines(run.events))
