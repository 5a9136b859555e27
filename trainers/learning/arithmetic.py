"""How every family computes: in which precision on a device, by algorithms that give the same bits each time, seeded by
fold, and sums over the ranks."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


def use_deterministic_algorithms() -> None:
    """Asks torch for algorithms that give the same bits each time, where it has them: on a GPU the backward pass of
    attention, for one, may have none. Then torch warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with a fixed workspace
    # As use_deterministic_algorithms(True, warn_only=True), which also imports torch's compiler: 2 s of a fold's start.
    torch.set_deterministic_debug_mode("warn")
    torch.backends.cudnn.benchmark = False


def seed_fold(seed: int, fold: int, rank: int = 0) -> None:
    """Seeds torch for a fold and asks for algorithms that give the same bits each time."""
    use_deterministic_algorithms()
    torch.manual_seed(int(np.random.SeedSequence([seed, fold, rank]).generate_state(1)[0]))


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum over all ranks, in place; with one rank the value itself."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def choose_precision(precision: str, device: str) -> torch.dtype:
    """The precision of forward passes: fp32, bf16, fp16 or auto, which is what `settle_precision` has said, or else the
    best that the device has."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return named[(_settled or [find_precision(device)])[-1] if precision == "auto" else precision]


def find_precision(device: str) -> str:
    """The fastest precision that a device computes in itself: fp32, bf16 or fp16."""
    if not device.startswith("cuda"):
        return "fp32"
    return "bf16" if has_bf16(device) else "fp16"


def has_bf16(device: str) -> bool:
    """Whether a device computes in bf16 itself."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def settle_precision(precision: str) -> None:
    """Says what `auto` is in this process, whose fold may have ranks, and whose run may have folds, on devices of other
    kinds: some would scale gradients that others do not."""
    _settled.append(precision)


_settled: list[str] = []


def autocast(device: str, precision: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision; nothing for float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(torch.device(device).type, precision)
