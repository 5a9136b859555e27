"""In which precision a fold computes."""

from __future__ import annotations

import pytest
import torch

from trainers.learning import arithmetic
from trainers.learning.arithmetic import autocast, choose_precision, find_precision, settle_precision


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_product_has_the_precision_that_was_chosen(precision):
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == precision


@pytest.mark.parametrize(
    ("device", "has_bf16", "expected"),
    [("cpu", True, torch.float32), ("cuda:1", True, torch.bfloat16), ("cuda:1", False, torch.float16)],
)
def test_auto_is_the_best_that_the_device_has(monkeypatch, device, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    monkeypatch.setattr(arithmetic, "_settled", [])
    assert choose_precision("auto", device) == expected
    assert choose_precision("fp32", device) == torch.float32
    assert choose_precision("bf16", device) == torch.bfloat16
    assert choose_precision("fp16", device) == torch.float16


def test_auto_is_what_was_settled_for_the_run_and_a_precision_that_was_asked_for_stays(monkeypatch):
    monkeypatch.setattr(arithmetic, "_settled", [])
    settle_precision("bf16")
    assert find_precision("cpu") == "fp32"
    assert choose_precision("auto", "cpu") == torch.bfloat16
    assert choose_precision("fp32", "cpu") == torch.float32
