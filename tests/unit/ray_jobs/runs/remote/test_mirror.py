"""The mirror of a run against a real S3 server: what is put and brought, in which order, and who may."""

from __future__ import annotations

import json
import shutil
import threading
import time

import pytest
from support.made_run import make_run
from support.object_server import BUCKET, Gate, serving_objects

from ray_jobs.errors import RunBusyError, RunError, RunFolderError, StorageError, SupersededError
from ray_jobs.runs.checkpoints import open_checkpoint, write_checkpoint
from ray_jobs.runs.files import read_json, write_json
from ray_jobs.runs.folder import RunFolder
from ray_jobs.runs.json_files.requests import StopWhen, request_leave, request_stop
from ray_jobs.runs.json_files.status import FoldState, FoldStatus, read_status, write_status
from ray_jobs.runs.location import count_put, find_place, find_uri, split_run
from ray_jobs.runs.outages import Storage
from ray_jobs.runs.record import MetricRecord, Record, RecordReader, read_lines
from ray_jobs.runs.remote import lease
from ray_jobs.runs.remote import mirror as mirror_module
from ray_jobs.runs.remote.bucket import Bucket
from ray_jobs.runs.remote.fold_mirror import FoldMirror
from ray_jobs.runs.remote.lease import LEASE, Lease, read_lease
from ray_jobs.runs.remote.object_names import LAUNCHED, counts, find_chain, find_fold, is_derived, is_local
from ray_jobs.runs.remote.run_mirror import BackgroundPusher, RunMirror, fetch_run, hold_run, is_at_work, list_runs
from trainers.storage.whole_files import write_whole


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_objects() as server:
        yield server


@pytest.fixture
def uri(server, monkeypatch, tmp_path):
    """A run's URI in a storage of this test, and a machine of its own to work on."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "machine"))
    (tmp_path / "machine").mkdir()
    return f"s3://{BUCKET}/{tmp_path.name}/one"


@pytest.fixture
def folder(uri):
    """A finished run of two folds in its working folder; nothing of it is put yet."""
    storage, name, _ = split_run(uri)
    return make_run(find_place(storage, name), num_folds=2, num_epochs=2, num_rows=8, num_test=4)[0]


def elsewhere(folder, name="other machine"):
    """The folder of the same run on another machine."""
    other = RunFolder(folder.root.parents[3] / name / folder.root.name)
    other.root.mkdir(parents=True)
    return other


def put_whole(folder, uri):
    """Puts a run with all its folds."""
    mirror = RunMirror(folder, uri)
    for fold in range(2):
        worker = FoldMirror(folder, uri, fold, 1)
        worker.begin_record()
        worker.push_end()
        worker.push()
        worker.clean_up()
    mirror.push_run(logs=True)
    return mirror


def list_files(root):
    """{name: bytes} of what belongs to the run."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {name: p.read_bytes() for p in files if not is_local(name := p.relative_to(root).as_posix())}


def test_a_run_that_was_put_is_brought_to_another_machine_bit_for_bit(folder, uri):
    put_whole(folder, uri)
    other = elsewhere(folder)
    RunMirror(other, uri).pull_all()
    assert list_files(other.root) == list_files(folder.root)
    assert other.completed_folds(2) == [0, 1]
    assert not [name for name in Bucket(uri).list() if "segments" in name]


def test_what_was_put_without_an_answer_is_gone_when_the_fold_is_complete(folder, uri):
    left = "folds/0/checkpoints/best/model-0123456789ab.safetensors"
    Bucket(uri).write(left, b"replaced since")
    assert left not in put_whole(folder, uri).bucket.list()
    assert "folds/0/status.json" in Bucket(uri).list()


def test_the_objects_are_the_truth_and_replace_or_remove_what_a_machine_has(folder, uri):
    put_whole(folder, uri)
    truth = list_files(folder.root)
    folder.submission("mean").write_text("another")
    (folder.root / "summary.json").unlink()
    (folder.root / "figures").mkdir(exist_ok=True)
    (folder.root / "figures" / "old.png").write_bytes(b"old")
    folder.fold(0).predictions("test", "best").write_bytes(b"damaged")
    folder.fold(1).manifest.unlink()
    (tensors,) = folder.fold(1).checkpoint("best").glob("*.safetensors")
    tensors.write_bytes(b"mean")  # as long as what it was
    RunMirror(folder, uri).pull_all()
    assert list_files(folder.root) == truth


