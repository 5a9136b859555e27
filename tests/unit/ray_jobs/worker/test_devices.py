"""On which device a worker trains, with cards that are faked."""

import pytest
import ray
import torch
from ray.train import torch as ray_torch

from ray_jobs.errors import ClusterError
from ray_jobs.worker.devices import find_device


def fake(monkeypatch, device, gpu_ids, error=None, fractions=None):
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: gpu_ids)
    monkeypatch.setattr(ray_torch, "get_device", lambda: torch.device(device))
    ones = torch.ones

    def put(*args, **kwargs):
        kwargs.pop("device")
        if error is not None:
            raise error
        return ones(*args, **kwargs)

    monkeypatch.setattr(torch, "ones", put)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: device)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *asked: (fractions or []).append(asked))


def test_a_gpu_that_torch_can_use_is_used_and_shared_by_its_memory(monkeypatch):
    asked = [None]
    fake(monkeypatch, "cuda:0", [0], fractions=asked)
    assert find_device(is_auto=True, share=1.0, world_size=1) == "cuda:0"
    assert find_device(is_auto=True, share=0.25, world_size=1) == "cuda:0"
    assert [(share, str(device)) for share, device in asked[1:]] == [(0.25, "cuda:0")]


def test_it_is_torchs_current_one_whichever_number_it_has(monkeypatch):
    """The random states of a resume point, and what ranks send each other, are of the current device."""
    fake(monkeypatch, "cuda:2", [2])
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(str(device)))
    find_device(is_auto=True, share=1.0, world_size=2)
    assert current == ["cuda:2"]


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    fake(monkeypatch, "cpu", [])
    assert find_device(is_auto=True, share=0.0, world_size=1) == "cpu"


OLD_CARD = RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [("cuda:0", OLD_CARD, "no kernel image is available"), ("cpu", None, "an old driver")],
)
def test_a_gpu_that_torch_cannot_use_is_said_and_refused_where_it_was_asked_for(
    monkeypatch, caplog, device, error, message
):
    fake(monkeypatch, device, [0], error)
    assert find_device(is_auto=True, share=1.0, world_size=1) == "cpu"
    assert message in caplog.text
    assert "Compile with" not in caplog.text
    for asked in ({"is_auto": False, "world_size": 1}, {"is_auto": True, "world_size": 2}):
        with pytest.raises(ClusterError, match=rf"{message}.*resources.gpus_per_fold=0"):
            find_device(share=1.0, **asked)
