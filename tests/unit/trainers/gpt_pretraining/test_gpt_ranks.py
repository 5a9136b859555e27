"""Two ranks that train one GPT together over gloo, with everything on each or with weights, gradients or the optimiser's
state divided, and four in two groups (hybrid): they learn what one rank learns, and another number of ranks goes on
from what they saved."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from safetensors.torch import load
from support.local_context import KilledError, LocalFoldContext

from trainers.gpt_pretraining.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ShardingConfig,
    TokenizerConfig,
    TrainingConfig,
)
from trainers.gpt_pretraining.inventory import take_inventory, write_inputs
from trainers.gpt_pretraining.network.sharding import find_group_size
from trainers.gpt_pretraining.train import train_fold
from trainers.interface import ResumePoint, Split

TWO, HYBRID = ("none", "zero1", "zero2", "zero3"), "hybrid"
LEVELS = (*TWO, HYBRID)
RANKS = dict.fromkeys(TWO, 2) | {HYBRID: 4}
STOP_AT = 6  # in the middle of the second epoch
CONFIG = Config(
    data=DataConfig(near_texts=0),
    tokenizer=TokenizerConfig(kind="bytes"),
    model=ModelConfig(width=24, layers=2, heads=2, context=32, pad_vocabulary=64),
    training=TrainingConfig(epochs=2, batch_size=5, rows_at_once=2, eval_batch_size=4),
    optimizer=OptimizerConfig(lr=3e-3),
)


class Rank(LocalFoldContext):
    """One of several, each of which writes its own part of a checkpoint."""

    def save_checkpoint(self, name, tensors, description, *, shard=None, files=None):
        super().save_checkpoint(f"{name}.{self.rank}", tensors, description, shard=shard, files=files)

    def load_checkpoint(self, name):
        if self.world_size > 1:
            dist.barrier()
        parts = [super(Rank, self).load_checkpoint(f"{name}.{rank}") for rank in range(self.world_size)]
        return {key: value for part in reversed(parts) for key, value in part.items()}


def train(root, level, rank, world_size, resume_from=None, stop_at=None):
    sharding = ShardingConfig("zero3", group_size=2) if level == HYBRID else ShardingConfig(level)
    config = replace(CONFIG, sharding=sharding, data=replace(CONFIG.data, root=str(root / "documents")))
    config, inventory = take_inventory(config, root, root / f"cache_{rank}")
    context = Rank(root / f"{level}_{world_size}_{stop_at}_{resume_from is not None}")
    context.rank, context.world_size = rank, world_size
    context.resume_from, context.stop_at = resume_from, stop_at
    context.root.mkdir(exist_ok=True)
    if rank == 0:
        write_inputs(config, inventory, context.inputs)
    if world_size > 1:
        dist.barrier()
    with contextlib.suppress(KilledError):
        train_fold(config, Split(0, inventory.ids[:40], inventory.ids[40:]), context)
    return context


def describe(context):
    """Each step's loss and norm as this rank has it, the score of each epoch, and losses of documents."""
    steps = [(step, metrics["train/loss"], metrics["train/grad_norm"]) for step, metrics in context.steps]
    return {
        "steps": steps,
        "scores": [epoch["score"] for epoch in context.epochs],
        "losses": {key: (one.ids, one.nats) for key, one in context.predictions.items()},
    }


