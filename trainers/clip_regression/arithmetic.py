"""In which precision a device computes, and by algorithms that give the same bits each time."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from trainers.clip_regression.config import TrainingConfig


def repeat_bits() -> None:
    """Asks torch for algorithms that give the same bits each time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def choose_precision(training: TrainingConfig, device: str) -> torch.dtype:
    """The precision of the encoders on a device."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if training.precision != "auto":
        return named[training.precision]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: str, precision: torch.dtype) -> AbstractContextManager:
    """Mixed precision; nothing for float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(torch.device(device).type, precision)
