"""A real Airflow for a test: `dags/serve.sh` in a folder of its own, and its REST API."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def until(what: Callable[[], Any], *, within_s: float, every_s: float = 0.5) -> Any:
    """What `what` returns as soon as it is true."""
    end = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < end, f"waited {within_s} s"
        time.sleep(every_s)
    return found


def settings(home: Path) -> dict[str, str]:
    """The environment of commands that belong to the Airflow in `home`."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    return {
        **mine,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_BIN": str(BIN),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PERFNET_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }


class Airflow:
    """One running Airflow, until the block is left."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.token = ""
        self.orphans: list[int] = []

    def __enter__(self) -> "Airflow":
        self.home.mkdir(parents=True)
        self.output = self.home / "serve.out"
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [ROOT / "dags" / "serve.sh", "0"],
                env=settings(self.home),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until(self._started, within_s=400)
        except BaseException:
            self.__exit__()
            raise
        address, self.user, self.password = re.findall(r"Airflow\s+(\S+)\nlogin\s+(\S+) (\S+)", self.text)[0]
        self.address = address
        login = {"username": self.user, "password": self.password}
        self.token = self.call("POST", "/auth/token", login)["access_token"]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=120)
        finally:
            self.orphans = self.processes()
            for pid in self.orphans:
                os.kill(pid, signal.SIGKILL)

    @property
    def text(self) -> str:
        return self.output.read_text()

    def _started(self) -> bool:
        assert self.process.poll() is None, self.text
        return "login" in self.text

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer; raises urllib's HTTPError."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def refusal(self, method: str, path: str, body: Any) -> tuple[int, str]:
        """Status and text of an answer that must be an error."""
        try:
            self.call(method, path, body)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        raise AssertionError(f"{path} took {body}")

    def trigger(self, dag: str, **conf: Any) -> str:
        """Starts a run through the REST API; returns its id."""
        body = {"logical_date": None, "conf": conf}
        return self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"]

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return self.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=run_after")["dag_runs"]

    def run(self, dag: str, run: str) -> dict[str, Any]:
        return next(r for r in self.runs(dag) if r["dag_run_id"] == run)

    def finished(self, dag: str, run: str, *, within_s: float = 900) -> dict[str, Any]:
        """The run once it has ended."""
        until(lambda: self.run(dag, run)["state"] in ("success", "failed"), within_s=within_s, every_s=1)
        return self.run(dag, run)

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Task instances by task_id; of mapped ones the last."""
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def returned(self, dag: str, run: str, task: str) -> Any:
        """What a task returned."""
        path = (
            f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value?deserialize=true"
        )
        return self.call("GET", path)["value"]

    def log(self, dag: str, run: str, task: str, attempt: int = 1, map_index: int = -1) -> str:
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/logs/{attempt}?map_index={map_index}"
        return json.dumps(self.call("GET", path))

    def processes(self) -> list[int]:
        """All living processes of this Airflow: of its session, or with its home in their environment.

        Some services write their title over their environment.
        """
        mark = f"AIRFLOW_HOME={self.home}\0".encode()
        ours = {pid for pid, environment in _read_all("environ") if mark in environment + b"\0"}
        states = [(pid, text.rpartition(b")")[2].split()) for pid, text in _read_all("stat")]
        # Fields after the name: state, parent, group, session.
        ours |= {pid for pid, state in states if int(state[3]) == self.process.pid and state[0] != b"Z"}
        return sorted(ours)


def commands(*words: str) -> list[int]:
    """Processes whose command line has all these arguments."""
    return [
        pid for pid, line in _read_all("cmdline") if {w.encode() for w in words} <= set(line.split(b"\0"))
    ]


def _read_all(name: str) -> list[tuple[int, bytes]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((int(folder.name), (folder / name).read_bytes()))
        except OSError:  # it has ended, or is not ours
            continue
    return found