def test_a_run_that_is_not_in_the_storage_leaves_an_empty_folder_to_the_driver_and_nobody_else_touches_what_is_there(
    folder, uri, tmp_path
):
    """A working folder may hold the last copy of a run whose objects are gone."""
    (folder.root / "made_data").mkdir()
    mirror, held = RunMirror(folder, uri), list_files(folder.root)
    for look in (mirror.pull_run, lambda: is_at_work(folder), lambda: fetch_run(uri, whole=False)):
        with pytest.raises(RunError, match=rf"no run at {uri}: .*the copy in .* was kept"):
            look()
    with pytest.raises(RunError, match="no run at"), hold_run(folder):
        pass
    assert list_files(folder.root) == held
    copy = RunFolder(shutil.copytree(folder.root, tmp_path / "kept"))
    assert find_uri(folder) == uri
    assert find_uri(copy) is None
    with hold_run(copy) as of_copy:
        assert of_copy.uri is None
    assert mirror.pull_run(may_begin=True) == {}
    assert {path.name for path in folder.root.iterdir()} == {".mirror", "made_data", "driver.lock"}
    assert not fetch_run(uri, whole=False).exists()


def test_folds_without_a_config_belong_to_no_new_run(folder, uri):
    mirror = put_whole(folder, uri)
    mirror.bucket.delete(["config.json"])
    with pytest.raises(RunFolderError, match=r"has no config.json, but files of folds, such as folds/0/"):
        mirror.pull_run(may_begin=True)


def test_what_a_cleaner_of_old_files_takes_from_the_machine_is_brought_back_and_never_removed(folder, uri):
    mirror = put_whole(folder, uri)
    mirror.push_run()
    for path in (folder.config, folder.provenance):
        path.unlink()
    mirror.push_run()
    assert {"config.json", "provenance.json"} <= set(mirror.bucket.list())
    assert folder.config.exists()
    assert folder.provenance.exists()


def test_what_a_cleaner_takes_from_a_fold_in_training_is_brought_back_and_never_removed(folder, uri, caplog):
    put_whole(folder, uri)
    fold, worker = folder.fold(0), FoldMirror(folder, uri, 0, 2)
    worker.pull_fold(folder, 0)
    fold.clear(keep_checkpoints=True)  # as an attempt that goes on begins: what it makes anew is removed there, too
    worker.begin_record()
    assert fold.is_complete() is False
    assert not [name for name in worker.bucket.list("folds/0") if "predictions" in name or "manifest" in name]
    write_checkpoint(fold.checkpoint("resume_0"), b"point", {"global_step": 1})
    worker.push()
    held, objects = list_files(fold.root), worker.bucket.list("folds/0")
    assert {"checkpoints/best/checkpoint.json", "checkpoints/resume_0/checkpoint.json"} < set(held)
    shutil.rmtree(fold.checkpoint("resume_0"))
    for path in fold.checkpoint("best").iterdir():
        path.unlink()
    worker.push()
    assert list_files(fold.root) == held
    assert worker.bucket.list("folds/0") == objects
    assert caplog.text.count("by somebody: it is brought back") == 4
    (tensors,) = fold.checkpoint("best").glob("*.safetensors")
    tensors.unlink()
    worker.bring_back()  # before it is read
    open_checkpoint(fold.checkpoint("best")).check()
    write_checkpoint(fold.checkpoint("best"), b"better", {})
    worker.push()
    assert worker.name(tensors) not in worker.bucket.list("folds/0")


def test_what_other_jobs_have_made_stays_until_they_have_put_it(folder, uri):
    mirror = put_whole(folder, uri)
    for name in ("predictions/new_mean.csv", "analysis/training_live.png"):
        (folder.root / name).parent.mkdir(exist_ok=True)
        (folder.root / name).write_text("x")
    mirror.pull_run()
    assert (folder.root / "predictions/new_mean.csv").exists()
    mirror.push_results()
    assert {"predictions/new_mean.csv", "analysis/training_live.png"} <= set(mirror.bucket.list())


def test_who_only_looks_sees_which_folds_are_complete(folder, uri):
    put_whole(folder, uri)
    write_status(folder, FoldStatus(0, state=FoldState.COMPLETED, attempt=1))
    RunMirror(folder, uri).push_run()
    shutil.rmtree(folder.root)
    fetch_run(uri, whole=False)
    assert not folder.fold(0).manifest.exists()
    assert read_status(folder, 0).state == FoldState.COMPLETED


