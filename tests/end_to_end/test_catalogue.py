"""Every metric of the catalogue, walked against a real run that was killed, in its records and in W&B."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pandas as pd
import pytest
from support.processes import REPOSITORY, clean_environment
from support.wandb_server import StandInServer

from docs import catalogue
from docs.catalogue import Metrics, list_metrics
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from ray_jobs.tracking.csv_files import BATCH_COLUMNS, EPOCH_COLUMNS
from ray_jobs.tracking.wandb_runs import list_wandb_runs

NUM_FOLDS, NUM_EPOCHS, STEPS_PER_EPOCH = 3, 6, 6
WORDS = (f"training.epochs={NUM_EPOCHS}", "run.dashboard=false", "ensemble.method=weighted_mean")
WORDS += ("tracking.log_batch_metrics=true", "tracking.log_interval=3", "tracking.name=night")
WORDS += ("folds.blend_fraction=0.1", "ensemble.interval=0.9")


def start(environment):
    return subprocess.Popen(
        [sys.executable, "ray_jobs/kfold.py", "run.name=killed", *WORDS],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory):
    """A run whose driver got SIGKILL in training and was started again at once, and a sweep over its blend set; W&B was
    online all the time."""
    home = tmp_path_factory.mktemp("home")
    with StandInServer() as server:
        environment = clean_environment(HOME=str(home), WANDB_BASE_URL=server.url, WANDB_API_KEY="0" * 40)
        first = start(environment)
        for line in first.stdout:
            if "training: epoch 3/" in line:
                break
        first.send_signal(signal.SIGKILL)
        driver = start(environment)
        first.communicate()
        output, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, output
        folder = RunFolder(home / "ray_results" / "killed")
        command = [sys.executable, "ray_jobs/sweep.py", "killed"]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield folder, server, output + done.stdout


def records(folder):
    """{fold 0: [rows], ..., ensemble: [rows], submission: [rows]}."""
    keys = [*(f"fold_{i}" for i in range(NUM_FOLDS)), "ensemble", "submission"]
    return {key: read_lines(folder.metrics / f"{key}.jsonl") for key in keys}


def expand(metrics: Metrics) -> list[tuple[str, list[str]]]:
    """(record, names) of each row that has to have them: one for each fold where the names have {i}."""
    if not any("{i}" in name for name in metrics.names):
        return [(metrics.run, list(metrics.names))]
    return [
        (f"fold_{i}" if metrics.run == "fold" else metrics.run, [name.replace("{i}", str(i)) for name in metrics.names])
        for i in range(NUM_FOLDS)
    ]


# How often a row with these names has to be there; None: at least once.
COUNTS = {
    catalogue.START: 1, catalogue.STEP: NUM_EPOCHS * STEPS_PER_EPOCH, catalogue.EPOCH: NUM_EPOCHS, catalogue.BEST: 1,
    catalogue.END: 1, catalogue.STARTED: 1, catalogue.FOLD_STARTED: None, catalogue.FOLD_COMPLETED: 1,
    catalogue.ALL_COMPLETED: 1, catalogue.SUBMITTED: 1, catalogue.WEIGHTED: 1, catalogue.REPORTED: None,
    catalogue.SCORED: 1, catalogue.WITH_INTERVAL: 1, catalogue.SWEPT: 1,
}  # fmt: skip


# No fold of this run ends early, and each member is one training.
NOT_HERE = (catalogue.ENDED_EARLY, catalogue.WITH_SEEDS)
OWN = [one for one in list_metrics("clip_regression", "number") if one.moment not in NOT_HERE]


@pytest.mark.parametrize("metrics", OWN, ids=lambda metrics: f"{metrics.names[0]} {metrics.moment}")
def test_a_metric_is_recorded_at_its_moment_and_reaches_wandb(killed_run, metrics):
    folder, server, _ = killed_run
    runs = {run.key: server.runs[run.id] for run in list_wandb_runs(folder, folder.read_config())}
    for key, names in expand(metrics):
        rows = [row for row in records(folder)[key] if all(name in row for name in names)]
        if metrics.moment == catalogue.STEP:
            step_loss = f"{key}/train/loss_step"
            rows = [row for row in rows if step_loss in row]
            assert [row["global_step"] for row in rows] == list(range(1, NUM_EPOCHS * STEPS_PER_EPOCH + 1))
        elif metrics.moment == catalogue.EPOCH:
            rows = [row for row in rows if f"{key}/epoch" in row]
            assert [row[f"{key}/epoch"] for row in rows] == list(range(NUM_EPOCHS))
        expected = COUNTS[metrics.moment]
        assert len(rows) == expected if expected else rows
        assert all(row[name] is not None for row in rows for name in names)
        sent = {row["_step"]: row for row in runs[key].rows()}
        for row in rows:
            assert all(name in sent[row["step"]] for name in names)


def test_no_row_is_missing_or_double_in_the_records_and_in_wandb(killed_run):
    folder, server, output = killed_run
    total = 0
    for key, rows in records(folder).items():
        assert [row["step"] for row in rows] == list(range(len(rows)))
        run = next(run for run in list_wandb_runs(folder, folder.read_config()) if run.key == key)
        assert server.runs[run.id].steps() == list(range(len(rows)))
        for row, sent in zip(rows, server.runs[run.id].rows(), strict=True):
            numbers = {n: v for n, v in row.items() if isinstance(v, int | float | str) and n not in ("step", "time")}
            for timing in ("epoch_time", "samples_per_second", "data_wait_share"):
                numbers.pop(f"{key}/train/{timing}", None)  # of the attempt that sent it first
            assert {name: sent[name] for name in numbers} == numbers
        total += len(rows)
    assert f"W&B holds all {total} rows" in output


def test_wandb_shows_names_groups_job_types_config_tables_and_pictures(killed_run):
    _, server, output = killed_run
    shown = {run.display_name: run for run in server.runs.values()}
    endings = {**{f"fold{i}": f"fold_{i}" for i in range(NUM_FOLDS)}, "ensemble": "ensemble_coordination"}
    endings |= {"submission": "ensemble_submission"}
    assert {name: run.job_type for name, run in shown.items()} == {f"night_{e}": kind for e, kind in endings.items()}
    for run in shown.values():
        assert (run.group, run.project, run.exit_code) == ("night", "challenge_CSC_43M04_EP", 0)
        assert run.config["training"]["epochs"] == NUM_EPOCHS
        assert f"/runs/{run.id}" in output
    assert any("fold_info" in name for name in shown["night_ensemble"].files)
    for name in ("model_weights", "figures/loss_of_all_folds", "figures/modality_weights", "figures/final_predictions"):
        assert any(name in file for file in shown["night_submission"].files)


def test_the_csv_files_have_the_columns_formats_and_numbers_of_the_catalogue(killed_run):
    folder, _, _ = killed_run
    for fold in range(NUM_FOLDS):
        path = max(folder.fold_csv(fold).glob("epoch_metrics_*.csv"))
        assert re.fullmatch(r"epoch_metrics_\d{8}_\d{6}\.csv", path.name)
        table = pd.read_csv(path, dtype=str)
        assert tuple(table.columns[: len(EPOCH_COLUMNS)]) == EPOCH_COLUMNS
        assert {"val/msle", "weights/image", "score"} < set(table.columns)
        assert table["Epoch"].tolist() == [str(epoch) for epoch in range(1, NUM_EPOCHS + 1)]
        for name, digits in (("Avg_Loss", 6), ("Min_Batch_Loss", 6), ("Max_Batch_Loss", 6), ("Best_Loss_So_Far", 6),
                             ("Learning_Rate", 8), ("Epoch_Time_Seconds", 2)):  # fmt: skip
            assert table[name].str.fullmatch(rf"\d+\.\d{{{digits}}}").all()
        assert table["Timestamp"].str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").all()
        rows = read_lines(folder.fold_record(fold))
        losses = [row[f"fold_{fold}/train/loss_step"] for row in rows if f"fold_{fold}/train/loss_step" in row]
        first = losses[:STEPS_PER_EPOCH]
        assert table["Min_Batch_Loss"][0] == f"{min(first):.6f}"
        assert table["Max_Batch_Loss"][0] == f"{max(first):.6f}"
        scores = table["score"].astype(float)
        assert (table["Is_Best_Model"] == "True").tolist() == (scores == scores.cummin()).tolist()
        batches = pd.read_csv(max(folder.fold_csv(fold).glob("batch_metrics_*.csv")), dtype=str)
        assert tuple(batches.columns) == BATCH_COLUMNS
        assert batches["Batch"].tolist() == [str(b) for _ in range(NUM_EPOCHS) for b in range(STEPS_PER_EPOCH)]
        assert batches["Loss"].tolist() == [f"{loss:.6f}" for loss in losses]
        log = folder.newest_fold_log(fold).read_text()
        assert re.search(r"epoch 1/6 \[3/6  50%\] loss \d\.\d{6}, learning rate 0\.\d{8}, ETA \d\d:\d\d:\d\d", log)
        assert re.search(
            r"epoch 6/6 is over: batch loss mean .*, min .*, max .*; validation loss .*, score .*, learning rate", log
        )
        assert re.search(r"new best at epoch 2: score .*, better by ", log)


def test_the_report_and_the_analysis_work_on_it(killed_run):
    folder, _, _ = killed_run
    summary = json.loads(folder.summary.read_text())
    assert [fold["attempts"] for fold in summary["folds"]] == [2, 2, 2]
    report = folder.report.read_text()
    assert f"{summary['scores']['out_of_fold']['best']['msle']:.4f}" in report
    done = subprocess.run(
        [sys.executable, "ray_jobs/analyze.py", str(folder.root)],
        cwd=REPOSITORY, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = {re.sub(r"_\d{8}_\d{6}", "", path.name) for path in folder.analysis.iterdir()}
    assert names == {"training_analysis.png", "training_stats.png", "batch_analysis.png", "training_report.txt"}


def test_nothing_of_the_killed_driver_is_left(killed_run):
    folder, _, _ = killed_run
    listing = subprocess.run(["ps", "-eo", "args"], text=True, capture_output=True, check=True).stdout
    assert str(folder.root) not in listing
    assert not list(folder.root.rglob("*.tmp"))
