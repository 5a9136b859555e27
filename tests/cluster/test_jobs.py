"""The job on a real cluster: folds added later, several workers a fold, failures, submission through Ray's job API."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import open_clip
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import mean_squared_log_error
from support.broken_pictures import break_on_decoding
from support.processes import RAY, submit

from ray_jobs.runs.record import read_lines
from trainers.clip_regression.network.encoders import build_clip

QUICK = ("training.epochs=2", "data.max_rows=120")


def read_events(run: Path) -> list[tuple[str, int]]:
    return [(row["event"], row["fold"]) for row in read_lines(run / "events.jsonl") if "fold" in row]


@pytest.mark.slow
def test_folds_are_added_later_and_a_deleted_fold_is_trained_again_alone(run_job, tmp_path):
    run = tmp_path / "run"
    words = (f"run.storage={tmp_path}", "run.name=run", *QUICK)
    first = run_job("kfold", *words, "folds.only=[1]")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "no submission: folds [0, 2] are not trained" in first.stdout
    assert len(pd.read_parquet(run / "oof.parquet")) == 40

    second = run_job("kfold", *words)
    assert second.returncode == 0, second.stdout + second.stderr
    assert [event for event in read_events(run) if event[0] == "FoldStarted"].count(("FoldStarted", 1)) == 1
    submission = (run / "submission_mean.csv").read_bytes()
    oof = pd.read_parquet(run / "oof.parquet")
    assert sorted(oof["fold"].unique()) == [0, 1, 2]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["scores"]["out_of_fold"]["best"]["msle"] == mean_squared_log_error(oof["target"], oof["prediction"])

    again = run_job("kfold", *words)
    assert again.returncode == 0
    assert "is finished: nothing to do" in again.stdout

    shutil.rmtree(run / "folds/2")
    third = run_job("kfold", *words)
    assert third.returncode == 0, third.stdout + third.stderr
    assert read_events(run)[-3:] == [("FoldLaunched", 2), ("FoldStarted", 2), ("FoldCompleted", 2)]
    assert (run / "submission_mean.csv").read_bytes() == submission

    changed = run_job("kfold", *words, "optimizer.lr=1e-2")
    assert changed.returncode == 2
    assert "optimizer.lr: 0.004 in the run, 0.01 now" in changed.stderr

    other = run_job("submit", str(run), "ensemble.method=median", "ensemble.space=raw")
    assert other.returncode == 0, other.stderr
    assert json.loads((run / "submission_median.json").read_text())["space"] == "raw"
    assert "no driver is at work" in run_job("status", str(run)).stdout


@pytest.mark.slow
def test_a_fold_of_two_workers_learns_what_one_worker_learns(cluster, run_job, tmp_path):
    """Same global batches: predictions agree up to rounding (dropout off, for each rank draws its own)."""
    words = (f"run.storage={tmp_path}", "folds.only=[0]", "model.dropout=0", *QUICK)
    for workers in (1, 2):
        done = run_job("kfold", *words, f"run.name=w{workers}", f"resources.workers_per_fold={workers}")
        assert done.returncode == 0, done.stdout + done.stderr
    (job,) = [job for job in cluster.ask("/api/jobs/") if job["metadata"].get("run") == "w1"]
    told = {"job_name": "w1", "run": "w1", "folder": str(tmp_path / "w1"), "recipe": "clip_multimodal_small"}
    assert told.items() <= job["metadata"].items()
    one, two = (pd.read_parquet(tmp_path / f"w{n}/folds/0/predictions/validation_final.parquet") for n in (1, 2))
    pd.testing.assert_series_equal(one["id"], two["id"])
    pd.testing.assert_series_equal(one["prediction_z"], two["prediction_z"], atol=2e-3, rtol=0)
    rows = [read_lines(tmp_path / f"w{n}/metrics/fold_0.jsonl") for n in (1, 2)]
    assert rows[1][0]["fold_0/setup/world_size"] == 2
    losses = [[row["fold_0/train/loss_step"] for row in part if "fold_0/train/loss_step" in row] for part in rows]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


@pytest.mark.slow
def test_folds_whose_memory_does_not_fit_side_by_side_train_one_after_another(cluster, run_job, tmp_path):
    fields = ("folds.count=2", "training.epochs=1", "data.max_rows=60", "resources.memory_per_fold=3GB")
    done = run_job("kfold", f"run.storage={tmp_path}", "run.name=large", *fields, "tracking.wandb=disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 fold(s) at once" in done.stdout
    assert "no GPU and 2.794 GiB of memory" in done.stdout
    events = ("FoldLaunched", "FoldStarted", "FoldCompleted")
    assert read_events(tmp_path / "large") == [(event, fold) for fold in (0, 1) for event in events]
    tasks = cluster.ask("/api/v0/tasks?limit=10000&detail=1")["data"]["result"]["result"]
    folds = [task for task in tasks if task["name"].startswith("large/fold")]
    assert [task["required_resources"]["memory"] for task in folds] == [3e9, 3e9]  # reserved in Ray


@pytest.fixture
def breaking_words(tmp_path, small_frame, write_data):
    """The newest row's picture breaks on decoding: of time-ordered folds only the last one reads it."""
    small_frame = small_frame.assign(date=[f"2020-01-{day + 1:02d}" for day in range(24)])
    root = write_data(small_frame)
    break_on_decoding(root / "train_val", "v23")
    return f"run.storage={tmp_path}", f"data.root={root}", "training.epochs=1", "folds.kind=time"


