"""What the trainers ask of torch on a real card."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from support.processes import free_port
from torch import nn

from ray_jobs.worker.resume import get_random_state, set_random_state
from trainers.learning.arithmetic import autocast, choose_precision, has_bf16, use_deterministic_algorithms


def test_auto_is_a_half_precision_that_the_card_computes_in():
    precision = choose_precision("auto", "cuda:0")
    assert precision == (torch.bfloat16 if has_bf16("cuda:0") else torch.float16)
    with autocast("cuda:0", precision):
        assert (torch.ones(4, 4, device="cuda") @ torch.ones(4, 4, device="cuda")).dtype == precision


def test_the_random_state_of_a_card_is_put_back():
    torch.rand(3, device="cuda")
    state = get_random_state()
    first = torch.rand(5, device="cuda")
    set_random_state(state)
    assert torch.equal(torch.rand(5, device="cuda"), first)


@pytest.mark.gpus(2)
def test_the_random_state_of_a_card_goes_to_the_one_that_is_trained_on_now():
    torch.cuda.set_device(0)
    state = get_random_state()
    first = torch.rand(5, device="cuda")
    torch.cuda.set_device(1)
    try:
        set_random_state(state)
        assert torch.equal(torch.rand(5, device="cuda").cpu(), first.cpu())
    finally:
        torch.cuda.set_device(0)


def test_convolutions_repeat_their_gradients_to_the_bit():
    use_deterministic_algorithms()
    torch.manual_seed(0)
    layer, pictures = nn.Conv2d(3, 16, 3, padding=1).cuda(), torch.rand(8, 3, 64, 64, device="cuda")
    gradients = []
    for _ in range(2):
        layer.zero_grad()
        layer(pictures).square().mean().backward()
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*gradients)


def normalise(rank: int, port: int, results) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    layer = nn.SyncBatchNorm(2).cuda()
    torch.manual_seed(rank)
    layer(torch.rand(4, 2, 8, 8, device="cuda"))
    results.put((rank, layer.running_mean.cpu().tolist()))
    dist.destroy_process_group()


@pytest.mark.gpus(2)
def test_sync_batch_norm_has_the_same_statistics_on_both_cards():
    context = multiprocessing.get_context("spawn")
    results, port = context.SimpleQueue(), free_port()
    processes = [context.Process(target=normalise, args=(rank, port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    means = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
    assert means[0] == means[1]
