"""An object store for tests: a real HTTP emulator of Google Cloud Storage, and a proxy that makes it fail.

with emulator() as url:                         # a process of its own, in memory, with the bucket `bucket`
    with faulty_proxy(url, fail=plan) as faults:
        with environment(faults.url):           # what gcsfs needs to know; a plain dict: `variables(url)`
            ...
        assert faults.injected                  # the requests that really failed
"""

import contextlib
import http.client
import http.server
import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

BUCKET = "bucket"
_START_TIMEOUT_S = 30.0
Fail = Callable[[int, str, str], str | None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def variables(url: str) -> dict[str, str]:
    """Environment variables with which gcsfs and the Google clients talk to `url` and to nobody else."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_GCE_CHECK": "true",
        "GOOGLE_CLOUD_PROJECT": "test-project",
    }


@contextlib.contextmanager
def environment(url: str) -> Iterator[None]:
    """Sets `variables(url)` in this process; child processes inherit them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(url).items():
            patch.setenv(name, value)
        yield


@contextlib.contextmanager
def emulator(bucket: str = BUCKET) -> Iterator[str]:
    """Starts an emulator on a free loopback port in a process of its own; yields its address."""
    port = free_port()
    options = ["--host=127.0.0.1", f"--port={port}", "--in-memory", "--quiet", f"--default-bucket={bucket}"]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _await(port: int, process: subprocess.Popen) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "the emulator ended at once"
        time.sleep(0.05)
    raise TimeoutError("the emulator does not answer")


def object_names(url: str, bucket: str = BUCKET) -> set[str]:
    """Names of all objects, read past gcsfs."""
    with urllib.request.urlopen(f"{url}/storage/v1/b/{bucket}/o") as answer:
        return {item["name"] for item in json.load(answer).get("items", [])}


def upload(url: str, path: Path, name: str, bucket: str = BUCKET) -> str:
    """Puts a file into the bucket past gcsfs; returns its gs:// address."""
    target = f"{url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={urllib.request.quote(name)}"
    request = urllib.request.Request(target, path.read_bytes(), {"Content-Type": "application/octet-stream"})
    urllib.request.urlopen(request).close()
    return f"gs://{bucket}/{name}"


@dataclass
class Faults:
    """A running proxy.

    Attributes:
        url: what STORAGE_EMULATOR_HOST must say.
        seen: every request, as "METHOD path?query".
        injected: (kind of failure, request) of those that were made to fail.
    """

    url: str
    fail: Fail
    seen: list[str] = field(default_factory=list)
    injected: list[tuple[str, str]] = field(default_factory=list)


def schedule(*kinds: str | None) -> Fail:
    """A `fail` that treats the first requests as listed and lets the others pass."""

    def fail(number: int, method: str, path: str) -> str | None:
        return kinds[number] if number < len(kinds) else None

    return fail


@contextlib.contextmanager
def faulty_proxy(emulator_url: str, *, fail: Fail) -> Iterator[Faults]:
    """An HTTP proxy before the emulator that makes requests fail; yields its `Faults`.

    Args:
        fail: called for every request with its number (from 0), method and path with query; answers None to let it
            pass, or how it fails:
            "503"   the server refuses it, the emulator never sees it;
            "404"   the same with another code (any three digits);
            "drop"  the connection is closed before anything is sent to the emulator;
            "lost"  the emulator does it, then the connection is closed without an answer;
            "half"  the emulator does it, and half of its answer's body is sent before the connection is closed;
            "slow"  the answer comes after a second.
            It is called from several threads, one call at a time. `schedule(...)` makes one from a list.
    """
    faults = Faults("", fail)
    server = _Server(("127.0.0.1", 0), _Proxy)
    server.faults, server.target, server.lock = faults, emulator_url, threading.Lock()
    faults.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    faults: Faults
    target: str
    lock: threading.Lock

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the test


class _Proxy(http.server.BaseHTTPRequestHandler):
    server: _Server

    def _handle(self) -> None:
        body = self._body()
        faults = self.server.faults
        with self.server.lock:
            request = f"{self.command} {self.path}"
            kind = faults.fail(len(faults.seen), self.command, self.path)
            faults.seen.append(request)
            if kind:
                faults.injected.append((kind, request))
        if kind and kind.isdigit():
            self._answer(int(kind), [], b'{"error": {"message": "injected"}}')
        elif kind != "drop":
            self._forward(body, kind)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content

    def _forward(self, body: bytes, kind: str | None) -> None:
        host = urlsplit(self.server.target).netloc
        headers = {n: v for n, v in self.headers.items() if n.lower() != "transfer-encoding"}
        headers |= {"Content-Length": str(len(body))}  # Host stays ours: upload addresses lead back here
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if kind == "slow":
            time.sleep(1)
        if kind != "lost":
            self._answer(answer.status, answer.getheaders(), content, half=kind == "half")

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    """An emulator for a test module, with the environment set: yields its address."""
    with emulator() as url, environment(url):
        yield url
