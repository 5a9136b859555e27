"""A diffusion transformer on a real Ray: a K-fold run, its records and files, what its models make, and what a kill
changes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.processes import REPOSITORY, clean_environment
from support.run_bits import describe_bits
from support.run_files import list_unknown_files

from docs import catalogue
from docs.catalogue import list_metrics
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

NUM_FOLDS, NUM_EPOCHS, STEPS_PER_EPOCH = 2, 2, 3
WORDS = f"""--config-name=pixel_diffusion_small --epochs {NUM_EPOCHS} --batch_size 25 --gradient_accumulation_steps 2
    data.max_rows=300 model.depth=2 model.width=16 training.ema_decays=[0.9,0.5] sampling.num_samples=60
    sampling.steps=3 sampling.every_epochs=1 sampling.grid=3 folds.count={NUM_FOLDS} folds.blend_fraction=0.1
    sampling.features=auto checkpoint.every_steps=1 run.dashboard=false tracking.wandb=disabled""".split()


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
    output = finish(start(home, *WORDS, "run.name=shapes"))
    return home, RunFolder(home / "ray_results" / "shapes"), output


@pytest.mark.slow
def test_a_run_has_every_metric_of_the_catalogue(finished):
    _, folder, output = finished
    assert "v-loss" in output
    counts = {catalogue.STEP: NUM_EPOCHS * STEPS_PER_EPOCH, catalogue.EPOCH: NUM_EPOCHS}
    not_here = (catalogue.SCORED, catalogue.SWEPT, catalogue.ENDED_EARLY, catalogue.WEIGHTED)  # `mean` has no weights
    for metrics in list_metrics("pixel_diffusion", "samples"):
        if metrics.run == "ensemble" or metrics.moment in not_here or any("/fid_" in name for name in metrics.names):
            continue  # a Fréchet distance wants 10,000 pictures
        for fold in range(NUM_FOLDS):
            names = [name.replace("{i}", str(fold)) for name in metrics.names]
            record = folder.fold_record(fold) if metrics.run == "fold" else folder.submission_record
            rows = [row for row in read_lines(record) if all(name in row for name in names)]
            if metrics.moment == catalogue.STEP:
                rows = [row for row in rows if f"fold_{fold}/train/loss_step" in row]
            elif metrics.moment == catalogue.EPOCH and f"fold_{fold}/samples/grid" not in names:
                rows = [row for row in rows if f"fold_{fold}/epoch" in row]
            assert len(rows) == counts.get(metrics.moment, 1), names


@pytest.mark.slow
def test_the_summary_and_the_folder_say_what_was_measured(finished):
    _, folder, _ = finished
    assert list_unknown_files(folder.root) == []
    summary = read_json(folder.summary)
    scores, whole = summary["scores"]["out_of_fold"], summary["scores"]["by_time"]
    assert scores["best"]["v_loss"] == pytest.approx(whole["model"][0]["v_loss"], rel=1e-12)
    assert scores["best"]["v_loss"] > whole["floor"][0]["v_loss"]
    assert scores["constant"]["v_loss"] == pytest.approx(whole["zero"][0]["v_loss"])
    combined = {row["kind"]: row["error"] for row in summary["combinations"]["rows"]}
    assert combined["combination"] < combined["member"]
    facts = json.loads((folder.root / "samples" / "samples.json").read_text())
    assert facts["agreement"]["same_noise"] < facts["agreement"]["other_noise"]
    assert facts["fold_1"]["num_samples"] == 60
    assert {"fold_0.png", "fold_1.png", "closest_pairs.png", "agreement.png"} <= {
        path.name for path in (folder.root / "samples").iterdir()
    }
    for name in ("loss_by_time", "samples", "samples_over_steps", "closest_pairs", "agreement_of_folds"):
        assert (folder.figures / f"{name}.png").is_file(), name


@pytest.mark.slow
def test_its_models_make_pictures_and_measure_new_ones_together(finished, tmp_path):
    home, folder, _ = finished
    output = finish(start(home, "shapes", "--num-samples", "4", "--label", "disc", job="generate.py"))
    assert "4 pictures of 16 x 16 pixels by the mean of 2 models: 3 steps" in output
    (place,) = folder.generated.iterdir()
    assert sorted(path.name for path in place.iterdir()) == [*(f"{n}_disc.png" for n in range(4)), "grid.png"]
    assert np.asarray(Image.open(place / "0_disc.png")).shape == (16, 16, 3)
    finish(start(home, "shapes", "--data", str(folder.root / "made_data"), job="predict.py"))
    (table,) = folder.predictions.rglob("*.csv")
    new = {line.split(",")[0]: float(line.split(",")[1]) for line in table.read_text().splitlines()[1:]}
    own = pq.read_table(folder.test_predictions).to_pandas().set_index("id")["prediction"]
    assert new.keys() == set(own.index)
    np.testing.assert_allclose([new[row_id] for row_id in own.index], own, rtol=1e-4)


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_within_an_epoch_ends_with_the_same_bits(finished):
    home, folder, _ = finished
    driver = start(home, *WORDS, "run.name=killed")
    for line in driver.stdout:
        if "training: epoch 1/" in line:
            break
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    finish(start(home, *WORDS, "run.name=killed"))
    killed = RunFolder(folder.root.parent / "killed")
    assert describe_bits(killed, NUM_FOLDS) == describe_bits(folder, NUM_FOLDS)
