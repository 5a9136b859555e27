"""A tuning whose driver is killed in its second trial, and started again."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time

import pytest
from support.processes import REPOSITORY, clean_environment, find_processes
from support.run_files import list_unknown_files
from support.wandb_server import StandInServer

from docs.catalogue import TUNING_CATALOGUE
from ray_jobs.leaderboard import main as compare_runs
from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, last_attempt, read_status
from ray_jobs.tracking.wandb_runs import list_wandb_runs

WORDS = ("tune.name=search", "tune.space=[optimizer.lr loguniform 1e-6 1e-5]", "tune.num_trials=1", "folds.count=2")
WORDS += ("data.max_rows=40", "training.epochs=1", "run.dashboard=false")


def start(home, **wandb):
    return subprocess.Popen(
        [sys.executable, "ray_jobs/tune.py", *WORDS],
        cwd=REPOSITORY,
        env=clean_environment(HOME=str(home), **wandb),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def killed_tuning(tmp_path_factory):
    """Its folder, the time of each file of the first trial's folds when the driver was killed, what the second one
    printed, and W&B's server."""
    home = tmp_path_factory.mktemp("home")
    folder = RunFolder(home / "ray_results" / "search")
    with StandInServer() as server:
        wandb = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        times, output = kill_and_continue(folder, home, wandb)
        yield folder, times, output, server


def kill_and_continue(folder, home, wandb):
    driver = start(home, **wandb)
    second = folder.of_trial("trial_001")
    while not any(read_status(second, fold).state == FoldState.TRAINING for fold in range(2)):
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    first = folder.of_trial("trial_000")
    times = {path: path.stat().st_mtime_ns for path in first.find_in_folds("**/*") if path.is_file()}
    output, _ = start(home, **wandb).communicate(timeout=300)
    return times, output


def test_the_same_command_keeps_what_is_trained_and_trains_the_rest(killed_tuning):
    folder, times, output, _ = killed_tuning
    assert "1 have ended" in output
    assert times
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert [last_attempt(folder.of_trial("trial_000"), fold) for fold in range(2)] == [1, 1]
    attempts = [last_attempt(folder.of_trial("trial_001"), fold) for fold in range(2)]
    assert max(attempts) == 2
    with (folder.root / "trials.csv").open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file)}
    assert [(row["state"], row["folds"]) for row in rows.values()] == [("complete", "2")] * 2
    assert rows["trial_000"]["optimizer.lr"] == "0.004"
    assert 1e-6 <= float(rows["trial_001"]["optimizer.lr"]) <= 1e-5
    assert rows["trial_000"]["rank"] == "1"  # the other one has hardly moved
    for name, row in rows.items():
        scores = read_json(folder.of_trial(name).summary)["scores"]["out_of_fold"]
        assert float(row["msle"]) == pytest.approx(scores["best"]["msle"])


def test_its_trials_are_runs_like_any_other(killed_tuning, capsys):
    folder, _, output, _ = killed_tuning
    best = folder.of_trial(read_json(folder.tune)["outcome"]["best"])
    assert best.report.is_file()
    assert best.submission("mean").is_file()
    assert "python ray_jobs/kfold.py folds.count=2 data.max_rows=40 training.epochs=1" in output
    assert compare_runs([f"run.storage={folder.trials}"]) == 0
    assert "trial_001" in capsys.readouterr().out
    assert folder.report.is_file()


def test_each_trial_is_one_run_in_wandb_with_its_fields_and_its_score(killed_tuning):
    folder, _, output, server = killed_tuning
    runs = list_wandb_runs(folder, folder.read_config())
    assert sorted(run.display_name for run in server.runs.values()) == ["search_trial_000", "search_trial_001"]
    assert "W&B holds all 2 rows" in output
    for run in runs:
        shown = server.runs[run.id]
        assert (shown.group, shown.job_type, shown.exit_code) == ("search", "trial", 0)
        assert shown.config["optimizer"]["lr"] == run.config["optimizer"]["lr"]
        (row,) = shown.rows()
        names = [name.format(i=i) for metrics in TUNING_CATALOGUE for name in metrics.names for i in range(2)]
        assert all(row[name] is not None for name in names)
        said = read_json(folder.of_trial(run.key).summary)["trial"]
        assert (row["tune/score"], row["tune/state"], row["tune/folds_done"]) == (said["score"], "complete", 2)


def test_a_finished_tuning_says_so_and_nothing_is_left_of_it(killed_tuning):
    folder, *_ = killed_tuning
    output, _ = start(folder.root.parents[1]).communicate(timeout=60)
    assert "tuning search is finished: nothing to do" in output
    assert "trial_000 (recipe)" in output
    assert not find_processes(folder.root)
    assert list_unknown_files(folder.root) == []
    assert not list(folder.root.rglob("*.tmp"))
    assert not list(folder.root.rglob(".ray_train"))
