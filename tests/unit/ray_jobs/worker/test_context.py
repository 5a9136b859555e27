"""What a worker's place refuses to go on with."""

import pytest
import torch

from ensemble.kinds import load_kind
from ray_jobs.config.run import CheckpointConfig, TrackingConfig
from ray_jobs.errors import NonFiniteLossError
from ray_jobs.runs.folder import RunFolder
from ray_jobs.worker.context import RayWorkplace
from ray_jobs.worker.resume import is_as_it_was
from ray_jobs.worker.watchdog import Watchdog


@pytest.fixture
def place(tmp_path):
    """One worker, 4 steps an epoch; its record is not opened, since nothing is trained."""
    folder = RunFolder(tmp_path)
    return RayWorkplace(
        folder, 0, 1, rank=0, world_size=1, device="cpu", num_threads=1,
        kind=load_kind("number"),
        tracking=TrackingConfig(log_interval=100), checkpoint=CheckpointConfig(), watchdog=Watchdog(folder, 0, 1, 0, None),
        loss_advice="lower optimizer.lr",
    )  # fmt: skip


def train(place, losses):
    for step, loss in enumerate(losses, start=1):
        place.log_step(step, {"train/loss_step": torch.tensor(loss), "learning_rate": float("nan")})
        place.report_progress((step - 1) // 4, 3, step, 12)


def test_a_loss_that_is_not_finite_ends_the_fold_within_its_epoch_and_names_step_and_batch(place):
    with pytest.raises(
        NonFiniteLossError, match=r"of step 6 \(epoch 2 of 3, batch 2 of 4\) is nan. Lower optimizer.lr"
    ):
        train(place, [1.0, 1.0, 1.0, 1.0, 1.0, float("nan"), float("inf"), float("nan"), 1.0])
    assert not place.points.exist()


def test_a_point_from_before_fewer_packages_were_recorded_has_the_same_circumstances(place):
    """An unchanged environment, of which more was recorded."""
    now = place._circumstances()
    before = now | {"versions": now["versions"] | {"a-package-of-another-family": "1.0"}}
    assert is_as_it_was(before, now)
    assert not is_as_it_was(before | {"num_threads": 2}, now)
    assert not is_as_it_was(before | {"versions": before["versions"] | {"torch": "1.0"}}, now)


def test_losses_that_are_finite_go_through(place):
    train(place, [1.0] * 12)
    assert place.recording.pending == []
