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
    """Asks torch for algorithms that give the same bits each time."""
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
    """The precision of forward passes: fp32, bf16, fp16 or auto, the best that the device has, and the devices of all
    ranks (`forbid_bf16`)."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        return named[precision]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if has_bf16(device) and not _forbidden else torch.float16


def has_bf16(device: str) -> bool:
    """Whether a device computes in bf16 itself."""
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def forbid_bf16() -> None:
    """For a process whose fold has ranks on cards of two kinds: `auto` is then what all of them have, as some would
    scale gradients that others do not."""
    _forbidden.append("bf16")


_forbidden: list[str] = []


def autocast(device: str, precision: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision; nothing for float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(torch.device(device).type, precision)
