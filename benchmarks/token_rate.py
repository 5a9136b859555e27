"""Tokens for each CPU second of a GPT's training loop, beside a bare PyTorch loop on the same model.

    python benchmarks/token_rate.py [--rounds 5] [--packing document] [--width 64]

One thread, tales, both loops in one process in turns, so that what else works on the machine slows both. The family's
loop reads tokens from its mapped file, packs them, counts them, measures gradients and records each step; the bare loop
has its batches ready in memory, and does forward, backward, clipping and a fused AdamW."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from support.local_context import LocalFoldContext

from trainers.gpt_pretraining.config import Config
from trainers.gpt_pretraining.inputs.windows import read_batches
from trainers.gpt_pretraining.inventory import take_inventory, write_inputs
from trainers.gpt_pretraining.learner import TokenLearner
from trainers.gpt_pretraining.network.model import NOTHING
from trainers.gpt_pretraining.recipes import gpt_pretraining_small
from trainers.gpt_pretraining.train import GptFold, _set_up, build_model
from trainers.interface import Split
from trainers.learning.arithmetic import seed_fold
from trainers.learning.batches import cut, training_order


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--packing", default="document")
    given = parser.parse_args()
    small = gpt_pretraining_small().trainer
    config = replace(
        small,
        data=replace(small.data, near_texts=0.0, max_rows=given.rows + 32),
        model=replace(small.model, width=given.width),
        training=replace(small.training, epochs=given.rounds, packing=given.packing),
    )
    torch.set_num_threads(1)
    seed_fold(0, 0)
    with tempfile.TemporaryDirectory() as folder:
        fold = open_fold(config, Path(folder), given.rows)
        learner, batches = TokenLearner(fold), [read_epoch(fold, epoch) for epoch in range(given.rounds)]
        bare = Bare(fold)
        ratios = []
        for epoch in range(given.rounds):
            rates = []
            for run in (lambda n: learner._learn_batches(n), lambda n: bare.run(batches[n])):
                began = time.process_time()
                run(epoch)
                rates.append(count_tokens(batches[epoch]) / (time.process_time() - began))
            learner.num_batches, learner.spent_s = 0, 0.0
            ratios.append(rates[0] / rates[1])
            print(
                f"round {epoch + 1}: {rates[0]:,.0f} tokens a CPU second, bare loop {rates[1]:,.0f}: {ratios[-1]:.3f}"
            )
    print(f"rate of the training loop {statistics.median(ratios[1:]):.3f} of a bare loop's (limit 0.95)")


def open_fold(config: Config, folder: Path, num_rows: int) -> GptFold:
    """A fold of the first rows, in this process."""
    config, inventory = take_inventory(config, folder, folder / "cache")
    context = LocalFoldContext(folder / "fold")
    context.root.mkdir()
    write_inputs(config, inventory, context.inputs)
    return _set_up(config, Split(0, inventory.ids[:num_rows], inventory.ids[num_rows:]), context)


def read_epoch(fold: GptFold, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch, in memory."""
    order = training_order(fold.config.training.seed, 0, epoch, fold.rows.num_rows)
    return list(read_batches(fold.rows, epoch, cut(order, fold.config.training.batch_size)))


def count_tokens(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> int:
    return sum(int((targets != NOTHING).sum()) for _, targets in batches)


class Bare:
    """The loop that does nothing else."""

    def __init__(self, fold: GptFold) -> None:
        self.model = build_model(fold.config, fold.tokenizer)
        self.model.load_state_dict(fold.model.state_dict())
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)

    def run(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.model.train()
        for tokens_BT, targets_BT in batches:
            nats_BT = self.model(tokens_BT, targets_BT)
            loss = nats_BT.sum() / (targets_BT != NOTHING).sum()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()


if __name__ == "__main__":
    main()
