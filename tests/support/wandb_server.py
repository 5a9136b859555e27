"""A stand-in Weights & Biases server: what the wandb client of this project's version asks, answered from memory.

It keeps what arrives (runs, history rows, files, artifacts) for tests to look at, and fails on demand, the ways servers
and networks fail. By hand: `python tests/support/wandb_server.py --port 8099`, then
`WANDB_BASE_URL=http://127.0.0.1:8099`."""

import argparse
import base64
import contextlib
import json
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

Fault = Literal["500", "429", "401", "404", "hang"]
Part = Literal["graphql", "file_stream", "upload"]
Json = dict[str, Any]

HISTORY, EVENTS, LOG, SUMMARY = "wandb-history.jsonl", "wandb-events.jsonl", "output.log", "wandb-summary.json"
DEFAULT_ENTITY = "tester"
API_KEY_CHARS = 40


@dataclass
class StoredArtifact:
    """An artifact, such as a logged table: its files by their name in the artifact, and the manifest."""

    name: str
    type: str
    run_id: str
    manifest: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


@dataclass
class StoredRun:
    """What the server holds of one run; `streams` are its growing files, each line under its offset."""

    id: str
    entity: str
    project: str
    display_name: str = ""
    group: str | None = None
    job_type: str | None = None
    config: Json = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    state: str = "running"
    exit_code: int | None = None
    streams: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, StoredArtifact] = field(default_factory=dict)
    stopped: bool = False

    def lines(self, stream: str) -> list[str]:
        """The lines of one growing file, in offset order."""
        return [line for _, line in sorted(self.streams.get(stream, {}).items())]

    def rows(self) -> list[Json]:
        """The history rows."""
        return [json.loads(line) for line in self.lines(HISTORY)]

    def steps(self) -> list[int]:
        """The `_step` of every history row."""
        return [row["_step"] for row in self.rows()]

    @property
    def summary(self) -> Json:
        """The last values, as the client sums them up."""
        lines = self.lines(SUMMARY)
        return json.loads(lines[-1]) if lines else {}

    def as_graphql(self) -> Json:
        """Every field that one of the answered queries selects."""
        history = self.lines(HISTORY)
        last_step = json.loads(history[-1])["_step"] if history else -1
        return {
            "id": f"storage-{self.id}",
            "name": self.id,
            "displayName": self.display_name,
            "projectId": "1",
            "project": {"id": "1", "name": self.project, "entity": {"id": "1", "name": self.entity}},
            "state": self.state,
            "group": self.group,
            "jobType": self.job_type,
            "tags": self.tags,
            "notes": None,
            "config": json.dumps({key: {"value": value} for key, value in self.config.items()}),
            "wandbConfig": json.dumps({"t": 1}),
            "summaryMetrics": json.dumps(self.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(history),
            "historyTail": json.dumps(history[-1:]),
            "historyKeys": {"lastStep": last_step, "sets": [], "keys": {}},
            "eventsLineCount": len(self.lines(EVENTS)),
            "eventsTail": json.dumps(self.lines(EVENTS)[-1:]),
            "logLineCount": len(self.lines(LOG)),
            "parquetHistory": {"parquetUrls": [], "liveData": []},
            "user": {"name": DEFAULT_ENTITY, "username": DEFAULT_ENTITY},
        }


class StandInServer:
    """The server. `fault`, `fault_on`, `latency_s`, `malformed` and `forgets_rows` may be set from any thread and hold
    from the next request on."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.fault: Fault | None = None
        self.fault_on: Part | None = None  # None: every request
        self.latency_s = 0.0
        self.malformed: set[str] = set()  # operations whose answer lacks every field
        self.forgets_rows = False  # answers well to what it does not keep
        self.requests: list[tuple[float, str]] = []  # when and what: the operation, or the path
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        self._server: _Server | None = None
        self._answers: dict[str, Callable[[Json], Json]] = {
            "Viewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": None},
            "UpsertBucket": self._upsert_bucket,
            "RunResumeStatus": self._run_resume_status,
            "Run": self._run,
            "RunHistoryKeys": self._run,
            "RunParquetHistory": self._run,
            "HistoryPage": self._history_page,
            "CreateRunFiles": self._create_run_files,
            "MarkRunFilesUploaded": lambda _: {"markRunFilesUploaded": {"success": True}},
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._create_artifact_manifest,
            "CreateArtifactFiles": self._create_artifact_files,
            "CommitArtifact": self._commit_artifact,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def start(self) -> None:
        """Listen: on a free port the first time, on the same port after `die`."""
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def die(self) -> None:
        """Stop listening and cut every open connection; what was stored stays."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
            server.cut_connections()

    def stop_run(self, run_id: str) -> None:
        """As if the user pressed Stop on the run's page: the next file_stream answer says so."""
        with self.lock:
            self.runs[run_id].stopped = True

    def graphql(self, operation: str, variables: Json) -> Json:
        """The `data` of the answer to one GraphQL operation."""
        if operation in self.malformed:
            return {}
        if operation not in self._answers:
            self.unknown.append(operation)
            return {}
        return self._answers[operation](variables)

    def file_stream(self, run_id: str, body: Json) -> Json:
        """Store one message of a run's growing files: a line that is sent again replaces the one at its offset."""
        run = self.runs[run_id]
        for name, chunk in ({} if self.forgets_rows else body.get("files") or {}).items():
            lines = run.streams.setdefault(name, {})
            lines.update(enumerate(chunk["content"], start=chunk["offset"]))
        if body.get("complete"):
            run.exit_code = body["exitcode"]
            run.state = "finished" if run.exit_code == 0 else "failed"
        return {"exitcode": None, "limits": {}, "stopped": run.stopped}

    def upload(self, kind: str, owner: str, name: str, content: bytes) -> None:
        """Store a file of a run, or a file or the manifest of an artifact."""
        if kind == "run":
            self.runs[owner].files[name] = content
        elif kind == "artifact":
            self.artifacts[owner].files[name] = content
        else:
            self.artifacts[owner].manifest = content

    def _upload_url(self, kind: str, owner: str, name: str) -> str:
        return f"{self.url}/upload/{kind}/{owner}/{urllib.parse.quote(name)}"

    def _viewer(self, _: Json) -> Json:
        name = DEFAULT_ENTITY
        return {
            "viewer": {"id": "1", "entity": name, "username": name, "email": "", "flags": "{}", "teams": {"edges": []}}
        }

    def _upsert_bucket(self, variables: Json) -> Json:
        run_id = variables["name"]
        inserted = run_id not in self.runs
        if inserted:
            entity, project = variables.get("entity") or DEFAULT_ENTITY, variables.get("project") or "uncategorized"
            self.runs[run_id] = StoredRun(run_id, entity, project, display_name=run_id)
        run = self.runs[run_id]
        run.state, run.exit_code = "running", None
        run.display_name = variables.get("displayName") or run.display_name
        run.group = variables.get("groupName") or run.group
        run.job_type = variables.get("jobType") or run.job_type
        run.tags = run.tags if variables.get("tags") is None else variables["tags"]
        if variables.get("config"):
            run.config = {key: item["value"] for key, item in json.loads(variables["config"]).items()}
        return {"upsertBucket": {"bucket": run.as_graphql(), "inserted": inserted}}

    def _run_resume_status(self, variables: Json) -> Json:
        run = self._find_run(variables)
        project = variables.get("project")
        entity = {"id": "1", "name": variables.get("entity") or DEFAULT_ENTITY}
        return {"model": {"id": "1", "name": project, "entity": entity, "bucket": run and run.as_graphql()}}

    def _run(self, variables: Json) -> Json:
        run = self._find_run(variables)
        return {"project": {"run": run and run.as_graphql()}}

    def _history_page(self, variables: Json) -> Json:
        run = self._find_run(variables)
        wanted = range(int(variables["minStep"]), int(variables["maxStep"]))
        lines = [line for line in run.lines(HISTORY) if json.loads(line)["_step"] in wanted] if run else []
        return {"project": {"run": {"history": lines}}}

    def _find_run(self, variables: Json) -> StoredRun | None:
        """The run that a query is about: the queries call its id by three names."""
        run = self.runs.get(variables.get("runName") or variables.get("run") or variables["name"])
        where = (variables.get("entity") or DEFAULT_ENTITY, variables.get("project"))
        return run if run and (run.entity, run.project) == where else None

    def _create_run_files(self, variables: Json) -> Json:
        run_id = variables["run"]
        files = [{"name": name, "uploadUrl": self._upload_url("run", run_id, name)} for name in variables["files"]]
        return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": files}}

    def _create_artifact(self, variables: Json) -> Json:
        given = variables["input"]
        artifact_id = f"artifact-{len(self.artifacts)}"
        artifact = StoredArtifact(given["artifactCollectionName"], given["artifactTypeName"], given["runName"])
        self.artifacts[artifact_id] = self.runs[artifact.run_id].artifacts[artifact.name] = artifact
        found = {"id": artifact_id, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": found}}

    def _create_artifact_manifest(self, variables: Json) -> Json:
        url = self._upload_url("manifest", variables["artifactID"], variables["name"])
        file = {"id": "1", "uploadUrl": url, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": variables["artifactID"], "file": file}}}

    def _create_artifact_files(self, variables: Json) -> Json:
        nodes = [
            {
                "storagePath": None,
                "uploadUrl": self._upload_url("artifact", file["artifactID"], file["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in variables["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _commit_artifact(self, variables: Json) -> Json:
        self.artifacts[variables["artifactID"]].committed = True
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": ""}}}


class _Server(ThreadingHTTPServer):
    """The listening socket, and the open connections that `die` must cut."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, stand_in: StandInServer) -> None:
        super().__init__(("127.0.0.1", stand_in.port), _Handler)
        self.stand_in = stand_in
        self.alive = True
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        self.alive = False
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print errors of this module, but not connections that `die` or a killed client cut."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads a request, fails if told to, lets the stand-in answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart: 40 ms an answer otherwise
    server: _Server

    def do_POST(self) -> None:
        stand_in = self.server.stand_in
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        part: Part = "graphql" if path == "/graphql" else "file_stream" if path.endswith("file_stream") else "upload"
        message: Json = json.loads(body) if part != "upload" and body else {}
        operation = re.search(r"(?:query|mutation)\s+(\w+)", message.get("query", ""))
        what = operation[1] if operation else path
        stand_in.requests.append((time.time(), what))
        time.sleep(stand_in.latency_s)
        if status := self._fault(part):
            self._send(status, {"error": f"stand-in fault {status}"})
            return
        with stand_in.lock:
            if not self.server.alive:
                return
            if path.startswith("/upload/"):
                _, _, kind, owner, name = path.split("/", 4)
                stand_in.upload(kind, owner, name, body)
                answer: Json = {}
            elif part == "upload":
                answer = {}  # telemetry
            elif not self._key_is_good():
                self._send(401, {"error": "user is not logged in"})
                return
            elif part == "file_stream":
                answer = stand_in.file_stream(path.split("/")[4], message)
            else:
                answer = {"data": stand_in.graphql(what, message.get("variables") or {})}
        self._send(200, answer)

    do_PUT = do_GET = do_POST

    def _fault(self, part: Part) -> int | None:
        """The status to fail with, if any; a hang lasts until the fault is cleared or the server dies."""
        stand_in = self.server.stand_in
        while (fault := stand_in.fault) and stand_in.fault_on in (None, part):
            if fault != "hang":
                return int(fault)
            if not self.server.alive:
                raise ConnectionAbortedError("the server died")
            time.sleep(0.02)
        return None

    def _key_is_good(self) -> bool:
        _, _, encoded = self.headers.get("Authorization", "").partition(" ")
        user, _, key = base64.b64decode(encoded).decode().partition(":")
        return user == "api" and len(key) == API_KEY_CHARS

    def _send(self, status: int, answer: Json) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at what is stored, not at a log."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8099)
    with StandInServer(parser.parse_args().port) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
