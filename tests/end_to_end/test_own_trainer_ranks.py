"""A script's own function that two workers train together (gloo), one of which is killed once."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from support.processes import REPOSITORY
from support.users_scripts import WAIT_S, open_ray, start_script

SCRIPT = """
import os, signal
from pathlib import Path
import torch
from torch.nn.parallel import DistributedDataParallel
from ray_jobs import cross_validate

names = ["width_cm", "height_cm", "year"]

def to_x(rows):
    return torch.tensor((rows[names] / 1000).to_numpy("float32"))

def train_fold(fold, my):
    assert fold.world_size == torch.distributed.get_world_size() == 2
    mine = fold.train.iloc[fold.rank :: fold.world_size]
    x, y = to_x(mine), torch.tensor(mine["price"].to_numpy("float32")) / 1000
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)))
    adam, first_epoch = torch.optim.Adam(model.parameters(), lr=0.02), 0
    if state := fold.load():
        print(f"worker {fold.rank} goes on after epoch {state['epoch']}")
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        first_epoch = state["epoch"] + 1
    for epoch in range(first_epoch, 8):
        if my.dies and (fold.number, fold.rank, epoch) == (0, 1, 5) and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for batch in torch.randperm(100)[:64].split(16):  # of generators that are kept with the state
            loss = (model(x[batch % len(x)])[:, 0] - y[batch % len(x)]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            fold.log(loss=loss)
        fold.report_epoch(epoch, 8, score=float(loss))
        fold.save({"model": model.state_dict(), "adam": adam.state_dict(), "epoch": epoch})
    fold.keep_model(lambda rows: model.module(to_x(rows))[:, 0].detach() * 1000)

for name in ("whole", "dies"):
    cross_validate(train_fold, "lots.csv", "price", id="id", folds=2, my={"dies": name == "dies"}, name=name, config={
        "resources.workers_per_fold": 2, "resources.cpus_per_fold": 2, "resources.max_folds_at_once": 1,
        "checkpoint.min_interval_s": 0})
"""


@pytest.mark.slow
def test_a_function_of_two_workers_goes_on_with_the_same_bits_when_one_is_killed(tmp_path):
    shutil.copy(REPOSITORY / "examples/lots.csv", tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    with open_ray(tmp_path) as address:
        script = start_script("script.py", tmp_path, tmp_path, address)
        assert script.wait(WAIT_S) == 0, (tmp_path / "output.txt").read_text()
    assert (tmp_path / "died").exists()
    whole, dies = (tmp_path / "ray_results" / name for name in ("whole", "dies"))
    logs = "".join(path.read_text() for path in dies.glob("log/fold_0/*.log"))
    assert "worker 0 goes on after epoch 4" in logs
    assert "worker 1 goes on after epoch 4" in logs
    assert (dies / "oof.parquet").read_bytes() == (whole / "oof.parquet").read_bytes()
    oof = pd.read_parquet(whole / "oof.parquet")
    assert (len(oof), oof["id"].is_unique) == (300, True)
