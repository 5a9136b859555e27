"""The second family on a real Ray: a K-fold run, its records and files, new pictures through it, and what a kill
changes."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.processes import REPOSITORY, clean_environment
from support.run_files import list_unknown_files

from docs import catalogue
from docs.catalogue import list_metrics
from ensemble.maps.combine import combine_maps
from ensemble.maps.files import read_maps
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

NUM_FOLDS, NUM_EPOCHS, STEPS_PER_EPOCH = 3, 3, 10
WORDS = (
    "--config-name=unet_segmentation_small",
    "--epochs",
    str(NUM_EPOCHS),
    "--features",
    "4",
    "8",
    "--log_batch_metrics",
)
WORDS += ("run.dashboard=false", "tracking.wandb=disabled", "ensemble.method=weighted_mean", "run.name=maps")
# Small radiographs of 90 people, and 10 that are only predicted.
LUNGS = """--config-name=unet_segmentation_small data.masks=masks_lung data.table=index.csv data.split_column=split data.size=96
    data.group_pattern=none folds.kind=random training.vertical_flip=false --epochs 30 --features 8 16 32 64 run.dashboard=false
    tracking.wandb=disabled""".split()


def start(home, *words, job="kfold.py"):
    return subprocess.Popen(
        [sys.executable, f"ray_jobs/{job}", *words],
        cwd=REPOSITORY,
        env=clean_environment(HOME=str(home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(driver):
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The home of a run, its folder, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    output = finish(start(home, *WORDS))
    return home, RunFolder(home / "ray_results" / "maps"), output


def test_a_run_has_every_metric_of_the_catalogue(finished):
    _, folder, output = finished
    assert "Dice on the rows that each fold validates" in output
    counts = {catalogue.STEP: NUM_EPOCHS * STEPS_PER_EPOCH, catalogue.EPOCH: NUM_EPOCHS}
    for metrics in list_metrics("unet_segmentation", "map"):
        if metrics.run == "ensemble" or metrics.moment in (catalogue.SCORED, catalogue.SWEPT, catalogue.ENDED_EARLY):
            continue
        for fold in range(NUM_FOLDS):
            names = [name.replace("{i}", str(fold)) for name in metrics.names]
            record = folder.fold_record(fold) if metrics.run == "fold" else folder.submission_record
            rows = [row for row in read_lines(record) if all(name in row for name in names)]
            if metrics.moment == catalogue.STEP:
                rows = [row for row in rows if f"fold_{fold}/train/loss_step" in row]
                assert [row["global_step"] for row in rows] == list(range(1, counts[catalogue.STEP] + 1))
            elif metrics.moment == catalogue.EPOCH:
                rows = [row for row in rows if f"fold_{fold}/epoch" in row]
            assert len(rows) == counts.get(metrics.moment, 1), names
    scores = read_json(folder.summary)["scores"]["out_of_fold"]
    assert scores["best"]["dice"] > scores["constant"]["dice"]


def test_the_folder_has_masks_overlays_csv_files_and_a_report(finished):
    _, folder, _ = finished
    assert list_unknown_files(folder.root) == []
    assert len(list((folder.masks / "out_of_fold").iterdir())) == 60
    for place in (folder.masks, folder.overlays, folder.disagreement):
        assert len(list((place / "test").iterdir())) == 12
    for fold in range(NUM_FOLDS):
        (epochs,), (batches,) = (
            list(folder.fold_csv(fold).glob(f"{kind}_metrics_*.csv")) for kind in ("epoch", "batch")
        )
        assert len(epochs.read_text().splitlines()) == 1 + NUM_EPOCHS
        assert len(batches.read_text().splitlines()) == 1 + NUM_EPOCHS * STEPS_PER_EPOCH
    assert "example_overlays" in folder.report.read_text()
    assert all(not fold["error"] for fold in read_json(folder.summary)["folds"])


def test_new_pictures_get_the_masks_that_the_run_gave_its_test_pictures(finished, tmp_path):
    """Of one of them no mask is known, and of another one of another size."""
    home, folder, _ = finished
    for kind in ("test_images", "test_masks"):
        shutil.copytree(folder.root / "made_data" / kind, tmp_path / kind)
    unknown, unfit, *_ = sorted((tmp_path / "test_masks").iterdir())
    unknown.unlink()
    Image.new("L", (3, 3)).save(unfit)
    output = finish(start(home, "maps", "--data", str(tmp_path), job="predict.py"))
    place = folder.predictions / f"{tmp_path.name}_weighted_mean"
    assert f"1 rows have a true mask that cannot be used, and were not scored; all are listed in {place}" in output
    assert sorted(path.name for path in place.iterdir()) == [
        "disagreement", "masks", "overlays", "summary.csv", "summary_bad_rows.csv",
    ]  # fmt: skip
    with (place / "summary.csv").open() as file:
        lines = {line["ID"]: line for line in csv.DictReader(file)}
    assert len(lines) == 12
    assert {row_id for row_id, line in lines.items() if not line["dice"]} == {unknown.stem, unfit.stem}
    assert all(0 <= float(line["dice"]) <= 1 for line in lines.values() if line["dice"])
    weights_M = read_json(folder.root / "submission_weighted_mean.json")["weights"]
    files = [read_maps(folder.fold(fold).predictions("test", "best")) for fold in range(NUM_FOLDS)]
    for models in zip(*files, strict=True):
        name = f"{models[0].row_id}.png"
        own, before = (np.asarray(Image.open(path / name)) for path in (place / "masks", folder.masks / "test"))
        stored = combine_maps(np.stack([one.probability_CHW for one in models]), "weighted_mean", np.array(weights_M))[
            0
        ]
        # The run combined what it had stored in 8 bits: only where that is all but a half may a mask differ.
        assert np.abs(stored[own != before] - 0.5).max(initial=0) < 1 / 256


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_ends_with_the_same_bits(finished):
    home, folder, _ = finished
    words = [word.replace("run.name=maps", "run.name=killed") for word in WORDS]
    driver = start(home, *words)
    for line in driver.stdout:
        if "training: epoch 1/" in line:
            break
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    finish(start(home, *words))
    killed = RunFolder(folder.root.parent / "killed")
    for fold in range(NUM_FOLDS):
        for name in ("best", "final"):  # the name of the tensors' file is a hash of them
            files = [
                {path.name for path in run.fold(fold).checkpoint(name).glob("model-*")} for run in (folder, killed)
            ]
            assert files[0] == files[1]
        steps = [[row["global_step"] for row in read_lines(run.fold_record(fold))] for run in (folder, killed)]
        assert steps[0] == steps[1]


@pytest.mark.slow
def test_one_run_without_folds_learns_the_same_with_two_workers(tmp_path):
    dice = []
    for workers in (1, 2):
        words = (
            "--config-name=unet_segmentation_small",
            "--epochs",
            "2",
            "--features",
            "4",
            "8",
            "run.dashboard=false",
        )
        words += (f"run.name=w{workers}", f"resources.workers_per_fold={workers}", "tracking.wandb=disabled")
        finish(start(tmp_path, *words, job="train.py"))
        folder = RunFolder(tmp_path / "ray_results" / f"w{workers}")
        (table,) = folder.metrics.glob("epoch_metrics_*.csv")
        assert len(table.read_text().splitlines()) == 1 + 2
        assert len(list(folder.log.glob("training_*.log"))) == 1
        rows = [row for row in read_lines(folder.fold_record(0)) if "fold_0/epoch" in row]
        assert rows[0]["fold_0/train/loss_epoch"] > rows[-1]["fold_0/train/loss_epoch"]
        dice.append(rows[-1]["fold_0/train/loss_epoch"])
    assert dice[0] == pytest.approx(dice[1], rel=0.1)  # batch normalisation sees each worker's share alone


@pytest.mark.slow
@pytest.mark.real_data
def test_lungs_are_found_on_real_radiographs(real_data_root, tmp_path):
    words = (*LUNGS, f"data.root={real_data_root / 'lung_xray'}", "run.name=lungs")
    finish(start(tmp_path, *words))
    scores = read_json(tmp_path / "ray_results" / "lungs" / "summary.json")["scores"]["out_of_fold"]
    assert scores["num_rows"] == 90
    assert scores["best"]["dice"] >= 0.9
    assert scores["final"]["dice"] >= 0.88
