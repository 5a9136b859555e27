"""A judge behind an OpenAI-compatible endpoint, on this machine: what it does is said by the first part of the path."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def complete(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class JudgeServer(ThreadingHTTPServer):
    """Counts the requests of each path, and keeps them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.times: Counter[str] = Counter()
        self.requests: list[tuple[dict, dict]] = []

    def place(self, mode: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{mode}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def log_message(self, *_):
        pass

    def reply(self, status, body, **headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mode = self.path.split("/")[1]
        self.server.times[mode] += 1
        self.server.requests.append((body, dict(self.headers)))
        try:
            getattr(self, f"do_{mode}")(body)
        except (BrokenPipeError, ConnectionResetError):
            return

    def do_good(self, body):
        asked = body["messages"][1]["content"]
        self.reply(200, complete(json.dumps({"score": 1.0 if "right" in asked.rsplit("grade:")[1] else 0.25})))

    def do_busy(self, body):
        is_busy = self.server.times["busy"] < 3
        self.reply(429, b"{}", Retry_After="0") if is_busy else self.reply(200, complete('{"score": 0.5}'))

    def do_broken(self, body):
        self.reply(500, b"oops", Retry_After="0.1")

    def do_recovers(self, body):
        is_down = self.server.times["recovers"] < 2
        self.reply(503, b"", Retry_After="0") if is_down else self.reply(200, complete('{"score": 1}'))

    def do_refused(self, body):
        self.reply(401, b"who are you")

    def do_hang(self, body):
        time.sleep(3)

    def do_drip(self, body):
        content = complete('{"score": 0.9}')
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for one in content:
            self.wfile.write(bytes([one]))
            self.wfile.flush()
            time.sleep(0.05)

    def do_dripping_headers(self, body):
        for one in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100:
            self.wfile.write(bytes([one]))
            self.wfile.flush()
            time.sleep(0.05)

    def do_words(self, body):
        self.reply(200, complete("I would say it is rather good"))

    def do_range(self, body):
        self.reply(200, complete('{"score": 7}'))

    def do_twice(self, body):
        self.reply(200, complete('{"score": 0} or {"score": 1}'))

    def do_garbage(self, body):
        self.reply(200, b"<html>")

    def do_cut(self, body):
        self.send_response(200)
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.wfile.write(b"{")


@contextmanager
def serve_judge():
    server = JudgeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
