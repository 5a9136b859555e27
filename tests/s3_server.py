"""An S3 server of our own to test with: moto's, which holds everything in memory."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from processes import free_port

BUCKET = "runs"


class S3Server:
    """A server and the environment in which AWS's tools find it.

    Args:
        log: what it prints.
    """

    def __init__(self, log: Path) -> None:
        self.port, self.log = free_port(), log
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "the secret of the tests",
            "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        # In an environment of its own: what it stands on wants an older python-dateutil than the project has.
        own = Path(sys.prefix) / "s3" / "bin" / "python"
        command = [
            str(own if own.exists() else sys.executable),
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            str(self.port),
        ]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self._make_bucket()

    def list_requests(self, method: str) -> list[str]:
        """Objects of the requests of a kind that it has answered, in order; without the marks that pyarrow leaves for folders."""
        paths = [
            line.split()[1]
            for line in re.sub(r"\x1b\[\d+m", "", self.log.read_text()).split('"')
            if line.startswith(f"{method} /{BUCKET}/")
        ]
        return [unquote(path.partition("?")[0]).removeprefix(f"/{BUCKET}/") for path in paths if not path.endswith("/")]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _make_bucket(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(
                    urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT"), timeout=30
                ).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)


class Gate:
    """A way to a server that can be shut: connections break, and new ones are refused.

    Args:
        server: to which it leads.
    """

    def __init__(self, server: S3Server) -> None:
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
                ends.append(socket.create_connection(("127.0.0.1", self.server.port)))
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
def running_s3(log: Path) -> Iterator[S3Server]:
    """As the class."""
    server = S3Server(log)
    try:
        yield server
    finally:
        server.close()