def test_other_machines_read_the_checkpoint_that_was_just_written(folder, uri):
    put_whole(folder, uri)
    other = elsewhere(folder)
    worker = FoldMirror(other, uri, 0, 1)
    other.fold(0).bad_rows(1).parent.mkdir(parents=True)
    other.fold(0).bad_rows(1).write_text("{}")
    worker.bring_checkpoint("best")
    names = {path.name for path in other.fold(0).checkpoint("best").iterdir()}
    assert names == {path.name for path in folder.fold(0).checkpoint("best").iterdir()}
    assert not other.fold(0).checkpoint("final").exists()
    assert other.fold(0).bad_rows(1).exists()


def test_only_what_changed_is_put_and_what_is_gone_is_removed(folder, uri, server):
    mirror = put_whole(folder, uri)
    before = server.list_keys("PUT")
    mirror.push_run()
    assert server.list_keys("PUT") == before
    write_json(folder.summary, {"outcome": "partial"})
    folder.readme.unlink()
    mirror.push_run()
    assert [name.rpartition("/")[2] for name in server.list_keys("PUT")[len(before) :]] == ["summary.json"]
    assert "README.md" not in mirror.bucket.list()
    assert json.loads(mirror.bucket.read("summary.json")) == {"outcome": "partial"}


def test_files_that_come_while_the_run_is_put_do_not_end_the_pusher(folder, uri, monkeypatch):
    """A fold that ends is brought in another thread, at any moment."""
    mirror, look = put_whole(folder, uri), mirror_module._look

    def look_and_bring(path):
        mirror.pushed[f"log/fold_0/{len(mirror.pushed)}.log"] = (0, 0)
        return look(path)

    monkeypatch.setattr(mirror_module, "_look", look_and_bring)
    mirror.push_run()


def test_what_makes_files_count_is_put_last_and_removed_first(folder, uri, server):
    put_whole(folder, uri)
    start = uri.partition(f"{BUCKET}/")[2] + "/"
    mine = [name.removeprefix(start) for name in server.list_keys("PUT") if name.startswith(start)]
    files = [name for name in mine if name.startswith("folds/0/") and not name.endswith("status.json")]
    assert files[-1] == "folds/0/manifest.json"
    for name in ("best", "final"):
        at = [place for place, file in enumerate(files) if f"checkpoints/{name}/" in file]
        assert files[at[-1]].endswith("checkpoint.json")
    assert mine[-2:] == ["config.json", "summary.json"]
    worker = FoldMirror(folder, uri, 0, 2)
    worker.pull_fold(folder, 0)
    folder.fold(0).clear(keep_checkpoints=False)
    worker.begin_record()
    removed = [name.removeprefix(start) for name in server.list_keys("DELETE") if f"{start}folds/0/" in name]
    assert removed[0] == "folds/0/manifest.json"
    assert [name.endswith("checkpoint.json") for name in removed[1:]] == [True] * 2 + [False] * (len(removed) - 3)


def test_lines_that_a_killed_driver_could_not_put_are_kept_if_they_go_on_from_what_was_put(folder, uri):
    events = Record(folder.events)
    events.append({"event": "first"})
    mirror = put_whole(folder, uri)
    events.append({"event": "second"})
    other = RunMirror(folder, uri)
    other.pull_all()
    assert [row["event"] for row in read_lines(folder.events)] == ["first", "second"]
    other.push_run()
    assert mirror.bucket.read("events.jsonl") == folder.events.read_bytes()
    folder.events.write_text('{"event":"of another run"}\n' * 3)
    other.pull_all()
    assert [row["event"] for row in read_lines(folder.events)] == ["first", "second"]


def test_rows_of_the_driver_count_once_they_are_put_and_those_of_a_fold_at_once(folder, uri):
    record = MetricRecord(folder.ensemble_record)
    log(record, 1, 2)
    mirror = put_whole(folder, uri)
    mirror.push_run()
    log(record, 3)
    reader = RecordReader(folder.ensemble_record)

    def read():
        return [row["global_step"] for row in reader.read_new(end=count_put(folder, folder.ensemble_record))]

    assert read() == [1, 2]
    assert read() == []
    mirror.push_run()
    assert read() == [3]
    reader.close()
    assert count_put(folder, folder.fold_record(0)) is None
    shutil.rmtree(folder.root)
    with hold_run(folder, uri):
        assert count_put(folder, folder.ensemble_record) == folder.ensemble_record.stat().st_size


