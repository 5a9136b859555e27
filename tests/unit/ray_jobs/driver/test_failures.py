"""What a user is told when a fold fails, and when another attempt is made."""

import pytest
import torch
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError
from ray.train import PreemptionInfo, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, NCCLHangError, PreemptionError

from ray_jobs.driver.failures import MAX_DEATHS, Cause, explain_failure
from ray_jobs.errors import NonFiniteLossError, NoRoomError, StorageError


def test_the_rank_that_failed_is_named_not_the_one_that_lost_its_connection_to_it():
    failures = {
        0: RuntimeError("[/gloo/transport/tcp/pair.cc:598] Connection closed by peer"),
        1: ValueError("picture v04.png cannot be decoded"),
    }
    failure = explain_failure(WorkerGroupError("2 of 2 workers failed", failures))
    assert failure.message == "rank 1: ValueError: picture v04.png cannot be decoded"


LOST = RuntimeError("[/gloo/transport/tcp/pair.cc:598] Connection closed by peer [10.0.0.7]:4711")


@pytest.mark.parametrize(
    "failures",
    [
        {
            0: LOST,
            1: WorkerHealthCheckFailedError(
                "Worker 1 failed", RayActorError(error_msg="exits with a connection error code")
            ),
        },
        {0: LOST},  # the node of the other does not answer yet
    ],
)
def test_a_fold_whose_other_rank_is_gone_is_tried_again(failures):
    failure = explain_failure(WorkerGroupError("workers failed", failures))
    assert failure.cause == Cause.DIED
    assert failure.may_be_retried(1)


def test_an_error_of_ours_that_speaks_of_a_connection_is_no_death():
    failure = explain_failure(WorkerGroupError("failed", {0: StorageError("s3://bucket: Connection refused")}))
    assert (failure.cause, failure.message) == (Cause.ERROR, "s3://bucket: Connection refused")


def test_an_error_that_ray_wrapped_is_unwrapped():
    wrapped = RayTaskError("train_worker", "Traceback ...", KeyError("column"))
    of_a_task = wrapped.as_instanceof_cause()
    for error in (WorkerGroupError("1 of 1 workers failed", {0: wrapped}), wrapped, of_a_task):
        failure = explain_failure(error)
        assert (failure.cause, failure.message) == (Cause.ERROR, "rank 0: KeyError: 'column'")


def test_an_error_of_ray_itself_keeps_its_type():
    assert explain_failure(ConnectionError("no route")).message == "ConnectionError: no route"


def test_a_node_that_is_gone_before_the_fold_could_save_is_nobodys_fault():
    info = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"a": [0]})
    failure = explain_failure(PreemptionError(info, drain_timed_out=True))
    assert failure.message == "its node was taken away before it could save where it was"
    assert failure.may_be_retried(100 * MAX_DEATHS)


def test_a_fold_whose_ranks_wait_for_each_other_on_their_gpus_is_tried_again():
    failure = explain_failure(NCCLHangError("1 of 1 communicators has made no progress", worker_failures={}))
    assert failure.cause == Cause.STALLED
    assert "made no progress" in failure.message
    assert failure.may_be_retried(1)


def test_where_the_drivers_own_node_goes_no_fold_can_start():
    failure = explain_failure(ActorUnschedulableError("The node specified via NodeAffinitySchedulingStrategy ..."))
    assert "the same command on another node goes on" in failure.message
    assert not failure.may_be_retried(1)


@pytest.mark.parametrize(
    "error", [RayActorError(), WorkerCrashedError(), WorkerGroupError("died", {0: RayActorError()})]
)
def test_a_death_is_tried_again_a_few_times(error):
    failure = explain_failure(error)
    assert failure.cause == Cause.DIED
    assert [failure.may_be_retried(deaths) for deaths in (1, MAX_DEATHS, MAX_DEATHS + 1)] == [True, True, False]


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."),
        WorkerGroupError("died", {0: RayActorError(error_msg="killed due to the node running low on memory")}),
    ],
)
def test_rays_memory_killer_is_named_and_what_takes_less(error):
    failure = explain_failure(error)
    assert failure.cause == Cause.DIED
    assert "out of memory: train fewer folds at once (resources.max_folds_at_once)" in failure.message


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCompile with ...",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`",
    ],
)
def test_a_gpu_that_others_have_filled_is_full_whoever_says_it(words):
    assert explain_failure(WorkerGroupError("failed", {0: RuntimeError(words)})).cause == Cause.MEMORY


def test_a_full_gpu_and_an_error_of_the_trainer_are_not_tried_again():
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    failure = explain_failure(WorkerGroupError("failed", {0: full}), "lower training.batch_size")
    assert failure.cause == Cause.MEMORY
    assert "lower training.batch_size, or give a fold more of a GPU" in failure.message
    assert not failure.may_be_retried(1)
    failure = explain_failure(WorkerGroupError("failed", {0: NonFiniteLossError("the training loss of step 3 is nan")}))
    assert failure.message == "rank 0: the training loss of step 3 is nan"
    assert not failure.may_be_retried(1)


def test_an_elastic_fold_whose_room_was_taken_is_tried_again_however_often():
    """With the room that there is then: Ray alone would wait for the same again and again."""
    for error in (ControllerError(WorkerGroupStartupTimeoutError(num_workers=2)), NoRoomError()):
        failure = explain_failure(error)
        assert failure.cause == Cause.NO_ROOM
        assert failure.may_be_retried(100 * MAX_DEATHS)