def test_one_failing_fold_does_not_stop_the_others_and_the_run_says_what_is_missing(run_job, tmp_path, breaking_words):
    failed = run_job("kfold", *breaking_words, "run.name=failed")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "fold 2 FAILED: rank 0: train_val.csv: id 'v23': its picture cannot be decoded" in failed.stdout
    assert "no submission: folds [2] are not trained" in failed.stdout
    summary = json.loads((tmp_path / "failed" / "summary.json").read_text())
    assert summary["outcome"] == "failed"
    assert [fold["state"] for fold in summary["folds"]] == ["completed", "completed", "failed"]
    assert summary["scores"]["out_of_fold"]["num_rows"] == 12


@pytest.mark.slow
def test_a_row_that_breaks_is_dropped_where_asked_and_folds_share_frozen_encoders(run_job, tmp_path, breaking_words):
    weights = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    clip = build_clip(open_clip.get_model_config("tiny-clip"))
    save_file({name: tensor.contiguous() for name, tensor in clip.state_dict().items()}, weights)
    frozen = (f"model.pretrained={weights}", "model.freeze=true")
    dropped = run_job("kfold", *breaking_words, "run.name=dropped", "data.on_bad_row=drop", *frozen)
    assert dropped.returncode == 0, dropped.stdout + dropped.stderr
    assert "no submission: the data has no test table" in dropped.stdout
    run = tmp_path / "dropped"
    assert '"id":"v23"' in (run / "folds/2/bad_rows.jsonl").read_text()
    rows = read_lines(run / "metrics/submission.jsonl")
    assert [row["ensemble/submission_created"] for row in rows if "ensemble/submission_created" in row] == [0]
    shared = list(run.glob("frozen_encoders-*.safetensors"))
    assert len(shared) == 1  # all folds share one copy
    best = next((run / "folds/0/checkpoints/best").glob("*.safetensors"))
    assert best.stat().st_size < shared[0].stat().st_size / 10


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on_where_it_was_and_ends_with_the_bits_of_a_local_one(
    cluster, submitted_run, run_job, tmp_path
):
    words = (f"run.storage={tmp_path}", *submitted_run.fields)
    assert "submission: " in submitted_run.output
    logs = [RAY, "job", "logs", "--address", cluster.dashboard, "stopped"]
    told = subprocess.run(logs, env=cluster.environment, capture_output=True, text=True, check=True).stdout
    assert "every fold goes on from its last checkpoint. The same command continues run submitted" in told
    events = read_lines(submitted_run.root / "events.jsonl")
    starts = {row["fold"]: row["step"] for row in events if row["event"] == "FoldStarted" and row["attempt"] == 2}
    assert min(starts.values()) >= 2  # of each fold some steps were done, and a point was written at each second one
    local = run_job("kfold", *words, "run.name=local")
    assert local.returncode == 0, local.stdout + local.stderr
    submissions = [(run / "submission_mean.csv").read_bytes() for run in (submitted_run.root, tmp_path / "local")]
    assert submissions[0] == submissions[1]

    relative = submit(cluster, "data.root=../data", *words)
    assert relative.returncode != 0
    assert "data.root=../data is a relative path" in relative.stdout + relative.stderr


def test_a_caller_without_the_token_is_refused(cluster):
    environment = {k: v for k, v in cluster.environment.items() if not k.startswith("RAY_AUTH")}
    done = submit(cluster, "--dry-run", environment=environment)
    assert done.returncode != 0


def test_other_package_versions_on_the_cluster_are_refused(run_job, tmp_path):
    """A driver that sees another version of a package than the nodes do."""
    fake = tmp_path / "site" / "safetensors-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: safetensors\nVersion: 0.0.1\n")
    done = run_job("kfold", f"run.storage={tmp_path}", *QUICK, PYTHONPATH=str(fake.parent))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "safetensors" in done.stderr
    assert "0.0.1 here" in done.stderr
