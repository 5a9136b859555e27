"""Objects by their URI: what is no place, what waits, what is refused, and copies on this machine."""

import contextlib
import socket
import threading

import pytest
from support.object_server import BUCKET, serving_objects

from trainers.interface import DataError
from trainers.storage import remote_files
from trainers.storage.object_storage import is_uri, split_uri
from trainers.storage.remote_files import RemoteFile, hash_content, list_objects, place_copy, read_all, read_object


@pytest.fixture
def storage(bucket_server, monkeypatch):
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    return bucket_server


@pytest.mark.parametrize("uri", ["s3://", "s3://UPPER/x", "s3://lab//x", "s3:///x", "gs://a b/x"])
def test_a_malformed_place_is_refused_with_the_form_to_use(uri):
    assert is_uri(uri)
    with pytest.raises(ValueError, match=r"expected (s3|gs)://bucket/folder"):
        split_uri(uri)


def test_another_scheme_is_refused_with_those_that_are_known_and_no_key_is_shown():
    assert not is_uri("/data/s3:/x")
    with pytest.raises(ValueError, match="s3://bucket/folder or gs://bucket/folder"):
        split_uri("ftp://lab/x")
    with pytest.raises(ValueError, match="no key in it") as refused:
        split_uri("s3://KEY:SECRET@lab/x")
    assert "SECRET" not in str(refused.value)


def test_an_object_is_fetched_once_and_again_where_its_copy_is_damaged(storage, tmp_path):
    storage.put("once/a.jpg", b"picture")
    file = RemoteFile(f"s3://{BUCKET}/once/a.jpg", hash_content(b"picture"), tmp_path)
    assert [file.read_bytes(), file.read_bytes()] == [b"picture"] * 2
    assert storage.list_read().count("once/a.jpg") == 1
    place_copy(tmp_path, file.digest).write_bytes(b"pictura")
    assert file.read_bytes() == b"picture"
    assert storage.list_read().count("once/a.jpg") == 2
    assert place_copy(tmp_path, file.digest).read_bytes() == b"picture"


def test_32_objects_are_asked_for_at_the_same_time(tmp_path, monkeypatch):
    together = threading.Barrier(32, timeout=60)
    monkeypatch.setattr(RemoteFile, "read_bytes", lambda file: b"%d" % together.wait())
    files = [RemoteFile(f"s3://{BUCKET}/{number}", b"", tmp_path) for number in range(32)]
    assert sorted(map(int, read_all(files))) == list(range(32))


def test_an_object_with_other_bytes_than_it_was_looked_at_with_is_refused_and_not_kept(storage, tmp_path):
    storage.put("other/a.jpg", b"new")
    file = RemoteFile(f"s3://{BUCKET}/other/a.jpg", hash_content(b"old"), tmp_path)
    with pytest.raises(DataError, match=r"s3://lab/other/a.jpg was changed while the run works"):
        file.read_bytes()
    assert not any(tmp_path.iterdir())


def test_no_copy_takes_the_last_of_a_disk(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "SPARE_BYTES", 1 << 60)
    storage.put("full/a.jpg", b"picture")
    file = RemoteFile(f"s3://{BUCKET}/full/a.jpg", hash_content(b"picture"), tmp_path)
    assert file.read_bytes() == b"picture"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@contextlib.contextmanager
def breaking_connections(endpoint: str, num_broken: int):
    """Address of a port before a server: breaks the first connections, passes the others on."""
    host, port = endpoint.removeprefix("http://").split(":")
    broken = []

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as there:
            sockets.extend((client, there))
            back = threading.Thread(target=copy, args=(there, client))
            back.start()
            copy(client, there)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                if len(broken) < num_broken:
                    broken.append(client.close())
                    continue
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads, sockets = [threading.Thread(target=accept)], []
        threads[0].start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", broken
        for one in (listener, *sockets):  # pyarrow keeps its connections
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_a_network_that_fails_for_a_moment_is_asked_again(storage, monkeypatch):
    storage.put("hiccup/a.jpg", b"picture")
    with breaking_connections(storage.endpoint, num_broken=8) as (endpoint, broken):  # more than pyarrow itself bears
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert read_object(f"s3://{BUCKET}/hiccup/a.jpg") == b"picture"
    assert len(broken) == 8


def test_a_network_that_stays_away_is_an_error_that_the_storage_of_a_run_waits_for(storage, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"object storage has not answered .*s3://lab/a.jpg") as failed:
        read_object("s3://lab/a.jpg", patience_s=0.1)
    from ray_jobs.runs.outages import _comes_from_storage

    assert _comes_from_storage(failed.value)


def test_what_is_not_there_and_who_may_not_read_it_are_told_apart(monkeypatch):
    with serving_objects() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert list_objects("s3://lab/nothing") == list_objects("s3://nobody/a") == {}
        with pytest.raises(FileNotFoundError):
            read_object("s3://lab/nothing")
        server.refuse_keys()
        with pytest.raises(
            DataError, match=r"s3://lab/a: the storage refuses: .*Check network, bucket, .*AWS_ACCESS_KEY_ID"
        ):
            list_objects("s3://lab/a")
