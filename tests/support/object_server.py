"""A real S3 server for tests: moto's, as a process of its own, with an empty bucket."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pyarrow import fs

from support.processes import free_port

BUCKET = "lab"
# In an environment of its own: what moto stands on wants an older python-dateutil than the project has.
OWN_PYTHON = Path(sys.prefix) / "s3" / "bin" / "python"


@dataclass(frozen=True)
class ObjectServer:
    """How to reach the server.

    Attributes:
        endpoint: http://host:port
        environment: what tells it to AWS's tools and to the project, with keys that the server takes.
        log: the file with a line for each request.
        process: its process.
    """

    endpoint: str
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def files(self) -> fs.S3FileSystem:
        """The server's buckets as folders, whatever the environment says."""
        keys = {"access_key": "tester", "secret_key": "secret", "region": "us-east-1"}
        return fs.S3FileSystem(endpoint_override=self.endpoint, allow_delayed_open=True, **keys)

    def put(self, key: str, content: bytes) -> None:
        """Writes an object into the bucket."""
        with self.files.open_output_stream(f"{BUCKET}/{key}") as stream:
            stream.write(content)

    def put_folder(self, folder: Path, key: str) -> None:
        """Writes all files below a folder."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())

    def list_stored(self) -> list[tuple[str, str]]:
        """Key and content of each small object that was put, in order."""
        return re.findall(r"^stored (\S+) (.*)\n", self.log.read_text(), re.MULTILINE)

    def list_requests(self, method: str = "GET") -> list[str]:
        """The paths that were asked for, `/lab/folder/object` or `/lab?list-type=2&…`, in order."""
        return re.findall(rf'"(?:\x1b\[[0-9;]*m)*{method} (\S+) HTTP', self.log.read_text())

    def list_read(self) -> list[str]:
        """The keys of objects whose content was asked for."""
        return [path.removeprefix(f"/{BUCKET}/") for path in self.list_requests() if "?" not in path]

    def list_keys(self, method: str) -> list[str]:
        """The keys of the requests of a kind, in order; without the marks that pyarrow leaves for folders."""
        paths = [path.partition("?")[0] for path in self.list_requests(method) if path.startswith(f"/{BUCKET}/")]
        return [unquote(path).removeprefix(f"/{BUCKET}/") for path in paths if not path.endswith("/")]

    def refuse_keys(self) -> None:
        """From now on the keys of the environment are not known."""
        self.ask("/moto-api/reset-auth", "POST", b"0")

    def ask(self, path: str, method: str, content: bytes = b"") -> None:
        """A request without keys."""
        header = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self.endpoint + path, content, header, method=method)
        with urllib.request.urlopen(request, timeout=10):
            pass


class Gate:
    """A way to a server that can be shut: connections break, and new ones are refused.

    Args:
        server: to which it leads.
    """

    def __init__(self, server: ObjectServer) -> None:
        self.server, self.port, self.open_ones = server, free_port(), set()
        self.environment = server.environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}
        self._open()

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Nobody answers meanwhile."""
        self.close()
        try:
            yield
        finally:
            self._open()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in list(self.open_ones):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _open(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was shut
            while True:
                ends = [listener.accept()[0]]
                ends.append(socket.create_connection(("127.0.0.1", int(self.server.endpoint.rpartition(":")[2]))))
                self.open_ones |= set(ends)
                for here, there in (ends, ends[::-1]):
                    threading.Thread(target=self._pass_on, args=(here, there), daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := here.recv(1 << 16):
                there.sendall(content)
        for one in (here, there):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.open_ones.discard(here)
        here.close()  # the thread of the other direction closes the other end


@contextlib.contextmanager
def serving_objects() -> Iterator[ObjectServer]:
    """Starts the server and makes the bucket BUCKET; everything is gone afterwards."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.log"
        with log.open("wb") as output:
            python = str(OWN_PYTHON if OWN_PYTHON.exists() else sys.executable)
            command = [python, str(Path(__file__).with_name("s3_server.py")), "-H", "127.0.0.1", "-p", str(port)]
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            server = ObjectServer(endpoint, environment, log, process)
            _make_bucket(server)
            yield server
        finally:
            process.kill()
            process.wait()


def _make_bucket(server: ObjectServer) -> None:
    for _ in range(600):
        assert server.process.poll() is None, server.log.read_text()
        with contextlib.suppress(urllib.error.URLError):
            return server.ask(f"/{BUCKET}", "PUT")
        time.sleep(0.1)
    raise TimeoutError(server.log.read_text())
