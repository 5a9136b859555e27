"""Two ranks that fine-tune one fold together, as processes of their own without Ray."""

from __future__ import annotations

import json

import pytest
import torch.distributed as dist
import torch.multiprocessing as processes
from support.local_context import LocalFoldContext
from support.small_finetuning import train_small


class Rank(LocalFoldContext):
    """One of several; rank 0 writes checkpoints, and of answers the texts are kept."""

    def save_checkpoint(self, name, tensors, description, *, shard=None, files=None):
        if self.rank == 0:
            super().save_checkpoint(name, tensors, description, shard=shard, files=files)

    def load_checkpoint(self, name):
        if self.world_size > 1:
            dist.barrier()
        return super().load_checkpoint(name)

    def save_predictions(self, checkpoint, rows, ids, predictions):
        self.predictions[f"{checkpoint} {rows}"] = {one.row_id: one.answer.text for one in predictions}


def train_rank(rank, world_size, root):
    """Steps of 3 questions: the second rank has one of them."""
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=world_size)
    folder = root / f"of_{world_size}"
    words = "lora.dropout=0 training.micro_batch_size=5 grpo.steps=2"
    context = train_small(folder, words, build=Rank, rank=rank, world_size=world_size)
    found = {"steps": context.steps, "answers": context.predictions, "rows": context.rows}
    (root / f"rank{rank}_of_{world_size}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_ranks_share_the_work_and_take_the_steps_of_one(tmp_path):
    processes.spawn(train_rank, (1, tmp_path), nprocs=1)
    processes.spawn(train_rank, (2, tmp_path), nprocs=2)
    names = ("rank0_of_1", "rank0_of_2", "rank1_of_2")
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    for (_, alone), (_, mine), (_, other) in zip(one["steps"], first["steps"], second["steps"], strict=True):
        for name in ("train/loss_step", "train/grad_norm", "kl_divergence", "entropy"):
            if name in alone:  # each rank's share of a sum
                assert mine[name] + other[name] == pytest.approx(alone[name], rel=0.02, abs=2e-3), name
        for name in ("reward", "accuracy_reward", "completions/mean_length", "learning_rate"):
            if name in alone:
                assert mine[name] == other[name] == alone[name], name
    answers = {**first["answers"]["best validation"], **second["answers"]["best validation"]}
    assert set(answers) == set(one["answers"]["best validation"])
    assert [row for _, row in first["rows"] if "sft_grpo/answer_accuracy" in row]
