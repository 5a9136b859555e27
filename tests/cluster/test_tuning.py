"""Tunings on a cluster that others use, too: whatever ends a trial, nothing of it stays there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.processes import REPOSITORY, find_processes, is_fold

from ray_jobs.runs.files import read_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.status import FoldState, last_attempt, read_status

pytestmark = pytest.mark.slow
RAYS_OWN = ("TrainStateActor", "_AutoscalingCoordinatorActor")  # each run's Ray Train starts them if they are not there
SMALL = ("data.max_rows=40", "training.epochs=2", "folds.count=2")
LOOK = """
import json, ray
ray.init(namespace="kfold", log_to_driver=False, logging_level="ERROR")
print(json.dumps([group["state"] for group in ray.util.placement_group_table().values()]))
"""


def list_left(cluster):
    """Placement groups that are not removed, and living actors but those that Ray keeps one of a cluster, when all had
    some seconds to go."""
    for _ in range(5):
        look = [sys.executable, "-c", LOOK]
        done = subprocess.run(look, env=cluster.environment, capture_output=True, text=True, check=True, timeout=60)
        groups = [state for state in json.loads(done.stdout.splitlines()[-1]) if state != "REMOVED"]
        known = cluster.ask("/api/v0/actors?limit=1000&detail=1")["data"]["result"]["result"]
        living = [actor["class_name"] for actor in known if actor["state"] != "DEAD"]
        actors = [name for name in living if name not in RAYS_OWN]
        if not groups and not actors:
            break
        time.sleep(1)
    return groups, actors


def start(cluster, *words):
    return subprocess.Popen(
        [sys.executable, "ray_jobs/tune.py", *words],
        cwd=REPOSITORY,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_training(driver, trial, fold=0):
    """Returns when a fold of a trial trains."""
    while read_status(trial, fold).state != FoldState.TRAINING:
        assert driver.poll() is None, driver.stdout.read()
        time.sleep(0.05)


def test_asha_stops_a_bad_trial_after_its_first_fold(cluster, run_job, tmp_path):
    """Rates at which nothing is learned, against the recipe."""
    words = ("tune.name=halving", "tune.scheduler=asha", "tune.max_trials_at_once=1", f"run.storage={tmp_path}", *SMALL)
    space = "tune.space=[optimizer.lr choice 1e-7 2e-7 1e-6]"
    done = run_job("tune", *words, space, "tune.num_trials=3", "training.epochs=8")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder(tmp_path / "halving")
    states = {}
    for trial in folder.list_trials():
        said = read_json(trial.summary)["trial"]
        states[trial.root.name] = (said["state"], len(said["folds"]), len(trial.completed_folds(2)))
    assert states["trial_000"] == ("complete", 2, 2)
    assert ("stopped", 1, 1) in states.values()
    assert read_json(folder.tune)["outcome"]["best"] == "trial_000"
    assert "others were better" in done.stdout
    assert list_left(cluster) == ([], [])


def test_a_trial_whose_process_is_killed_goes_on(cluster, tmp_path):
    words = ("tune.name=killed", "tune.num_trials=1", f"run.storage={tmp_path}", *SMALL, "training.epochs=6")
    driver = start(cluster, *words, "tune.space=[model.dropout choice 0.1 0.2]")
    trial = RunFolder(tmp_path / "killed").of_trial("trial_000")
    wait_for_training(driver, trial)
    victims = [number for number, title in find_processes(cluster.folder).items() if is_fold(title)]
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert max(last_attempt(trial, fold) for fold in range(2)) == 2
    assert "goes on in another attempt" in output
    assert list_left(cluster) == ([], [])


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_nothing_on_the_cluster(cluster, tmp_path, ending):
    words = ("tune.name=ended", "tune.num_trials=1", f"run.storage={tmp_path}", *SMALL, "training.epochs=6")
    words += ("tune.space=[model.dropout choice 0.1 0.2]",)
    driver = start(cluster, *words)
    trial = RunFolder(tmp_path / "ended").of_trial("trial_000")
    wait_for_training(driver, trial)
    driver.send_signal(ending)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == (130 if ending == signal.SIGINT else -signal.SIGKILL), output
    assert list_left(cluster) == ([], [])