def train_rank(rank, world_size, root):
    dist.init_process_group("gloo", f"file://{root}/meeting_{world_size}", rank=rank, world_size=world_size)
    for level in [level for level in LEVELS if RANKS[level] == world_size]:
        whole = train(root, level, rank, world_size)
        killed = train(root, level, rank, world_size, stop_at=STOP_AT)
        point, random_state = copy.deepcopy(killed.stopped_with)  # an optimiser takes up tensors as its own
        of_first = [point.tensors]
        dist.broadcast_object_list(of_first, 0)  # which are kept for all
        resumed = train(root, level, rank, world_size, (replace(point, tensors=of_first[0]), random_state))
        found = {"whole": describe(whole), "resumed": describe(resumed), "point": killed.stopped_with}
        torch.save(found, root / f"{level}_rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    (root / "documents").mkdir()
    texts = [f"The {n}. of many: {'ab ' * (n % 5)}the end of it." for n in range(48)]
    lines = [json.dumps({"text": text, "id": f"d{n}"}) for n, text in enumerate(texts)]
    (root / "documents" / "train.jsonl").write_text("\n".join(lines))
    for world_size in sorted(set(RANKS.values())):
        processes.spawn(train_rank, (world_size, root), nprocs=world_size)
    return root


@pytest.fixture(scope="module")
def alone(root):
    threads = torch.get_num_threads()
    found = describe(train(root, "none", 0, 1))
    torch.set_num_threads(threads)
    return found


def read(root, level):
    return [torch.load(root / f"{level}_rank{rank}.pt", weights_only=False) for rank in range(RANKS[level])]


def together(ranks, what):
    """Steps with the parts of all ranks added up."""
    return [
        (parts[0][0], sum(loss for _, loss, _ in parts), sum(norm for *_, norm in parts))
        for parts in zip(*(rank[what]["steps"] for rank in ranks), strict=True)
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_ranks_learn_what_one_does(root, alone, level):
    ranks = read(root, level)
    for (step, loss, norm), (_, expected, expected_norm) in zip(together(ranks, "whole"), alone["steps"], strict=True):
        assert loss == pytest.approx(expected, abs=2e-6), step
        assert norm == pytest.approx(expected_norm, rel=1e-4), step
    for rank in ranks:
        assert rank["whole"]["scores"] == pytest.approx(alone["scores"], abs=2e-6)
    ids = [row_id for rank in ranks for row_id in rank["whole"]["losses"]["final", "validation"][0]]
    assert sorted(ids) == sorted(alone["losses"]["final", "validation"][0])


@pytest.mark.parametrize("level", LEVELS)
def test_ranks_go_on_after_a_kill_in_mid_epoch_to_the_same_bits(root, level):
    for rank in read(root, level):
        assert rank["point"] is not None
        assert rank["resumed"]["steps"] == rank["whole"]["steps"][STOP_AT:]
        assert rank["resumed"]["scores"][-1] == rank["whole"]["scores"][-1]
        assert (
            rank["resumed"]["losses"]["best", "validation"][1] == rank["whole"]["losses"]["best", "validation"][1]
        ).all()


@pytest.mark.parametrize("level", LEVELS)
def test_one_rank_goes_on_from_what_several_have_saved(root, alone, level):
    (first, random_state), *others = (rank["point"] for rank in read(root, level))
    points = [first, *(point for point, _ in others)]
    shards = [] if first.shard is None else [point.shard for point in points]
    own = {name: sum(point.own[name] for point in points) for name in first.own}
    point = ResumePoint(first.tensors, own, first.facts, None if not shards else {}, shards)
    assert bool(shards) == (level in ("zero2", "zero3", HYBRID))
    threads = torch.get_num_threads()
    found = describe(train(root, level, 0, 1, resume_from=(point, random_state)))
    torch.set_num_threads(threads)
    for (step, loss, _), (_, expected, _) in zip(found["steps"], alone["steps"][STOP_AT:], strict=True):
        assert loss == pytest.approx(expected, abs=5e-6), step
    assert found["scores"][-1] == pytest.approx(alone["scores"][-1], abs=5e-6)


def test_groups_save_their_common_weights_once(root):
    parts = [load((root / f"{HYBRID}_4_None_False" / f"best.{rank}").read_bytes()) for rank in range(4)]
    assert [len(part) > 0 for part in parts] == [True, True, False, False]
    assert not set(parts[0]) & set(parts[1])


def test_workers_that_fill_no_groups_are_one_group():
    sizes = [find_group_size(ShardingConfig("zero3", 2), workers) for workers in (2, 3, 4, 5, 6)]
    assert sizes == [2, 3, 2, 5, 2]
    assert find_group_size(ShardingConfig("zero3"), 4) == 4
    with pytest.raises(ValueError, match=r"sharding\.group_size=2: expected none with sharding\.level=zero1"):
        ShardingConfig("zero1", 2)
