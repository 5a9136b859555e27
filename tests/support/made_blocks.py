"""Blocks of rows whose arrays are cheap to compute and easy to verify."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np

from trainers.interface import Split
from trainers.storage.row_blocks import BLOCK_ROWS, KEY_BYTES, Part, RowBlocks

NUM_ROWS = 5 * BLOCK_ROWS + 3


def make_keys(num_rows=NUM_ROWS):
    return np.random.default_rng(0).integers(0, 256, (num_rows, KEY_BYTES), np.uint8)


def make_place(tell=lambda *_: None):
    return SimpleNamespace(
        rank=0,
        world_size=1,
        retry_while_unavailable=lambda what, do: do(),
        preparing=nullcontext,
        report_preparation=tell,
        touch=lambda: None,
    )


def split_of(fold, num_folds=1):
    none = np.array([], str)
    return Split(fold, none, none, none, num_folds)


def make_part(folder, keys_NK, seconds=0.0, remote=None):
    """Computes the sum of a row's key; remembers which rows it computed."""
    computed = []

    def compute(positions):
        computed.extend(positions.tolist())
        time.sleep(seconds)
        return keys_NK[positions].sum(1, dtype=np.float32)[:, None], ["odd" if p == 7 else None for p in positions]

    return Part(RowBlocks(folder, keys_NK, (1,), np.float32, remote), compute), computed
