"""The lease of a run against a real S3 server, by several processes: one winner, and no last word of a loser."""

from __future__ import annotations

import io
import random
import time

import pytest
from support.lease_processes import find_late_writes, run_races, started, take_over
from support.object_server import BUCKET

from ray_jobs.errors import RunBusyError
from ray_jobs.runs.remote import lease
from ray_jobs.runs.remote.bucket import Bucket
from ray_jobs.runs.remote.lease import LEASE, Lease, read_fence, read_lease
from trainers.storage.objects import ABSENT, ChangedError, NoConditionsError


@pytest.fixture
def uri(bucket_server, monkeypatch, tmp_path):
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}/run"


def test_of_several_drivers_at_once_one_has_the_run(bucket_server, uri):
    with started(4, "race", environment=bucket_server.environment) as drivers:
        assert run_races(drivers, [f"{uri}{number}" for number in range(5)]) == [1] * 5


def test_what_a_stopped_driver_had_begun_to_write_does_not_count(bucket_server, uri):
    with started(2, "drive", uri, environment=bucket_server.environment) as drivers:
        take_over(drivers, 5, random.Random(1))
    run = uri.removeprefix(f"s3://{BUCKET}/")
    stored = bucket_server.list_stored()
    assert find_late_writes(stored, run)[0] == 0
    assert len({content.split()[0] for key, content in stored if key == f"{run}/summary.json"}) >= 5


def test_a_server_that_is_too_slow_for_the_lease_ends_the_takeovers(bucket_server):
    with (
        started(1, "race", environment=bucket_server.environment) as silent,
        pytest.raises(TimeoutError, match="wrote"),
    ):
        take_over(silent, 1, random.Random(1), wait_s=0.1)


def test_each_driver_has_the_next_number_whatever_the_one_before_has_left(uri):
    bucket = Bucket(uri)
    for number in (1, 2):
        mine = Lease(bucket)
        mine.take()
        assert read_fence(bucket) == number
        mine.release()
        assert (read_lease(bucket), read_fence(bucket)) == (None, number)
    bucket.write(LEASE, b"damaged")
    third = Lease(bucket)
    third.take()
    third.release()
    assert read_lease(bucket) is None


class _Unconditional:
    """A storage that knows no conditions, or takes no notice of them."""

    def __init__(self, objects, refuses):
        self.objects, self.refuses = objects, refuses

    def __getattr__(self, name):
        return getattr(self.objects, name)

    def put(self, name, content, *, only_if=None):
        if only_if is not None and self.refuses:
            raise NoConditionsError(121, "NotImplemented", name)
        return self.objects.put(name, content)


@pytest.mark.parametrize("refuses", [True, False])
def test_a_storage_without_conditions_has_the_lease_that_it_can_have_and_says_so(uri, monkeypatch, caplog, refuses):
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setattr(lease, "LOOK_S", 0.3)
    bucket = Bucket(uri, _Unconditional(Bucket(uri).objects, refuses))
    first = Lease(bucket)
    first.take()
    assert not first.is_strict
    assert "knows no conditions" in caplog.text
    with pytest.raises(RunBusyError, match="another driver"):
        Lease(bucket).take()
    deadline = time.monotonic() + 60
    while first.thread.is_alive() and time.monotonic() < deadline:  # it may write over it once, best effort as it is
        bucket.write(LEASE, b'{"token": "another", "process": 1, "host": "elsewhere"}')
        first.thread.join(timeout=1)
    with pytest.raises(RunBusyError, match="process 1 on elsewhere"):
        first.check()


def test_a_put_on_a_condition_is_over_what_was_known_and_nothing_else(uri):
    objects = Bucket(uri).objects
    first = objects.put("x", b"1", only_if=ABSENT)
    assert objects.put("x", b"1", only_if=ABSENT) == first  # the answer to an earlier try may have been lost
    with pytest.raises(ChangedError):
        objects.put("x", b"2", only_if=ABSENT)
    second = objects.put("x", b"2", only_if=first)
    for known in (first, objects.look("nothing") or first):
        with pytest.raises(ChangedError):
            objects.put("x", b"3", only_if=known)
    with pytest.raises(ChangedError):
        objects.put("none", b"3", only_if=second)
    content = io.BytesIO()
    assert objects.get("x", content).version.is_same(second)
    assert content.getvalue() == b"2"
    assert objects.list()["x"].version.is_same(second)
