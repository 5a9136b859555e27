"""What a fold's task does before it trains."""

from __future__ import annotations

import os

import pytest
import ray

from ray_jobs.driver.fold_task import hide_gpus_that_are_not_reserved


@pytest.mark.parametrize(("reserved", "visible"), [([], ""), ([1], "1")])
def test_a_fold_sees_gpus_only_if_it_has_reserved_some(monkeypatch, reserved, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: reserved)
    hide_gpus_that_are_not_reserved()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