def begin_attempt(folder, uri, attempt, keep):
    """A worker that has opened its record and put what it keeps."""
    worker = FoldMirror(folder, uri, 0, attempt)
    worker.pull_fold(folder, 0)
    record = MetricRecord(folder.fold_record(0), keep=keep)
    worker.begin_record()
    return worker, record


def log(record, *values):
    for value in values:
        record.log(value, {"loss": value})


def steps(folder):
    return [row["global_step"] for row in read_lines(folder.fold_record(0))]


def test_a_record_goes_on_on_an_empty_machine_and_a_survivor_adds_nothing(uri):
    storage, name, _ = split_run(uri)
    first_place = RunFolder(find_place(storage, name))
    worker, record = begin_attempt(first_place, uri, 1, 0)
    log(record, 1, 2, 3)
    worker.push()
    log(record, 4)
    worker.push()
    log(record, 5)  # never put: the machine is lost
    second_place = elsewhere(first_place)
    second, again = begin_attempt(second_place, uri, 2, 3)
    assert steps(second_place) == [1, 2, 3]
    log(record, 6)
    worker.push_record()  # the survivor, which does not know yet
    log(again, 40, 50)
    second.push()
    third_place = elsewhere(first_place, "third")
    RunMirror(third_place, uri).pull_record(third_place, 0)
    assert steps(third_place) == [1, 2, 3, 40, 50]
    assert third_place.fold_record(0).read_bytes() == second_place.fold_record(0).read_bytes()


def test_many_segments_are_joined_and_read_as_one_record(uri, monkeypatch):
    monkeypatch.setattr("ray_jobs.runs.remote.fold_mirror._MOST_SEGMENTS", 3)
    storage, name, _ = split_run(uri)
    folder = RunFolder(find_place(storage, name))
    worker, record = begin_attempt(folder, uri, 1, 0)
    driver, other = RunMirror(elsewhere(folder), uri), elsewhere(folder, "reader")
    reader, followed = RecordReader(driver.folder.fold_record(0)), []
    for step in range(10):
        log(record, step)
        worker.push_record()
        driver._follow_record(driver.folder, 0)
        followed += [row["global_step"] for row in reader.read_new()]
        RunMirror(other, uri).pull_record(other, 0)
        assert other.fold_record(0).read_bytes() == folder.fold_record(0).read_bytes()
    reader.close()
    assert followed == list(range(10))
    assert len(worker.bucket.list("metrics/segments")) <= 4


def test_a_chain_ends_at_a_gap_and_takes_no_other_attempts_segments():
    sizes = {
        "s/000001-000000000000": 9,
        "s/000002-000000000000": 4,
        "s/000002-000000000004": 2,
        "s/000002-000000000007": 1,
    }
    assert [name[-4:] for name in find_chain(sizes)] == ["0000", "0004"]
    assert find_chain({"s/000002-000000000004": 2, "s/x": 1}) == []


def test_an_attempt_that_was_superseded_on_another_machine_puts_nothing_that_counts(uri):
    storage, name, _ = split_run(uri)
    folder = RunFolder(find_place(storage, name))
    worker, record = begin_attempt(folder, uri, 1, 0)
    driver = RunFolder(elsewhere(folder).root)
    write_json(driver.config, {})
    write_json(driver.fold(0).status, {"fold": 0, "attempt": 2}, checksum=True)
    RunMirror(driver, uri).push_run()
    log(record, 1)
    write_checkpoint(folder.fold(0).checkpoint("best"), b"tensors", {})
    with pytest.raises(SupersededError, match="attempt 2 of fold 0 has begun; attempt 1 stops"):
        worker.push()
    assert "folds/0/checkpoints/best/checkpoint.json" not in worker.bucket.list()


