"""How Ray is started or joined on machines that are not as they should be."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import ray

from ray_jobs.cluster import access, start
from ray_jobs.errors import ClusterError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Nothing that Ray would read, and what is set is taken back."""
    monkeypatch.setattr(
        os, "environ", {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    )
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(start, "prepare_token", lambda: None)


class FakeRay:
    """`ray.init` that fails with these errors, one a call, and then works."""

    def __init__(self, *errors):
        self.errors, self.configs, self.folders, self.hangups = list(errors), [], [], []

    def init(self, job_config, **_):
        self.configs.append(job_config)
        self.folders.append(os.getcwd())
        self.hangups.append(signal.getsignal(signal.SIGHUP))
        if self.errors:
            raise self.errors.pop(0)
        return "context"


def begin(fake, monkeypatch, address=None):
    monkeypatch.setattr(ray, "init", fake.init)
    return start._start_ray(address, "a", {"run": "a"}, dashboard=False)


def test_the_second_try_has_settings_of_its_own(monkeypatch):
    fake = FakeRay(RuntimeError("busy"))
    assert begin(fake, monkeypatch) == "context"
    first, second = fake.configs
    assert first is not second
    assert second.metadata == {"job_name": "a", "run": "a"}


def test_the_first_reason_is_told(monkeypatch):
    fake = FakeRay(RuntimeError("no route to the head"), RuntimeError("Conflicting worker_process_setup_hook"))
    with pytest.raises(ClusterError, match=r"^Ray cannot be started: no route to the head$"):
        begin(fake, monkeypatch)


def test_workers_find_no_modules_where_the_user_is_and_outlive_the_terminal(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGHUP)
    fake = FakeRay()
    begin(fake, monkeypatch)
    assert fake.folders == [str(start.REPOSITORY)]
    assert fake.hangups == [signal.SIG_IGN]
    assert (os.getcwd(), signal.getsignal(signal.SIGHUP)) == (str(tmp_path), before)


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize("folder", ["/tmp/" + 40 * "x", "/tmp/ü"])
def test_a_temporary_folder_that_cannot_hold_sockets_is_refused_before_ray_writes_there(monkeypatch, name, folder):
    monkeypatch.setenv(name, folder)
    fake = FakeRay()
    with pytest.raises(ClusterError, match=f"^{name}={folder} .*export RAY_TMPDIR=/tmp$"):
        begin(fake, monkeypatch)
    assert fake.configs == []


def test_the_longest_temporary_folder_holds_what_ray_makes_there(tmp_path):
    from ray._private.utils import validate_socket_filepath

    longest = 107 - len(access.SESSION_PATH) - len(str(os.getpid()))
    made = f"{longest * 'x'}{access.SESSION_PATH}".replace("_/", f"_{os.getpid()}/")
    validate_socket_filepath(made)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath("x" + made)


def prepare(home: Path | None, *, has_token: bool = False) -> str | None:
    """The token that a cluster of the job's own gets with this home folder."""
    os.environ.pop("HOME")
    if home is not None:
        os.environ["HOME"] = str(home)
    access.has_token = lambda: has_token
    access.prepare_token()
    return os.environ.get("RAY_AUTH_TOKEN")


def test_a_cluster_has_a_token_also_where_there_is_no_home_folder_to_write_it_to(monkeypatch, tmp_path):
    monkeypatch.setattr(access, "has_token", access.has_token)
    (tmp_path / "file").touch()
    assert len(prepare(None)) == 64
    del os.environ["RAY_AUTH_TOKEN"]
    os.environ["HOME"] = ""
    assert len(prepare(tmp_path / "file")) == 64  # no folder can be made there
    del os.environ["RAY_AUTH_TOKEN"]
    assert prepare(tmp_path) is None
    assert (tmp_path / ".ray").stat().st_mode & 0o777 == 0o700
    assert prepare(tmp_path / "file", has_token=True) is None


def test_a_process_without_a_home_folder_gets_one_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    access.prepare_home()
    assert os.environ["HOME"] != "/nonexistent"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a container's user
    access.prepare_home()
    assert os.environ["HOME"] == "/nonexistent"


@pytest.fixture
def noted(monkeypatch):
    """A cluster that somebody has started on this machine."""
    monkeypatch.setattr(start, "read_noted_address", lambda: "10.0.0.7:6379")
    monkeypatch.setattr(start, "answers", lambda address: True)
    monkeypatch.setattr(start, "use_token_if_there_is_one", lambda: None)
    monkeypatch.setattr(start, "read_token", lambda: "")
    return "10.0.0.7:6379"


@pytest.mark.parametrize(("answer", "joins"), [("OK", True), ("UNAUTHENTICATED", False), ("UNAVAILABLE", True)])
def test_somebody_elses_cluster_is_joined_only_where_it_lets_one_in(monkeypatch, noted, answer, joins):
    monkeypatch.setattr(start, "ask_without_ray", lambda address, token: answer)
    address, note = start._find_cluster()
    assert (address, note is None) == (noted if joins else None, joins)
    assert joins or "it may be another user's, and is not used. RAY_ADDRESS=10.0.0.7:6379 and its token join it" in note
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # whoever asks for it is told what is missing
    assert start._find_cluster() == (noted, None)


@pytest.fixture
def closed_cluster():
    """host:port of a server that turns away whoever has no token."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(request, context):
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_proxy_for_the_web_is_not_asked_for_a_cluster(monkeypatch, closed_cluster):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        os.putenv(name, "http://127.0.0.1:9")
    try:
        assert access.ask_without_ray(closed_cluster) == "UNAUTHENTICATED"
    finally:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            os.unsetenv(name)
