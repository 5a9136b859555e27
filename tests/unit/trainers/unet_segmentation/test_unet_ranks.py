"""Two ranks that train one fold of a U-Net together, as processes of their own without Ray."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch.distributed as dist
import torch.multiprocessing as processes
from support.local_context import LocalFoldContext
from support.small_unet import SMALL

from trainers.interface import Split
from trainers.unet_segmentation.inventory import take_inventory, write_inputs
from trainers.unet_segmentation.train import train_fold

CONFIG = replace(SMALL, data=replace(SMALL.data, size=64))  # of the pictures: no map is enlarged
TIMES = ("train/epoch_time", "train/samples_per_second", "train/data_wait_share")


class Rank(LocalFoldContext):
    """One of several; rank 0 writes checkpoints, and of maps the names are kept and of the last model's their pixels:
    that are rightly said to be foreground, that are said to be, and that are."""

    counts = (0, 0, 0)

    def save_checkpoint(self, name, tensors, description):
        if self.rank == 0:
            super().save_checkpoint(name, tensors, description)

    def load_checkpoint(self, name):
        if self.world_size > 1:
            dist.barrier()
        return super().load_checkpoint(name)

    def save_predictions(self, checkpoint, rows, ids, maps):
        maps = list(maps)
        self.predictions[f"{checkpoint} {rows}"] = [one.row_id for one in maps]
        if (checkpoint, rows) == ("final", "validation"):
            pairs = [(one.probability_CHW[0] >= 0.5, one.target_HW == 1) for one in maps]
            self.counts = [
                int(sum(part.sum() for part in parts)) for parts in zip(*((s & t, s, t) for s, t in pairs), strict=True)
            ]


def train_rank(rank, world_size, root):
    """Learns from 11 pictures in batches of 5: the last has one picture, so that a rank has none of it."""
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=world_size)
    config, inventory = take_inventory(CONFIG, root)
    context = Rank(root / f"of_{world_size}")
    context.rank, context.world_size = rank, world_size
    context.root.mkdir(exist_ok=True)
    write_inputs(config, inventory, context.inputs)
    ids = inventory.ids
    train_fold(config, Split(0, ids[:11], ids[12:18], ids[20:22]), context)
    epochs = [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in context.epochs]
    found = {
        "epochs": epochs,
        "maps": context.predictions,
        "counts": context.counts,
        "steps": [metrics["train/loss_step"] for _, metrics in context.steps],
    }
    (root / f"rank{rank}_of_{world_size}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_ranks_agree_share_the_work_and_learn_nearly_what_one_does(tmp_path):
    take_inventory(CONFIG, tmp_path)  # the pictures are made once
    processes.spawn(train_rank, (1, tmp_path), nprocs=1)
    processes.spawn(train_rank, (2, tmp_path), nprocs=2)
    names = ("rank0_of_1", "rank0_of_2", "rank1_of_2")
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    assert first["epochs"] == second["epochs"]
    for part, ids in one["maps"].items():
        assert sorted(first["maps"][part] + second["maps"][part]) == ids
    right, said, true = (sum(both) for both in zip(first["counts"], second["counts"], strict=True))
    # Both ranks predict with what the first has saved, and have validated with it.
    assert 2 * right / (said + true) == pytest.approx(first["epochs"][-1]["val/dice"], abs=1e-12)
    together = [a + b for a, b in zip(first["steps"], second["steps"], strict=True)]
    assert together == pytest.approx(one["steps"], rel=0.05)  # batch normalisation sees each rank's share alone
