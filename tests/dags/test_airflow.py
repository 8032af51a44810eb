"""Both DAGs in a real Airflow over sample videos.

First `dag.test()`, every task in one process, fills a workspace. Then scheduler, API server, triggerer and DAG
processor work on with it: a change, a kill, the training that the asset starts, a run with nothing to do, mistakes.
"""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from serving import BIN, ROOT, Airflow, commands, settings, until

from pipelines.samples import write_sample_videos
from stores.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # minutes of processor time, whatever else runs

CONFIG = """
workspace: {workspace}
clips: {{folder: {videos}, group_pattern: '(g\\d+)_c', test_pattern: 'g\\d*[13579]$'}}
store: {{num_shards: 8}}
run: {{workers: 1}}
frames: {{shorter_side_px: 64}}
network: {{width: 0.1, blocks: [1, 1, 1, 1], stem_kernel: [3, 5, 5]}}
data: {{window_frames: 8, crop_height_px: 48, crop_width_px: 48}}
train: {{epochs: 1, batch_size: 2, learning_rate: 0.01, warmup_steps: 1, norm_momentum: 0.1}}
student: {{weight: 0.1}}
evaluate: {{frames: 8, crop_height_px: 48, crop_width_px: 48}}
"""
RENDERED = "render/black-dot-6-uniform"
PREPARE, TRAIN = "perfnet_prepare", "perfnet_train"

_TEST_RUN = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
dag = DagBag({folder!r}).dags[sys.argv[1]]
run = dag.test(run_conf=json.loads(sys.argv[2]))
states = {{}}
for ti in run.get_task_instances():
    states.setdefault(ti.task_id, []).append(str(ti.state))
print("FOUND", json.dumps(states))
"""


@dataclass(frozen=True)
class Filled:
    """A workspace with all stores and trainings, and the state of every task that made them."""

    config: Path
    states: dict[str, dict[str, list[str]]]

    @property
    def workspace(self) -> Path:
        return self.config.parent / "ws"

    def names(self, store: str) -> dict[str, int]:
        """Files of a store's shards and when they were written."""
        folder = self.workspace / store / "shards"
        return {p.name: p.stat().st_mtime_ns for p in folder.glob("[0-9]*")} if folder.exists() else {}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    folder = tmp_path_factory.mktemp("filled")
    home, videos = folder / "airflow", folder / "two"
    for video in write_sample_videos(folder / "all", clips_per_class=2):
        if video.label in ("rise", "rock"):
            (videos / video.label).mkdir(parents=True, exist_ok=True)
            os.link(video.path, videos / video.label / video.path.name)
    config = folder / "a tiny $(touch owned) config.yaml"  # no shell may see this name
    config.write_text(CONFIG.format(workspace=folder / "ws", videos=videos))
    subprocess.run([BIN / "airflow", "db", "migrate"], env=settings(home), check=True, capture_output=True)
    return Filled(config, {dag: _tested(home, dag, {"config": str(config)}) for dag in (PREPARE, TRAIN)})