def test_whatever_is_written_meanwhile_each_push_leaves_a_whole_checkpoint(uri):
    """As the last one is what another machine goes on from."""
    storage, name, _ = split_run(uri)
    folder, is_over = RunFolder(find_place(storage, name)), threading.Event()
    worker, _ = begin_attempt(folder, uri, 1, 0)
    place = folder.fold(0).checkpoint("best")
    write_checkpoint(place, b"0", {"number": 0})

    def write():
        number = 0
        while not is_over.is_set():
            number += 1
            write_checkpoint(place, str(number).encode(), {"number": number})

    thread, seen = threading.Thread(target=write), set()
    thread.start()
    try:
        for _ in range(40):
            worker.push()
            named = json.loads(worker.bucket.read(worker.name(place / "checkpoint.json")))["tensors"]
            assert worker.bucket.measure(worker.name(place / named)), named
            seen.add(named)
    finally:
        is_over.set()
        thread.join()
    assert len(seen) > 20
    assert not list((folder.root / ".mirror").glob("staged_*"))


def test_a_worker_on_another_machine_brings_what_the_driver_left_and_hears_it(folder, uri, monkeypatch):
    monkeypatch.setattr("ray_jobs.runs.remote.fold_mirror.POLL_S", 0.05)
    (folder.inputs).mkdir()
    (folder.inputs / "rows.arrow").write_bytes(b"rows")
    driver = put_whole(folder, uri)
    driver.publish_inputs([folder])
    other = elsewhere(folder)
    (other.root / "inputs").mkdir()
    (other.root / "inputs" / "rows.arrow").write_bytes(b"ROWS")  # of an earlier run of this name
    request_stop(other, StopWhen.NOW, "an earlier driver")
    worker = FoldMirror(other, uri, 0, 1)
    with worker.at_work(Storage(other, 1.0)):
        assert (other.inputs / "rows.arrow").read_bytes() == b"rows"
        assert other.read_config() == folder.read_config()
        assert not other.stop_request.exists()
        # The one request is heard where the other is not there.
        for ask, request in (
            (lambda: request_leave(folder.fold(0), 1), other.fold(0).leave_request),
            (lambda: request_stop(folder, StopWhen.EPOCH, "a test"), other.stop_request),
        ):
            ask()
            driver.push_run()
            deadline = time.monotonic() + 20
            while not request.exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
    assert read_json(other.stop_request)["when"] == "epoch"
    assert LAUNCHED in worker.bucket.list()


def test_a_fold_that_trains_on_this_machine_is_left_alone_by_who_brings_the_run(folder, uri):
    put_whole(folder, uri)
    worker = FoldMirror(folder, uri, 0, 1)
    with worker.holding(worker._lock_name()):
        folder.fold(0).manifest.unlink()
        folder.fold(1).manifest.unlink()
        RunMirror(folder, uri).pull_all()
    assert folder.completed_folds(2) == [1]


