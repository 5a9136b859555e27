"""What a user is told when a fold fails."""

from ray.exceptions import RayTaskError
from ray.train import WorkerGroupError

from ray_jobs.fold_launcher import explain_failure


def test_the_rank_that_failed_is_named_not_the_one_that_lost_its_connection_to_it():
    failures = {
        0: RuntimeError("[/gloo/transport/tcp/pair.cc:598] Connection closed by peer"),
        1: ValueError("picture v04.png cannot be decoded"),
    }
    assert explain_failure(WorkerGroupError("2 of 2 workers failed", failures)) == (
        "rank 1: ValueError: picture v04.png cannot be decoded"
    )


def test_an_error_that_ray_wrapped_is_unwrapped():
    wrapped = RayTaskError("train_worker", "Traceback ...", KeyError("column"))
    assert explain_failure(WorkerGroupError("1 of 1 workers failed", {0: wrapped})) == "rank 0: KeyError: 'column'"


def test_an_error_of_ray_itself_keeps_its_type():
    assert explain_failure(ConnectionError("the controller died")) == "ConnectionError: the controller died"
