"""Optimisers without the wrappers that load torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from support.processes import REPOSITORY

from trainers.learning.optimizer_state import without_compiler

STEPS = """
import sys
import torch
from trainers.learning.arithmetic import seed_fold
from trainers.learning.optimizer_state import pack_optimizer, unpack_optimizer, without_compiler
seed_fold(0, 0)
weight = torch.nn.Parameter(torch.ones(3))
optimizer = without_compiler(torch.optim.AdamW)([weight], lr=0.1, fused=True)
optimizer.zero_grad()
(weight**2).sum().backward()
optimizer.step()
unpack_optimizer(optimizer, pack_optimizer(optimizer))
print("torch._dynamo" in sys.modules, "torch._inductor" in sys.modules)
"""


def train(kind, num_steps=5):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(7))
    optimizer = kind([weight], lr=0.1)
    for _ in range(num_steps):
        optimizer.zero_grad()
        ((weight - 1) ** 4).sum().backward()
        optimizer.step()
    return weight.detach(), optimizer


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_it_computes_the_same_bits(kind):
    expected, _ = train(kind)
    found, optimizer = train(without_compiler(kind))
    assert torch.equal(found, expected)
    assert isinstance(optimizer, kind)
    assert not any(state.requires_grad for states in optimizer.state.values() for state in states.values())


def test_a_fold_that_compiles_nothing_does_not_load_torchs_compiler():
    done = subprocess.run([sys.executable, "-c", STEPS], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
