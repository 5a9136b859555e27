"""Two ranks that train one diffusion transformer together over gloo: they take the steps of one, and go on after a kill
within an epoch to the same bits."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from support.local_context import LocalFoldContext
from support.small_diffusion import SMALL, train_small

# A batch of one forward pass is of all ranks; the last one of an epoch is not whole.
CONFIG = replace(SMALL, training=replace(SMALL.training, batch_size=4))
STOP_AT = 4  # in the second epoch


def train(root, rank, world_size, name, **how) -> LocalFoldContext:
    return train_small(root, f"{name}_{world_size}", CONFIG, rank=rank, world_size=world_size, **how)


def train_rank(rank, world_size, root):
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=world_size)
    whole = train(root, rank, world_size, "whole")
    killed = train(root, rank, world_size, "killed", stop_at=STOP_AT)
    point, random_state = copy.deepcopy(killed.stopped_with)
    of_first = [point.tensors]
    dist.broadcast_object_list(of_first, 0)  # which are kept for all
    resumed = train(root, rank, world_size, "resumed", resume_from=(replace(point, tensors=of_first[0]), random_state))
    found = {"whole": describe(whole), "resumed": describe(resumed)}
    torch.save(found, root / f"rank{rank}.pt")
    dist.destroy_process_group()


def describe(context):
    """Each step's share of the loss and its norm, the score of each epoch, and losses of rows."""
    return {
        "steps": [(step, metrics["train/loss_step"], metrics["train/grad_norm"]) for step, metrics in context.steps],
        "scores": [epoch["score"] for epoch in context.epochs],
        "losses": {key: (one.ids, one.loss_NS) for key, one in context.predictions.items() if hasattr(one, "loss_NS")},
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    train_small(root, "first")  # the pictures are made and decoded once
    processes.spawn(train_rank, (2, root), nprocs=2)
    return root


def test_two_ranks_take_the_steps_of_one(root):
    one, other = (torch.load(root / f"rank{rank}.pt", weights_only=False)["whole"] for rank in range(2))
    alone = describe(train(root, 0, 1, "alone"))
    for mine, others, whole in zip(one["steps"], other["steps"], alone["steps"], strict=True):
        assert mine[1] + others[1] == pytest.approx(whole[1], rel=1e-5)
        assert mine[2] + others[2] == pytest.approx(whole[2], rel=1e-4)
    assert one["scores"] == other["scores"] == pytest.approx(alone["scores"], rel=1e-5)
    for key, (ids, losses) in alone["losses"].items():
        found = {}
        for rank in (one, other):
            if key in rank["losses"]:
                found |= dict(zip(rank["losses"][key][0].tolist(), rank["losses"][key][1], strict=True))
        np.testing.assert_allclose([found[row_id] for row_id in ids.tolist()], losses, rtol=1e-4)


def test_two_ranks_go_on_after_a_kill_within_an_epoch_to_the_same_bits(root):
    for rank in range(2):
        found = torch.load(root / f"rank{rank}.pt", weights_only=False)
        whole, resumed = found["whole"], found["resumed"]
        assert resumed["steps"] == whole["steps"][STOP_AT:]
        assert resumed["losses"].keys() == whole["losses"].keys()
        for key, (ids, losses) in whole["losses"].items():
            assert resumed["losses"][key][0].tolist() == ids.tolist()
            np.testing.assert_array_equal(resumed["losses"][key][1], losses)
