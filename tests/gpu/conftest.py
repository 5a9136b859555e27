"""These tests run on a real card. Where torch can use none they are skipped with the reason."""

import pytest
import torch


def explain_no_gpu(number: int = 1) -> str | None:
    """Why there are not so many GPUs that torch can use; None: there are."""
    if not torch.cuda.is_available():
        return "torch can use no GPU here"
    if torch.cuda.device_count() < number:
        return f"needs {number} GPUs, and torch can use {torch.cuda.device_count()} here"
    return None


@pytest.fixture(autouse=True)
def _need_gpus(request):
    marker = request.node.get_closest_marker("gpus")
    if reason := explain_no_gpu(marker.args[0] if marker else 1):
        pytest.skip(reason)
