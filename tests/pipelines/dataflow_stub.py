"""A small HTTP stand-in for the Dataflow service: takes jobs, runs none; the test says how they go on.

    with dataflow() as service:
        …  --dataflow_endpoint={service.endpoint} --no_auth
        job = service.await_job()
        service.finish(job, counters={"computed": 3})

It refuses a second active job of one name, as Dataflow does. A job that is cancelled is so when the test says
`service.cancelled(job)`: until then it counts as active.
"""

import contextlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from google.cloud.dataflow import JobState

TERMINAL = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
_JOB = re.compile(
    r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(?:/(?P<id>[^/]+)(?P<part>/\w+)?)?"
)


@dataclass
class Service:
    """What the stub knows.

    Attributes:
        endpoint: for --dataflow_endpoint.
        jobs: id → job as the API shows it.
        requests: "METHOD path" of every call.
    """

    endpoint: str
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    counters: dict[str, Mapping[str, int]] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def active(self) -> list[dict[str, Any]]:
        return [job for job in self.jobs.values() if job["currentState"] not in TERMINAL]

    def await_job(self, number: int = 1, *, timeout_s: float = 240.0) -> dict[str, Any]:
        """The job that was created as the `number`-th."""
        deadline_s = time.monotonic() + timeout_s
        while len(self.jobs) < number:
            assert time.monotonic() < deadline_s, "no job was submitted"
            time.sleep(0.1)
        return list(self.jobs.values())[number - 1]

    def finish(self, job: Mapping[str, Any], *, counters: Mapping[str, int] = {}) -> None:
        """The job ends well."""
        self.counters[job["id"]] = counters
        self.jobs[job["id"]]["currentState"] = "JOB_STATE_DONE"

    def fail(self, job: Mapping[str, Any], message: str) -> None:
        self.messages[job["id"]] = [message]
        self.jobs[job["id"]]["currentState"] = "JOB_STATE_FAILED"

    def cancelled(self, job: Mapping[str, Any]) -> None:
        """A job that was asked to stop has stopped."""
        assert self.jobs[job["id"]]["currentState"] == "JOB_STATE_CANCELLING"
        self.jobs[job["id"]]["currentState"] = "JOB_STATE_CANCELLED"

    def queue(self, name: str) -> dict[str, Any]:
        """A job that the service itself has created, as it does for a Flex Template before its launcher runs."""
        job = {"name": name, "type": "JOB_TYPE_BATCH"}
        _, made = self._create(job, "p", "europe-west4")
        made["currentState"] = "JOB_STATE_QUEUED"
        return made

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """One call of the API."""
        self.requests.append(f"{method} {path}")
        found = _JOB.fullmatch(path)
        if not found:
            return 404, {"error": {"code": 404, "message": f"unknown {path}"}}
        if method == "POST":
            return self._create(json.loads(body), found["project"], found["region"])
        if not found["id"]:
            return 200, {"jobs": self.active}
        job = self.jobs[found["id"]]
        if method == "PUT":
            assert JobState(json.loads(body)["requestedState"]) == JobState.JOB_STATE_CANCELLED
            job |= {"requestedState": "JOB_STATE_CANCELLED", "currentState": "JOB_STATE_CANCELLING"}
        elif found["part"] == "/messages":
            return 200, {"jobMessages": self._messages(job["id"])}
        elif found["part"] == "/metrics":
            return 200, {"metrics": self._metrics(job["id"])}
        return 200, job

    def _create(self, job: dict[str, Any], project: str, region: str) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if any(other["name"] == job["name"] for other in self.active):
                message = f"There is already an active job named {job['name']}"
                return 409, {"error": {"code": 409, "message": message, "status": "ALREADY_EXISTS"}}
            job_id = f"2026-01-01_00_00_00-{len(self.jobs) + 1:019d}"
            place = {"projectId": project, "location": region}
            self.jobs[job_id] = {**job, **place, "id": job_id, "currentState": "JOB_STATE_RUNNING"}
            return 200, self.jobs[job_id]

    def _messages(self, job_id: str) -> list[dict[str, str]]:
        return [
            {
                "id": str(i),
                "time": "2026-01-01T00:00:00Z",
                "messageText": m,
                "messageImportance": "JOB_MESSAGE_ERROR",
            }
            for i, m in enumerate(self.messages.get(job_id, []))
        ]

    def _metrics(self, job_id: str) -> list[dict[str, Any]]:
        """Every counter twice, committed and tentative, as the service shows them."""
        return [
            {
                "name": {"origin": "user", "name": name, "context": {"namespace": "stage"} | tentative},
                "scalar": value,
            }
            for name, value in self.counters.get(job_id, {}).items()
            for tentative in ({}, {"tentative": "true"})
        ]


@contextlib.contextmanager
def dataflow() -> Iterator[Service]:
    """Serves on a free loopback port."""
    service = Service("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, answer = service.answer(self.command, urlsplit(self.path).path, body)
            content = json.dumps(answer).encode()
            self.send_response_only(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _handle

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.endpoint = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
