"""Work that is handed out by Ray Data, on a Ray of its own."""

import sys

import pytest

from ray_jobs.cluster.spread import PORTION, ClusterSpread
from ray_jobs.cluster.start import RayStart
from trainers.interface import DataError


@pytest.fixture
def spread(monkeypatch):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers cannot import a test
    monkeypatch.setenv("RAY_ADDRESS", "local")
    yield ClusterSpread(RayStart("spread", dashboard=False), print)
    ray.shutdown()


def halve(items):
    return [item / 2 for item in items]


def refuse_one(items):
    if 70 in items:
        raise DataError("70 is refused")
    return halve(items)


def lose_one(items):
    if 70 in items:
        raise OSError(121, "nobody answers", "s3://lab/70")
    return halve(items)


@pytest.mark.slow
def test_results_come_in_order_and_errors_as_they_were_raised(spread):
    import ray

    assert (spread(halve, []), spread(halve, [4])) == ([], [2])
    assert not ray.is_initialized()
    many = list(range(3 * PORTION + 5))
    assert spread(halve, many) == halve(many)
    with pytest.raises(DataError, match=r"^70 is refused$"):
        spread(refuse_one, many)
    with pytest.raises(OSError, match="nobody answers") as lost:
        spread(lose_one, many)
    assert lost.value.filename == "s3://lab/70"
