"""Airflow in a folder of its own, and a stand-in for perfnet's interpreter that writes down how it was called."""

import atexit
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[2] / "dags"

# Airflow reads these when it is imported, and would otherwise write to the user's home and reconfigure logging.
_HOME = tempfile.mkdtemp(prefix="airflow-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = _HOME
os.environ.setdefault("_AIRFLOW__AS_LIBRARY", "1")
sys.path[:0] = [str(DAGS), str(Path(__file__).parent)]

_RECORDER = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
if "-c" in sys.argv:  # Airflow asks for Beam's version
    print("2.77.0")
    raise SystemExit
for line in {lines!r}:
    print(line, file=sys.stderr, flush=True)
if {code} < 0:
    os.kill(os.getpid(), -({code}))
raise SystemExit({code})
"""


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], list[list[str]]]]:
    """`recorder(code, *lines)` becomes PERFNET_PYTHON; what it returns lists the arguments of every call."""

    def install(code: int = 0, *lines: str) -> Callable[[], list[list[str]]]:
        calls, script = tmp_path / "calls.jsonl", tmp_path / f"python{code}"
        script.write_text(_RECORDER.format(python=sys.executable, calls=str(calls), code=code, lines=lines))
        script.chmod(0o755)
        monkeypatch.setenv("PERFNET_PYTHON", str(script))
        monkeypatch.setenv("PERFNET_HOME", str(tmp_path))
        monkeypatch.setenv("PERFNET_BEAM_OPTIONS", "{}")
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return install


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists the tests of this folder with their seconds: Airflow's are the longest of the suite."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            name = getattr(report, "nodeid", "").partition("[")[0]
            if name.startswith("tests/dags/") and hasattr(report, "duration"):
                seconds[name] += report.duration
    if seconds:
        terminalreporter.section("tests with Airflow, seconds")
        for name, took_s in seconds.most_common():
            terminalreporter.line(f"{took_s:7.1f}  {name}")
