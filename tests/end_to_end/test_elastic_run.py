"""Two elastic folds on two cores: the first is done early, and its worker goes to the other."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.processes import REPOSITORY, clean_environment

from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.record import read_lines
from trainers.learning.batches import learning_rate_factor

EPOCHS = 40
ROWS = 328  # fold 1 trains on 320 of them: it is at work long after fold 0 is done, whichever began first
STEPS = 40  # of an epoch of fold 1


@pytest.fixture
def uneven_data(tmp_path):
    """Fold 0 trains on 8 rows, fold 1 on 320."""
    rng, root = np.random.default_rng(0), tmp_path / "data"
    (root / "train_val").mkdir(parents=True)
    frame = pd.DataFrame({"id": [f"v{number:03d}" for number in range(ROWS)], "views": rng.integers(10, 10_000, ROWS)})
    frame["fold"] = [1] * 8 + [0] * (ROWS - 8)
    frame.to_csv(root / "train_val.csv", index=False)
    for row_id in frame["id"]:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(root / "train_val" / f"{row_id}.jpg")
    return root


@pytest.mark.slow
def test_the_worker_of_a_fold_that_is_done_goes_to_the_other_which_loses_no_step(tmp_path, uneven_data):
    words = (
        "run.name=elastic", "run.dashboard=false", "tracking.wandb=disabled", f"data.root={uneven_data}",
        "data.text_columns=[]", "data.date_column=none", "folds.kind=predefined", "folds.count=2",
        "data.fold_column=fold",
        "training.batch_size=8", f"training.epochs={EPOCHS}", "resources.workers_per_fold=[1,2]",
        "resources.resize_interval_s=0", "resources.cpus_per_fold=2",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "ray_jobs/kfold.py", *words], cwd=REPOSITORY, env=clean_environment(HOME=str(tmp_path)),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = RunFolder(tmp_path / "ray_results" / "elastic")
    everything = read_lines(folder.events)
    first = [(row["event"], row["attempt"]) for row in everything if row.get("fold") == 0]
    assert first == [("FoldLaunched", 1), ("FoldStarted", 1), ("FoldCompleted", 1)], done.stdout
    events = [(row["event"], row["attempt"], row) for row in everything if row.get("fold") == 1]
    assert [(event, attempt) for event, attempt, _ in events] == [
        ("FoldLaunched", 1), ("FoldStarted", 1), ("FoldResized", 1),
        ("FoldLaunched", 2), ("FoldStarted", 2), ("FoldCompleted", 2),
    ]  # fmt: skip
    assert [row["num_workers"] for event, _, row in events if event == "FoldLaunched"] == [1, 2]
    (left,) = [row["step"] for event, attempt, row in events if (event, attempt) == ("FoldStarted", 2)]
    assert 0 < left < STEPS * EPOCHS, done.stdout
    for line in (
        "2 fold(s) at once, 1 to 2 worker(s) each with 1 CPU (1 threads)",
        "fold 1: there is room; it saves where it is and goes on with 2 instead of 1 workers",
        "not bit-repeatable: the number of workers was not always the same (fold 0: 1; fold 1: 1, then 2)",
    ):
        assert line in done.stdout
    summary = json.loads(folder.summary.read_text())
    assert not summary["bit_repeatable"]
    assert [fold["workers"] for fold in summary["folds"]] == [[1], [1, 2]]
    assert "not bit-repeatable" in folder.report.read_text()
    assert "not bit-repeatable" in folder.readme.read_text()

    rows, num_steps = read_lines(folder.fold_record(1)), STEPS * EPOCHS
    steps = [row for row in rows if "fold_1/train/loss_step" in row]
    assert [row["global_step"] for row in steps] == list(range(1, num_steps + 1))
    rates = [row["fold_1/learning_rate"] for row in steps]
    optimizer = folder.read_config().trainer.optimizer
    factors = [
        learning_rate_factor(step, num_steps, optimizer.schedule, optimizer.warmup_fraction)
        for step in range(num_steps)
    ]
    assert rates == pytest.approx([optimizer.lr * factor for factor in factors])
    epochs = [row for row in rows if "fold_1/epoch" in row]
    assert [row["fold_1/epoch"] for row in epochs] == list(range(EPOCHS))
    for row in epochs:  # the mean over all rows, the epoch under way at the change included
        last = row["global_step"]
        losses = [one["fold_1/train/loss_step"] for one in steps[last - STEPS : last]]
        assert row["fold_1/train/loss_epoch"] == pytest.approx(np.mean(losses), rel=1e-4)
    changed = [row for row in rows if "fold_1/setup/world_size" in row]
    assert [(row["global_step"], row["fold_1/setup/world_size"]) for row in changed] == [(0, 1), (left, 2)]
