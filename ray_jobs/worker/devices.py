"""Where a worker trains: on the GPU that Ray has given it if torch can use it."""

from __future__ import annotations

import logging

import ray
import ray.train.torch
import torch

from ray_jobs.errors import ClusterError

logger = logging.getLogger(__name__)


def find_device(*, is_auto: bool, share: float, world_size: int) -> str:
    """The device of this worker, such as `cuda:0`, which becomes torch's current one. A worker that shares a GPU takes
    no more than its share of the memory, so that what a neighbour needs cannot end it.

    Args:
        is_auto: whether nobody has asked for a GPU: then it trains on the CPU where torch cannot use the one that there
            is.
        share: of a GPU that it has reserved; 1 and more: whole ones.
        world_size: workers of the fold; of several each has to have a GPU, as they talk over them.

    Raises:
        ClusterError: torch cannot use the GPU, and it was asked for.
    """
    device, reason = _ask_torch(has_gpu=bool(ray.get_gpu_ids()))
    if reason is None:
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
            if 0 < share < 1:
                torch.cuda.set_per_process_memory_fraction(share, device)
        return device
    what = f"torch cannot use the GPU that Ray counts here: {reason}"
    if not is_auto or world_size > 1:
        raise ClusterError(
            f"{what}. Expected one that torch {torch.__version__} supports, with its driver; set "
            "resources.gpus_per_fold=0 to train on CPUs"
        )
    logger.warning("%s; the fold trains on the CPU", what)
    return "cpu"


def _ask_torch(*, has_gpu: bool) -> tuple[str, str | None]:
    """A device, and why it cannot be used; None: it can."""
    try:
        device = str(ray.train.torch.get_device())
        if device.startswith("cuda"):
            torch.ones(8, device=device).sum().item()  # a card may be too old for the kernels that torch comes with
        elif has_gpu:
            return device, "it sees none (an old driver, or a torch that is built without CUDA)"
        return device, None
    except (RuntimeError, AssertionError) as error:
        return "", (str(error).strip().splitlines() or [type(error).__name__])[0]
