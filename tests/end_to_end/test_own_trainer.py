"""A script's own function in K folds: the examples of the documentation, and a script that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.processes import REPOSITORY, clean_environment

from trainers.own_trainer.made_data import make_data

# One Ray for all examples, which they join and leave as it is.
RUN_ALL = """
import runpy, sys, ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
for script in sys.argv[1:]:
    runpy.run_path(script, run_name="__main__")
    assert ray.is_initialized()
"""
SLOW = """
import time
from sklearn.ensemble import HistGradientBoostingRegressor
from ray_jobs import cross_validate

names = ["width_cm", "height_cm", "year"]

def train_fold(fold):
    with open(f"began_{fold.number}_{time.time()}", "w") as file:
        file.write(f"{fold.train['year'].max()} {fold.validation['year'].min()}")
    time.sleep(my_pause * fold.number)
    model = HistGradientBoostingRegressor(random_state=fold.seed).fit(fold.train[names], fold.train["price"])
    return model.predict(fold.validation[names]), model.predict(fold.test[names])

my_pause = PAUSE
if __name__ == "__main__":
    run = cross_validate(train_fold, "lots.csv", "price", test="new_lots.csv", id="id", folds=3, storage="runs",
                         time="year", name="slow", config={"resources.max_folds_at_once": 1, "run.dashboard": False,
                                                           "folds.gap": 30})
    print(run)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    made = make_data(tmp_path)
    (tmp_path / "lots.csv").write_bytes((made / "train.csv").read_bytes())
    (tmp_path / "new_lots.csv").write_bytes((made / "test.csv").read_bytes())
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    clean = clean_environment(HOME=str(home), WANDB_MODE="disabled")
    return clean | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), clean["PYTHONPATH"]])}


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment(folder), text=True, stdout=output, stderr=output
        )


def run_examples(folder: Path, numbers: range) -> dict[str, Any]:
    """Runs blocks of the documentation in one Ray; what each run's `summary.json` holds."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/own-trainer.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    scripts = [f"example_{number}.py" for number in numbers]
    for script, number in zip(scripts, numbers, strict=True):
        (folder / script).write_text(blocks[number])
    (folder / "run_all.py").write_text(RUN_ALL)
    assert start(folder, "run_all.py", *scripts).wait(900) == 0, (folder / "output.txt").read_text()
    return {path.parent.name: json.loads(path.read_text()) for path in (folder / "ray_results").glob("*/summary.json")}


def test_the_first_example_of_the_documentation_runs(folder):
    (name, summary), *others = run_examples(folder, range(1)).items()
    assert (name, others) == ("example_0_train_fold", [])
    assert summary["scores"]["out_of_fold"]["best"]["rmse"] < 200


@pytest.mark.slow
def test_the_other_examples_of_the_documentation_run(folder):
    """A loop that saves where it is, estimators, KFoldRegressor, and a training loop of Ray Train."""
    summaries = run_examples(folder, range(1, 5))
    assert sorted(summaries) == ["loop", "ray_loop", "ridge", "schools"]
    for summary in summaries.values():
        assert {fold["state"] for fold in summary["folds"]} == {"completed"}
    assert summaries["schools"]["scores"]["out_of_fold"]["best"]["accuracy"] > 0.25


@pytest.mark.slow
def test_a_script_with_a_gap_in_time_that_is_killed_goes_on_without_training_a_finished_fold_again(folder):
    (folder / "slow.py").write_text(SLOW.replace("PAUSE", "3"))
    run = folder / "runs" / "slow"
    killed = start(folder, "slow.py")
    deadline = time.monotonic() + 600
    while not (run / "folds/0/manifest.json").exists() or not list(folder.glob("began_1_*")):
        assert time.monotonic() < deadline, (folder / "output.txt").read_text()
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    manifest = (run / "folds/0/manifest.json").read_bytes()
    assert not (run / "folds/1/manifest.json").exists()
    assert start(folder, "slow.py").wait(900) == 0, (folder / "output.txt").read_text()
    assert (run / "folds/0/manifest.json").read_bytes() == manifest
    assert len(list(folder.glob("began_0_*"))) == 1
    assert len(list(folder.glob("began_1_*"))) == 2
    continued = (run / "oof.parquet").read_bytes()
    assert pd.read_parquet(run / "oof.parquet")["id"].is_unique
    years = pd.read_csv(folder / "lots.csv")["year"]
    began = {path.name[: len("began_0")]: path for path in sorted(folder.glob("began_*"))}  # the last of each fold
    assert len(began) == 3
    for path in began.values():
        last, first = map(int, path.read_text().split())
        kept_out = years.between(last, first, inclusive="neither").sum()
        assert 30 <= kept_out < 50  # rows of one year stay together
    # A run that nobody kills has the same bytes; the function's source differs by a pause.
    (folder / "slow.py").write_text(SLOW.replace("PAUSE", "0").replace('"slow"', '"whole"'))
    assert start(folder, "slow.py").wait(900) == 0, (folder / "output.txt").read_text()
    assert (folder / "runs/whole/oof.parquet").read_bytes() == continued
