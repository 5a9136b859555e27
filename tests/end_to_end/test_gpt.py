"""A GPT on a real Ray: a K-fold run with its records and report, a kill in the middle of an epoch, new documents, and
texts that go on from a prompt."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.processes import REPOSITORY, clean_environment
from support.run_bits import describe_bits
from support.run_files import list_unknown_files

from docs import catalogue
from docs.catalogue import list_metrics
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines

pytestmark = pytest.mark.slow
NUM_FOLDS = 2
WORDS = """--config-name=gpt_pretraining_small folds.count=2 data.max_rows=240 tokenizer.vocabulary=400 model.width=16
    model.layers=1 model.context=64 training.packing=stream training.epochs=3 training.batch_size=4
    checkpoint.every_steps=10 run.dashboard=false tracking.wandb=disabled""".split()


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
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The home of a run, its folder, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    output = finish(start(home, *WORDS, "run.name=whole"))
    return home, RunFolder(home / "ray_results" / "whole"), output


def read_steps(folder):
    path = folder.fold_record(0)
    rows = read_lines(path) if path.exists() else []
    return sum("fold_0/train/loss_step" in row for row in rows)


def test_a_run_has_every_metric_of_the_catalogue_and_says_how_it_scored(finished):
    _, folder, output = finished
    assert "tokens by 400 byte pairs learned from the training documents" in output
    assert "nearly the same as another" in output
    assert "(window 64, stride 32)" in output
    for metrics in list_metrics("gpt_pretraining", "token_losses"):
        if metrics.run == "ensemble" or metrics.moment in (catalogue.SCORED, catalogue.SWEPT, catalogue.ENDED_EARLY):
            continue
        record = folder.fold_record(0) if metrics.run == "fold" else folder.submission_record
        recorded = {name for row in read_lines(record) for name in row}
        names = {name.replace("{i}", "0") for name in metrics.names} - {"fold_0/train/mfu"}  # of GPUs
        if metrics.moment != catalogue.WEIGHTED:
            assert names <= recorded, metrics.moment
    scores = read_json(folder.summary)["scores"]
    best, constant = scores["out_of_fold"]["best"], scores["out_of_fold"]["constant"]
    assert best["perplexity"] < constant["perplexity"]
    assert 0 < best["excess_nats"] < best["nats_per_token"]
    text = folder.summary.read_text()
    assert "hardest_documents" in text
    assert '"stride": 32' in text
    assert list_unknown_files(folder.root) == []
    assert "The hardest documents" in folder.report.read_text()


def test_a_run_that_is_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(finished):
    home, folder, _ = finished
    words, killed = [*WORDS, "run.name=killed"], RunFolder(folder.root.parent / "killed")
    per_epoch = read_steps(folder) // 3
    driver = start(home, *words)
    while read_steps(killed) < per_epoch + 12 and driver.poll() is None:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    assert per_epoch < read_steps(killed) < 3 * per_epoch
    output = finish(start(home, *words))
    assert re.search(r"fold \d training \(attempt 2\)", output)
    assert describe_bits(killed, NUM_FOLDS) == describe_bits(folder, NUM_FOLDS)


def test_new_documents_get_the_losses_of_the_run_s_own_test_documents(finished, tmp_path):
    home, folder, _ = finished
    output = tmp_path / "scored.csv"
    finish(
        start(
            home,
            "whole",
            "--data",
            str(folder.root / "made_data"),
            "--output",
            str(output),
            "--models",
            job="predict.py",
        )
    )
    with output.open() as file:
        lines = list(csv.DictReader(file))
    table = pq.read_table(folder.test_predictions).to_pydict()
    assert [line["ID"] for line in lines] == table["id"]
    np.testing.assert_allclose([float(line["nats"]) for line in lines], table["prediction"], rtol=1e-12)
    np.testing.assert_allclose([float(line["model_fold_1"]) for line in lines], table["model_1"], rtol=1e-12)


def test_the_ensemble_and_one_fold_go_on_from_a_prompt(finished):
    home, folder, _ = finished
    words = ("whole", "--prompt", "Once there", "--tokens", "20", "--count", "2", "--threads", "1", "--device", "cpu")
    texts = []
    for more in ((), (), ("--fold", "1"), ("--mixture", "log_mean")):
        output = finish(start(home, *words, *more, job="generate.py"))
        assert "written: " in output
        (place,) = re.findall(r"written: (\S+)", output)
        lines = (Path(place) / "texts.jsonl").read_text().splitlines()
        texts.append([json.loads(line)["text"] for line in lines])
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("Once there") for run in texts for text in run)
    assert sorted(path.name for path in folder.generated.iterdir()) == ["000", "001", "002", "003"]
    refused = start(home, "whole", "--temperature=-1", job="generate.py")
    assert "--temperature=-1: expected at least 0" in refused.communicate()[0]
    assert refused.returncode == 2
