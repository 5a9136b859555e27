"""A K-fold run whose data is in object storage, on a real server and a real Ray."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.local_context import LocalFoldContext
from support.object_server import BUCKET
from support.processes import REPOSITORY, clean_environment

from ray_jobs.runs.files import read_parquet
from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.worker import read_plan
from trainers.clip_regression.inventory import take_inventory, write_inputs
from trainers.clip_regression.rows.remote_data import SETTLED_S
from trainers.clip_regression.train import train_fold

QUICK = ("training.epochs=1", "folds.count=2", "tracking.wandb=disabled", "run.dashboard=false")


def kfold(home: Path, bucket_server, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "ray_jobs/kfold.py", *words],
        cwd=REPOSITORY,
        env=clean_environment(HOME=str(home), **bucket_server.environment),
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_a_run_on_objects_has_the_bits_of_the_same_data_in_a_folder(bucket_server, small_frame, write_data, tmp_path):
    """The folder's folds are trained here, without Ray; both trainings begin with nothing that was kept."""
    many = pd.concat([small_frame] * 3, ignore_index=True)
    many["id"] = [f"v{number:03d}" for number in range(72)]
    root = write_data(many, small_frame.tail(6).drop(columns="views"))
    bucket_server.put_folder(root, "small")
    done = kfold(
        tmp_path,
        bucket_server,
        f"data.root=s3://{BUCKET}/small/",
        "run.name=remote",
        "resources.cpus_per_fold=1",
        *QUICK,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "reading 72 objects of the data" in done.stdout
    pictures = [key for key in bucket_server.list_read() if key.startswith("small/") and key.endswith(".jpg")]
    assert len(set(pictures)) == 78
    assert len(pictures) < 2 * 78  # looked at and kept by Ray Data: the folds read the copies
    run = RunFolder(tmp_path / "ray_results" / "remote")
    config = run.read_config()
    assert config.trainer.data.root == f"s3://{BUCKET}/small"
    trained = [train_here(config, run, fold, root, tmp_path / "local" / str(fold)) for fold in (0, 1)]
    for fold, context in enumerate(trained):
        for (checkpoint, rows), local in context.predictions.items():
            remote = read_parquet(run.fold(fold).predictions(rows, checkpoint))
            assert remote["id"].to_pylist() == local.ids.tolist()
            np.testing.assert_array_equal(remote["prediction"].to_numpy(), local.prediction)
    submission = pd.read_csv(run.root / "submission_mean.csv")
    z_MN = np.log1p([context.predictions["best", "test"].prediction for context in trained])
    np.testing.assert_allclose(submission["views"], np.expm1(z_MN.mean(axis=0)), rtol=1e-12)


def train_here(config, run: RunFolder, fold: int, root: Path, folder: Path) -> LocalFoldContext:
    """What a fold of this run predicts if its data is in a folder."""
    trainer = replace(config.trainer, data=replace(config.trainer.data, root=str(root)))
    context = LocalFoldContext(folder)
    context.root.mkdir(parents=True)
    trainer, inventory = take_inventory(trainer, folder)
    write_inputs(trainer, inventory, context.inputs)
    train_fold(trainer, read_plan(run, config.folds.count, ordered=False).split(fold), context)
    return context


@pytest.mark.slow
def test_the_submission_is_the_same_byte_for_byte(bucket_server, small_frame, write_data, tmp_path):
    """Each run has a storage, and so a cache, of its own."""
    root = write_data(small_frame, small_frame.tail(6).drop(columns="views"))
    bucket_server.put_folder(root, "same")
    frozen = ("model.freeze=true", "model.allow_random_frozen=true", *QUICK)
    for name, place in (("remote", f"s3://{BUCKET}/same"), ("local", root)):
        done = kfold(
            tmp_path, bucket_server, f"run.name={name}", f"run.storage={tmp_path / name}", f"data.root={place}", *frozen
        )
        assert done.returncode == 0, done.stdout + done.stderr
    remote, local = (tmp_path / name / name for name in ("remote", "local"))
    for file in ("submission_mean.csv", "fold_plan.parquet"):
        assert (remote / file).read_bytes() == (local / file).read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(remote / "oof.parquet"), pd.read_parquet(local / "oof.parquet"))


@pytest.mark.slow
@pytest.mark.real_data
def test_real_lots_are_read_from_the_server_once(bucket_server, real_data_root, tmp_path, capsys):
    """200 lots and all that are to be predicted: a later start, and another run, read the listing and nothing else. (A
    request that a busy machine answers too late is sent again by pyarrow itself.)"""
    bucket_server.put_folder(real_data_root / "art_auction", "art")
    time.sleep(SETTLED_S + 1)
    words = (f"data.root=s3://{BUCKET}/art", "data.target=price", "data.max_rows=200", *QUICK)
    told = {}
    for start in ("art", "art again", "other"):
        read, began = len(bucket_server.list_read()), time.monotonic()
        done = kfold(tmp_path, bucket_server, *words, f"run.name={start.split()[0]}")
        assert done.returncode == 0, done.stdout + done.stderr
        seconds = time.monotonic() - began
        summary = json.loads((tmp_path / "ray_results" / start.split()[0] / "summary.json").read_text())
        told[start] = (
            seconds,
            summary["seconds"]["check"],
            *count_bytes(bucket_server, set(bucket_server.list_read()[read:])),
        )
    with capsys.disabled():
        print(
            "".join(
                f"\n{start}: {s:.1f} s, check {c:.1f} s, {n} objects, {b} bytes" for start, (s, c, n, b) in told.items()
            )
        )
    assert [num_objects for _, _, num_objects, _ in told.values()] == [2 + 200 + 544, 0, 0]


def count_bytes(bucket_server, keys: set[str]) -> tuple[int, int]:
    sizes = [bucket_server.files.get_file_info(f"{BUCKET}/{key}").size for key in keys]
    return len(keys), sum(sizes)
