"""What a user is told when a fold fails, and when another attempt is made."""

import pytest
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.train import WorkerGroupError

from ray_jobs.failures import MAX_DEATHS, Cause, explain_failure


def test_the_rank_that_failed_is_named_not_the_one_that_lost_its_connection_to_it():
    failures = {
        0: RuntimeError("[/gloo/transport/tcp/pair.cc:598] Connection closed by peer"),
        1: ValueError("picture v04.png cannot be decoded"),
    }
    failure = explain_failure(WorkerGroupError("2 of 2 workers failed", failures))
    assert failure.message == "rank 1: ValueError: picture v04.png cannot be decoded"


def test_an_error_that_ray_wrapped_is_unwrapped():
    wrapped = RayTaskError("train_worker", "Traceback ...", KeyError("column"))
    failure = explain_failure(WorkerGroupError("1 of 1 workers failed", {0: wrapped}))
    assert (failure.cause, failure.message) == (Cause.ERROR, "rank 0: KeyError: 'column'")


def test_an_error_of_ray_itself_keeps_its_type():
    assert explain_failure(ConnectionError("no route")).message == "ConnectionError: no route"


@pytest.mark.parametrize("error", [RayActorError(), WorkerGroupError("died", {0: RayActorError()})])
def test_a_death_is_tried_again_a_few_times(error):
    failure = explain_failure(error)
    assert failure.cause == Cause.DIED
    assert [failure.may_be_retried(deaths) for deaths in (1, MAX_DEATHS, MAX_DEATHS + 1)] == [True, True, False]


def test_a_full_gpu_and_an_error_of_the_trainer_are_not_tried_again():
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    failure = explain_failure(WorkerGroupError("failed", {0: full}))
    assert failure.cause == Cause.MEMORY
    assert "lower training.batch_size" in failure.message
    assert not failure.may_be_retried(1)
    assert not explain_failure(WorkerGroupError("failed", {0: FloatingPointError("nan")})).may_be_retried(1)