def test_a_second_driver_is_refused_and_a_dead_one_on_this_machine_blocks_nobody(uri, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    bucket = Bucket(uri)
    first, second = Lease(bucket), Lease(bucket)
    first.take()
    with pytest.raises(RunBusyError, match=r"another driver .* works on s3://"):
        second.take()
    first.release()
    second.take()
    second.release()
    assert read_lease(bucket) is None
    dead = second.mine | {"process": 2**22 + 1, "beat": 7}
    bucket.write(LEASE, json.dumps(dead).encode())
    began = time.monotonic()
    third = Lease(bucket)
    third.take()
    assert time.monotonic() - began < 5
    third.release()


def test_a_driver_of_another_machine_that_fell_silent_is_taken_over_and_hears_of_it(uri, monkeypatch):
    monkeypatch.setattr(lease, "SILENCE_S", 1.0)
    monkeypatch.setattr(lease, "LOOK_S", 0.1)
    monkeypatch.setattr(lease, "RENEW_S", 0.3)
    bucket, silent = Bucket(uri), None
    silent = Lease(bucket)
    bucket.write(LEASE, json.dumps(silent.mine | {"host": "elsewhere", "beat": 1}).encode())
    second = Lease(bucket)
    began = time.monotonic()
    second.take()
    assert time.monotonic() - began >= 1.0
    with pytest.raises(RunBusyError, match="another driver"):
        silent.confirm()
    second.release()
    with pytest.raises(
        RunBusyError, match="taken over by another driver while this one was silent, and that one has ended"
    ):
        silent.confirm()
    late = Lease(bucket)
    late.take()
    bucket.delete([LEASE])
    late.thread.join(timeout=30)  # it does not take it back
    assert read_lease(bucket) is None
    with pytest.raises(RunBusyError):
        late.check()


def test_a_job_that_holds_a_run_puts_what_it_made_and_another_fetches_it(folder, uri, monkeypatch):
    put_whole(folder, uri)
    shutil.rmtree(folder.root)
    root = fetch_run(uri, whole=True)
    assert root == folder.root
    with hold_run(folder) as mirror:
        assert LEASE in mirror.bucket.list()
        (folder.root / "submission_median.csv").write_text("ID,price\n")
        with pytest.raises(RunBusyError), hold_run(folder):
            pass
    assert read_lease(mirror.bucket) is None
    assert mirror.bucket.read("submission_median.csv") == b"ID,price\n"
    assert not is_at_work(folder)
    assert list_runs(split_run(uri)[0]) == ["one"]


def test_a_storage_that_is_not_there_is_refused_with_what_to_do(uri, monkeypatch, folder):
    with (
        pytest.raises(StorageError, match="no such bucket 'no-such-bucket'; create it"),
        hold_run(folder, "s3://no-such-bucket/one"),
    ):
        pass
    with pytest.raises(StorageError, match="bucket in lower case"):
        Bucket("s3://Upper/one")
    with pytest.raises(RunError, match="names no run"):
        fetch_run(f"s3://{BUCKET}", whole=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"s3://lab/.*AWS_ENDPOINT_URL.*AWS_ACCESS_KEY_ID"), hold_run(folder, uri):
        pass


def test_an_outage_is_waited_for_as_a_disk_is(uri, folder, monkeypatch):
    here, said = Bucket(uri), []
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    bucket = Bucket(uri)

    def come_back():
        bucket.objects = here.objects

    storage = Storage(folder, 60.0, said.append, while_waiting=come_back)
    storage.retry_while_unavailable("putting x", lambda: bucket.write("x", b"1"), by_name=False)
    assert here.read("x") == b"1"
    assert len(said) == 2
    assert "putting x cannot be done: [Errno 121] " in said[0]
    assert f"{uri}/x" in said[0]
    impatient = Storage(folder, 0.0, said.append)
    with pytest.raises(StorageError, match="bringing it could not be done"):
        impatient.retry_while_unavailable("bringing it", lambda: Bucket(uri).read("x"), by_name=False)


def test_the_driver_says_that_the_storage_is_away_and_back_and_ends_where_another_took_over(
    folder, uri, server, monkeypatch
):
    monkeypatch.setattr("ray_jobs.runs.remote.run_mirror.INTERVAL_S", 0.05)
    gate, said = Gate(server), []
    monkeypatch.setenv("AWS_ENDPOINT_URL", gate.environment["AWS_ENDPOINT_URL"])
    mirror = RunMirror(folder, uri)

    def wait_for(number):
        deadline = time.monotonic() + 60
        while len(said) < number:
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    with BackgroundPusher(mirror, [folder], 2, said.append) as pusher:
        with gate.shut():
            write_json(folder.summary, {"outcome": "partial"})
            wait_for(1)
        wait_for(2)
        assert "takes no files" in said[0]
        assert uri in said[0]
        assert "works again" in said[1]
        mirror.lease.other = mirror.lease.mine
        pusher.thread.join(timeout=30)
        assert not pusher.thread.is_alive()
    assert json.loads(mirror.bucket.read("summary.json")) == {"outcome": "partial"}
    with pytest.raises(RunBusyError):
        mirror.push_run()
    gate.close()


def test_a_file_of_a_checkpoint_is_put_before_what_makes_it_count_whatever_its_name(uri, tmp_path):
    storage, name, _ = split_run(uri)
    folder = RunFolder(find_place(storage, name))
    worker, _ = begin_attempt(folder, uri, 1, 0)
    (tmp_path / "adapter").mkdir()
    write_whole(tmp_path / "adapter" / "config.json", b"{}")
    write_checkpoint(folder.fold(0).checkpoint("best"), b"tensors", {}, files=tmp_path / "adapter")
    file, counting = (
        folder.fold(0).checkpoint("best").glob("files-*/config.json"),
        "folds/0/checkpoints/best/checkpoint.json",
    )
    names = [worker.name(path) for path in file] + [counting]
    assert [counts(one) for one in names] == [False, True]
    worker.push()
    assert {*names} <= set(worker.bucket.list())
    other = elsewhere(folder)
    FoldMirror(other, uri, 0, 1).bring_checkpoint("best")
    assert open_checkpoint(other.fold(0).checkpoint("best")).read_files() == {"config.json": b"{}"}
    write_checkpoint(folder.fold(0).checkpoint("best"), b"tensors", {})
    worker.push()
    assert not {names[0]} & set(worker.bucket.list())


def test_names_say_whose_they_are():
    assert find_fold("folds/3/checkpoints/best/checkpoint.json") == ("", 3)
    assert find_fold("members/wide/metrics/fold_2.jsonl") == ("members/wide/", 2)
    assert find_fold("metrics/segments/fold_12/000001-000000000000") == ("", 12)
    assert find_fold("log/fold_0/training_1.log") == ("", 0)
    for name in ("metrics/epoch_metrics_20260101_000000.csv", "log/training_1.log", "log/rank1_1.log"):
        assert find_fold(name) == ("", 0)  # of a run without folds
    for name in (
        "log/fold_0/training_1.log",
        "log/training_1.log",
        "metrics/fold_1/batch_metrics_1.csv",
        "metrics/epoch_metrics_1.csv",
    ):
        assert is_derived(name)
    for name in (
        "log/ray.log",
        "metrics/fold_0.jsonl",
        "metrics/segments/fold_0/000001-000000000000",
        "folds/0/manifest.json",
    ):
        assert not is_derived(name)
    for name in ("folds/3/status.json", "metrics/ensemble.jsonl", "config.json", "log/ray.log"):
        assert find_fold(name) is None
    for name in (
        "driver.lock",
        "made_data/a.csv",
        ".mirror/uri",
        "wandb/offline-run-1/x",
        "folds/0/.x.tmp",
        ".ray_train/x",
    ):
        assert is_local(name)
    for name in ("../x", "folds/0/../../../x", "/etc/x", "inputs//x"):
        assert is_local(name)
    for name in ("wandb/ids.json", "config.json", "folds/0/manifest.json"):
        assert not is_local(name)
    assert split_run("s3://b/p/one/members/wide/") == ("s3://b/p", "one", "members/wide")


def test_what_a_driver_that_was_silent_puts_or_removes_so_late_is_put_over(folder, uri, monkeypatch):
    monkeypatch.setattr(lease, "SILENCE_S", 0.3)
    monkeypatch.setattr(lease, "LOOK_S", 0.1)
    put_whole(folder, uri)
    silent, late = Lease(Bucket(uri)), RunMirror(elsewhere(folder), uri)
    silent.bucket.write(LEASE, json.dumps(silent.mine | {"host": "elsewhere", "fence": 4}).encode())
    late.pull_all()
    with hold_run(folder) as mirror:
        assert mirror.lease.follows_silent
        assert mirror.fence == 5
        write_json(folder.summary, {"outcome": "complete"})
        mirror.push_run()
        late.lease.mine, late.lease.beat = silent.mine, 1
        write_json(late.folder.summary, {"outcome": "stopped"})
        with pytest.raises(RunBusyError):  # it knows another summary than there is
            late._put("summary.json", late.folder.summary.read_bytes())
        late.bucket.write("config.json", b"{}")  # which this driver has not put yet
        late.bucket.delete(["fold_plan.parquet"])
    assert json.loads(mirror.bucket.read("summary.json")) == {"outcome": "complete"}
    assert mirror.bucket.read("config.json") == folder.config.read_bytes()
    assert mirror.bucket.read("fold_plan.parquet") == folder.fold_plan.read_bytes()


def test_manifests_have_the_number_of_the_driver_and_its_workers_end_with_it(folder, uri):
    put_whole(folder, uri)
    with hold_run(folder) as mirror:
        mirror.publish_inputs([folder])
        assert json.loads(mirror.bucket.read(LAUNCHED))["fence"] == mirror.fence == 1
        worker = FoldMirror(elsewhere(folder), uri, 0, 1)
        worker.bring()
        worker.refuse_if_superseded()
        worker.folder.fold(0).write_manifest(worker.fence)
        assert read_json(worker.folder.fold(0).manifest)["fence"] == 1
    with hold_run(folder), pytest.raises(SupersededError, match="another driver has taken over"):
        worker.push_part(worker.folder.fold(0).manifest)