def _tested(home: Path, dag: str, conf: dict[str, Any]) -> dict[str, list[str]]:
    """States of all tasks after `dag.test()`; mapped tasks have several."""
    code = _TEST_RUN.format(folder=str(ROOT / "dags"))
    command = [sys.executable, "-c", code, dag, json.dumps(conf)]
    run = subprocess.run(command, env=settings(home), cwd=home, capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, run.stdout[-3000:] + run.stderr[-3000:]
    return json.loads(lines[-1].removeprefix("FOUND "))


def test_both_dags_run_by_themselves(filled: Filled) -> None:
    for dag, tasks in filled.states.items():
        assert {state for found in tasks.values() for state in found} == {"success"}, dag
    assert set(filled.states[TRAIN]) == {"check", "rgb", "pose", "flow", "student", "evaluate", "report"}
    for store in ("frames", "pose", "render/rgb-bar-13-ratio", "flow"):
        assert Store(str(filled.workspace), store).require_snapshot().totals["clips"] == 4
    assert (filled.workspace / "runs" / "student" / "metrics.json").exists()
    assert (filled.workspace / "reports" / "report.html").exists()
    assert not list(ROOT.glob("owned")) + list(filled.workspace.parent.rglob("owned"))


def test_change_kill_retry_and_the_asset(filled: Filled, tmp_path: Path) -> None:
    """One Airflow: two stages with a kill and the training they start, nothing to do, a part, new splits, mistakes."""
    text = filled.config.read_text()
    changed = filled.config.with_name("changed.yaml")
    # OpenCV's TV-L1 is slow enough to be caught at work.
    changed.write_text(text + "flow: {backend: opencv}\nrender: {variant: black-dot-6-uniform}\n")
    now = Filled(changed, filled.states)
    with Airflow(tmp_path / "airflow") as airflow:
        until(lambda: _has_both(airflow), within_s=300)
        _two_stages_with_a_kill(airflow, now)
        _the_training_that_they_start(airflow)
        _nothing_to_do(airflow, now)
        _a_part(airflow, now)
        _new_splits(airflow, now)
        _mistakes(airflow, now)
        assert _listening(airflow) == {"127.0.0.1"}
    assert airflow.orphans == []


def _has_both(airflow: Airflow) -> bool:
    assert airflow.call("GET", "/api/v2/importErrors")["total_entries"] == 0
    found = {dag["dag_id"] for dag in airflow.call("GET", "/api/v2/dags")["dags"]}
    return found >= {PREPARE, TRAIN}


def _states(airflow: Airflow, dag: str, run: str) -> dict[str, str]:
    return {name: task["state"] for name, task in airflow.tasks(dag, run).items()}


def _two_stages_with_a_kill(airflow: Airflow, now: Filled) -> None:
    """A run of two stages runs just these; a killed command is tried again and goes on."""
    before = {store: now.names(store) for store in ("frames", "pose", "flow")}
    run = airflow.trigger(PREPARE, config=str(now.config), stages=["render", "flow"])
    flow_command = ("prepare", "flow", f"--config={now.config}")
    until(lambda: _new_pairs(now, before["flow"]), within_s=600, every_s=0.05)
    (command,) = commands(*flow_command)
    os.kill(command, signal.SIGKILL)
    pairs, written = _new_pairs(now, before["flow"]), now.names("flow")
    kept = {name: written[name] for name in {*pairs, *before["flow"]}}
    assert len(pairs) < 4, "it had finished before it was killed"

    assert airflow.finished(PREPARE, run)["state"] == "success"
    tasks = airflow.tasks(PREPARE, run)
    assert {name: task["state"] for name, task in tasks.items()} == {
        **dict.fromkeys(("check", "plan_render", "render", "plan_flow", "flow", "publish"), "success"),
        **dict.fromkeys(("plan_frames", "frames", "plan_pose", "pose"), "skipped"),
    }
    # This Airflow has told training of nothing yet.
    assert airflow.returned(PREPARE, run, "publish") == ["clips", "frames", "pose", RENDERED, "flow"]
    assert tasks["flow"]["try_number"] == 2
    assert "was killed by signal 9" in airflow.log(PREPARE, run, "flow", 1)
    after = now.names("flow")
    assert {name: after[name] for name in kept} == kept  # the retry has written only what was missing
    assert {store: now.names(store) for store in ("frames", "pose")} == {
        s: before[s] for s in ("frames", "pose")
    }
    snapshot = Store(str(now.workspace), "flow").require_snapshot()
    assert snapshot.totals["clips"] == 4
    assert {s.data for s in snapshot.shards if s.data} == _new_pairs(now, before["flow"])


def _new_pairs(now: Filled, before: dict[str, int]) -> set[str]:
    """Data files of flow that were not there before and that a summary has committed."""
    names = now.names("flow").keys() - before.keys()
    committed = {_stem(name) for name in names if name.endswith(".json")}
    return {name for name in names if name.endswith(".parquet") and _stem(name) in committed}


def _stem(name: str) -> str:
    """Shard, number of shards and key: what the names of a shard's two files begin with."""
    return "-".join(name.split("-")[:4])


def _the_training_that_they_start(airflow: Airflow) -> None:
    """The last task emits the asset, which starts the other DAG with the same configuration."""
    until(lambda: airflow.runs(TRAIN), within_s=300)
    (started,) = airflow.runs(TRAIN)
    assert started["run_type"] == "asset_triggered"
    assert airflow.finished(TRAIN, started["dag_run_id"])["state"] == "success"
    states = _states(airflow, TRAIN, started["dag_run_id"])
    assert states.pop("rgb") == "skipped"  # what it reads has not changed
    assert set(states.values()) == {"success"}


def _nothing_to_do(airflow: Airflow, now: Filled) -> None:
    """The same again: every stage is skipped as fresh, and no training starts."""
    before, started = len(airflow.runs(TRAIN)), time.monotonic()
    run = airflow.trigger(PREPARE, config=str(now.config))
    assert airflow.finished(PREPARE, run)["state"] == "success"
    print(f"nothing to do: {time.monotonic() - started:.0f} s")
    states = _states(airflow, PREPARE, run)
    assert states.pop("check") == "success"
    assert set(states.values()) == {"skipped"}
    time.sleep(5)
    assert len(airflow.runs(TRAIN)) == before


def _a_part(airflow: Airflow, now: Filled) -> None:
    """`airflow dags trigger` with two stages leaves a third one stale: training is not started on that."""
    part = now.config.with_name("part.yaml")
    part.write_text(now.config.read_text().replace(RENDERED.removeprefix("render/"), "rgb-dot-6-ratio"))
    conf = json.dumps({"config": str(part), "stages": ["frames", "flow"]})
    command = [BIN / "airflow", "dags", "trigger", PREPARE, "--run-id", "part", "--conf", conf]
    subprocess.run(command, env=settings(airflow.home), check=True, capture_output=True)
    assert airflow.finished(PREPARE, "part")["state"] == "success"
    states = _states(airflow, PREPARE, "part")
    assert {name for name, state in states.items() if state != "skipped"} == {"check"}
    assert "not ready: render/rgb-dot-6-ratio is not up to date" in airflow.log(PREPARE, "part", "publish")


def _new_splits(airflow: Airflow, now: Filled) -> None:
    """They make no store stale, and are a reason to train."""
    airflow.call("PATCH", f"/api/v2/dags/{TRAIN}", {"is_paused": True})  # that it starts has been seen
    text = now.config.read_text()
    now.config.write_text(text.replace("[13579]", "[02468]"))
    run = airflow.trigger(PREPARE, config=str(now.config))
    assert airflow.finished(PREPARE, run)["state"] == "success"
    states = _states(airflow, PREPARE, run)
    assert {name for name, state in states.items() if state != "skipped"} == {"check", "publish"}
    assert airflow.returned(PREPARE, run, "publish") == ["clips"]
    event = airflow.call("GET", "/api/v2/assets/events?order_by=-timestamp")["asset_events"][0]
    assert (event["extra"]["config"], event["extra"]["changed"]) == (str(now.config), ["clips"])


def _mistakes(airflow: Airflow, now: Filled) -> None:
    """An unknown stage is refused by the API, a missing configuration by the first task; neither is tried again."""
    body = {"logical_date": None, "conf": {"config": str(now.config), "stages": ["flw"]}}
    status, text = airflow.refusal("POST", f"/api/v2/dags/{PREPARE}/dagRuns", body)
    assert status in (400, 422)
    assert "'flw' is not one of" in text

    for conf, message in (
        ({"config": "/absent.yaml"}, "perfnet: --config: /absent.yaml does not exist"),
        ({"config": str(now.config), "stage": ["flow"]}, "conf: unknown key 'stage'; known: "),
    ):
        run = airflow.trigger(PREPARE, **conf)
        assert airflow.finished(PREPARE, run)["state"] == "failed"
        tasks = airflow.tasks(PREPARE, run)
        assert (tasks["check"]["state"], tasks["check"]["try_number"]) == ("failed", 1)
        assert {task["state"] for name, task in tasks.items() if name != "check"} == {"upstream_failed"}
        assert message in airflow.log(PREPARE, run, "check")


def _listening(airflow: Airflow) -> set[str]:
    """Addresses on which any process of this Airflow listens."""
    inodes = set()
    for pid in airflow.processes():
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            row = line.split()
            if row[3] == "0A" and row[9] in inodes:  # listens
                found.add(_address(row[1].split(":")[0]))
    return found


def _address(written: str) -> str:
    """An address of /proc/net: words of four bytes, each backwards."""
    words = [bytes.fromhex(written[i : i + 8])[::-1] for i in range(0, len(written), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def test_addresses_are_read_as_the_kernel_writes_them() -> None:
    assert _address("0100007F") == "127.0.0.1"
    assert _address("00000000000000000000000001000000") == "::1"
    assert _address("0" * 32) == "::"
    assert _address("0000000000000000FFFF00000100007F") == "127.0.0.1"
