"""A real S3 server for tests: moto's, as a process of its own, with an empty bucket."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from processes import free_port
from pyarrow import fs

BUCKET = "lab"


@dataclass(frozen=True)
class ObjectServer:
    """How to reach the server.

    Attributes:
        endpoint: http://host:port
        environment: what tells it to AWS's tools and to the project, with keys that the server takes.
        log: the file with a line for each request.
    """

    endpoint: str
    environment: dict[str, str]
    log: Path

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

    def list_requests(self, method: str = "GET") -> list[str]:
        """The paths that were asked for, `/lab/folder/object` or `/lab?list-type=2&…`, in order."""
        return re.findall(rf'"(?:\x1b\[[0-9;]*m)*{method} (\S+) HTTP', self.log.read_text())

    def list_read(self) -> list[str]:
        """The keys of objects whose content was asked for."""
        return [path.removeprefix(f"/{BUCKET}/") for path in self.list_requests() if "?" not in path]

    def refuse_keys(self) -> None:
        """From now on the keys of the environment are not known."""
        self.ask("/moto-api/reset-auth", "POST", b"0")

    def ask(self, path: str, method: str, content: bytes = b"") -> None:
        """A request without keys."""
        header = {"Content-Type": "text/plain"}
        request = urllib.request.Request(self.endpoint + path, content, header, method=method)
        with urllib.request.urlopen(request, timeout=10):
            pass


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
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.log"
        with log.open("wb") as output:
            own = Path(sys.prefix) / "s3" / "bin" / "python"  # the server's own environment: see pyproject.toml
            python = str(own if own.exists() else sys.executable)
            command = [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            server = ObjectServer(endpoint, environment, log)
            _make_bucket(server, process)
            yield server
        finally:
            process.terminate()
            process.wait()


def _make_bucket(server: ObjectServer, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, server.log.read_text()
        with contextlib.suppress(urllib.error.URLError):
            return server.ask(f"/{BUCKET}", "PUT")
        time.sleep(0.1)
    raise TimeoutError(server.log.read_text())
