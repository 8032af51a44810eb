"""The operators, each run over a stand-in for perfnet: how it is called, and what its exit codes become."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import perfnet_prepare
import perfnet_settings
import perfnet_tasks
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from fake_context import context_of

from pipelines import cli
from pipelines.beam_options import check_known
from pipelines.commands import COMMANDS

Recorder = Callable[..., Callable[[], list[list[str]]]]
CLOUD = {"project": "p-1", "region": "europe-west4", "temp_location": "gs://bucket/temp"}
NASTY = "a b; touch owned $(touch owned) `touch owned` 'x' -- --max_rejected=1 \n.yaml"


def task_of(dag: Any, task_id: str) -> Any:
    return dag.get_task(task_id)


@pytest.fixture
def train() -> Any:
    import perfnet_train

    return perfnet_train.dag


@pytest.fixture
def prepare() -> Any:
    return perfnet_prepare.dag


def test_a_command_is_run_with_the_configuration(recorder: Recorder, train: Any, tmp_path: Path) -> None:
    calls = recorder(0, "noise", "rgb: /ws/runs/rgb")
    assert task_of(train, "rgb").execute(context_of(stages=["rgb"])) == "rgb: /ws/runs/rgb"
    assert calls() == [["-m", "pipelines.cli", "train", "rgb", "--skip_code", "--config=c.yaml"]]


def test_what_a_trigger_says_never_reaches_a_shell(recorder: Recorder, prepare: Any, tmp_path: Path) -> None:
    calls = recorder(0)
    task_of(prepare, "plan_flow").execute(context_of(config=NASTY))
    ((*_, config, dry_run, skip_code),) = calls()
    assert (config, dry_run, skip_code) == (f"--config={NASTY}", "--dry_run", "--skip_code")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (99, AirflowSkipException, "fresh"),
        (2, AirflowFailException, "perfnet: --config: c.yaml does not exist"),
        (1, AirflowException, "ended with exit code 1: perfnet: --config"),
        (-9, AirflowException, "was killed by signal 9"),
    ],
)
def test_exit_codes(
    recorder: Recorder, prepare: Any, code: int, error: type[Exception], message: str
) -> None:
    recorder(code, "perfnet: --config: c.yaml does not exist", "plan: flow: fresh")
    with pytest.raises(error, match=message) as caught:
        task_of(prepare, "plan_flow").execute(context_of())
    assert type(caught.value) is error  # a subclass of AirflowException decides whether it is tried again


def test_a_missing_interpreter_is_said_once(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFNET_PYTHON", "/absent/python")
    monkeypatch.setenv("PERFNET_HOME", "/")
    with pytest.raises(AirflowFailException, match=r"PERFNET_PYTHON .*No such file .*'/absent/python'"):
        task_of(prepare, "check").execute(context_of())


def test_stages_that_were_not_chosen_are_skipped_without_a_command(
    recorder: Recorder, prepare: Any, train: Any
) -> None:
    calls = recorder(0)
    for dag, task_id in ((prepare, "plan_pose"), (train, "student"), (train, "report")):
        with pytest.raises(AirflowSkipException):
            task_of(dag, task_id).execute(context_of(stages=["flow"]))
    assert calls() == []


def test_a_stage_is_computed_when_its_plan_says_so(recorder: Recorder, prepare: Any) -> None:
    calls = recorder(0, "flow: 4 clips in")
    with pytest.raises(AirflowSkipException):
        task_of(prepare, "flow").execute(context_of(pulled=None))
    assert calls() == []
    asked = []

    def pull(**kwargs: Any) -> str:
        asked.append(kwargs)
        return "plan: flow: stale"

    context = context_of(pulled=pull, max_rejected=0)
    assert task_of(prepare, "flow").execute(context) == "flow: 4 clips in"
    assert asked == [{"task_ids": "plan_flow", "map_indexes": -1}]
    assert calls() == [["-m", "pipelines.cli", "prepare", "flow", "--config=c.yaml", "--max_rejected=0"]]


def test_force_needs_no_plan(recorder: Recorder, prepare: Any) -> None:
    calls = recorder(0)
    assert task_of(prepare, "plan_pose").execute(context_of(force=True))
    assert calls() == []
    task_of(prepare, "pose").execute(context_of(pulled="yes", force=True))
    assert calls()[0][-1] == "--force"


def test_a_variant_is_an_option_of_the_command(recorder: Recorder) -> None:
    calls = recorder(0)
    task = perfnet_tasks.PlanOperator(task_id="p", stage="render", variant="black-dot-6-uniform")
    task.execute(context_of())
    assert "--render.variant=black-dot-6-uniform" in calls()[0]


def test_check_hands_out_the_variants(recorder: Recorder, prepare: Any) -> None:
    calls = recorder(0, "3 clips")
    assert task_of(prepare, "check").execute(context_of()) == [""]
    assert calls() == [["-m", "pipelines.cli", "clips", "check", "--write", "--config=c.yaml"]]
    task_of(prepare, "check").execute(context_of(max_rejected=0.5))
    assert calls()[1][-1] == "--max_rejected=0.5"
    two = ["black-dot-6-uniform", "rgb-bar-13-ratio"]
    assert task_of(prepare, "check").execute(context_of(variants=two)) == two


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conf": {"stage": ["flow"]}}, "conf: unknown key 'stage'; known: config, stages"),
        ({"beam_options": CLOUD}, "beam_options: they are for runner DataflowRunner"),
        ({"runner": "DataflowRunner"}, "needs project, region, temp_location"),
        (
            {"runner": "DataflowRunner", "beam_options": {**CLOUD, "setup_file": "x.py"}},
            "beam_options: 'setup_file' is not allowed",
        ),
        (
            {"runner": "DataflowRunner", "beam_options": {**CLOUD, "project": "p --setup_file=x.py"}},
            "beam_options: project: found 'p --setup_file=x.py'",
        ),
    ],
)
def test_check_refuses_before_any_work(
    recorder: Recorder, prepare: Any, changes: dict[str, Any], message: str
) -> None:
    calls = recorder(0)
    with pytest.raises(AirflowFailException, match=message) as caught:
        task_of(prepare, "check").execute(context_of(**changes))
    assert len(str(caught.value).splitlines()) == 1
    assert calls() == []


def test_check_hands_on_the_beam_options(
    recorder: Recorder, prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """perfnet itself says what is missing, before any other task runs."""
    calls = recorder(0)
    ours = {
        "sdk_container_image": "i:1",
        "experiments": ["a", "b"],
        "no_use_public_ips": True,
        "no_auth": False,
    }
    monkeypatch.setenv("PERFNET_BEAM_OPTIONS", json.dumps({**ours, "labels": {"team": "x"}}))
    task_of(prepare, "check").execute(context_of(runner="DataflowRunner", beam_options=CLOUD))
    beam = calls()[0][calls()[0].index("--") + 1 :]
    assert beam[:4] == ["--runner=DataflowRunner", *(f"--{name}={value}" for name, value in CLOUD.items())]
    assert beam[4:] == [
        "--sdk_container_image=i:1",
        "--experiments=a",
        "--experiments=b",
        "--no_use_public_ips",
        '--labels={"team": "x"}',
    ]
    check_known(beam)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "workers need perfnet: add --sdk_container_image IMAGE or --setup_file"),
        ({"sdk_container_image": "i:1"}, "is local, where Dataflow's workers cannot read it"),
        ({"sdk_container_image": "i:1", "machin_type": "x"}, "unknown Beam option '--machin_type'"),
    ],
)
def test_check_refuses_what_dataflow_could_not_run(
    prepare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"workspace: {'gs://b/w' if not options else tmp_path}\n")
    monkeypatch.setenv("PERFNET_BEAM_OPTIONS", json.dumps(options))
    monkeypatch.setenv("PERFNET_PYTHON", sys.executable)
    with pytest.raises(AirflowFailException, match=message) as caught:
        task_of(prepare, "check").execute(
            context_of(config=str(config), runner="DataflowRunner", beam_options=CLOUD)
        )
    assert len(str(caught.value).splitlines()) == 1


HELD = {"clips": "c1", "frames": "f1", "pose": "p1", "flow": "o1"}


@pytest.mark.parametrize(
    ("told", "changed"),
    [
        ([], list(HELD)),
        ([{"config": "other.yaml", "holds": HELD}], list(HELD)),
        ([{"config": "c.yaml", "holds": {**HELD, "clips": "c0"}}], ["clips"]),
        (
            [{"config": "c.yaml", "holds": {**HELD, "pose": "p0"}}, {"config": "c.yaml", "holds": HELD}],
            ["pose"],
        ),
    ],
)
def test_publish_emits_what_training_was_not_told_of(
    recorder: Recorder, prepare: Any, told: list[dict[str, Any]], changed: list[str]
) -> None:
    """Whatever changed it: this run, an earlier one that ended before it could tell, or a command typed by hand."""
    calls = recorder(0, json.dumps(HELD))
    context = context_of(told=told)
    assert task_of(prepare, "publish").execute(context) == changed
    extra = context["outlet_events"][perfnet_settings.DATASET].extra
    assert extra == {"config": "c.yaml", "changed": changed, "holds": HELD}
    assert calls() == [["-m", "pipelines.cli", "ready", "--skip_code", "--config=c.yaml"]]


def test_publish_emits_nothing_twice(recorder: Recorder, prepare: Any) -> None:
    recorder(0, json.dumps(HELD))
    with pytest.raises(AirflowSkipException, match="nothing has changed"):
        task_of(prepare, "publish").execute(context_of(told=[{"config": "c.yaml", "holds": HELD}]))


def test_publish_starts_no_training_that_could_not_run(recorder: Recorder, prepare: Any) -> None:
    recorder(99, "not ready: pose and render/rgb-bar-13-ratio are not up to date")
    context = context_of()
    with pytest.raises(AirflowSkipException, match="not ready: pose and render"):
        task_of(prepare, "publish").execute(context)
    assert not context["outlet_events"]


def test_training_may_have_a_configuration_of_its_own(recorder: Recorder, prepare: Any) -> None:
    """A workspace on gs:// is trained on through a mount, which another configuration names."""
    calls = recorder(0, json.dumps(HELD))
    context = context_of(config="gs://b/c.yaml", train_config="/data/local.yaml")
    task_of(prepare, "publish").execute(context)
    assert calls()[0][-1] == "--config=/data/local.yaml"
    assert context["outlet_events"][perfnet_settings.DATASET].extra["config"] == "/data/local.yaml"


def test_only_what_was_trained_is_judged(recorder: Recorder, train: Any) -> None:
    calls = recorder(0)
    for stages in (
        ["rgb", "evaluate"],
        ["evaluate", "report"],
        ["rgb", "pose", "flow", "student", "evaluate"],
    ):
        task_of(train, "evaluate").execute(context_of(stages=stages))
    judged = [[word for word in call[3:] if not word.startswith("--")] for call in calls()]
    assert judged == [["rgb"], [], ["rgb", "pose", "flow", "student"]]


def test_training_takes_the_configuration_of_the_data_set_that_started_it() -> None:
    events = [SimpleNamespace(extra={"config": name}) for name in ("first.yaml", "last.yaml")]
    context = context_of(config="default.yaml")
    assert perfnet_settings.config_of(context) == "default.yaml"
    context["triggering_asset_events"] = {perfnet_settings.DATASET: events}
    assert perfnet_settings.config_of(context) == "last.yaml"


def test_every_command_is_one_that_perfnet_has(recorder: Recorder, prepare: Any, train: Any) -> None:
    """The flags that the DAGs use are parsed by the real command line."""
    calls = recorder(0, "{}", json.dumps(HELD))
    every = {"pulled": "stale", "max_rejected": 0.5, "stages": [*perfnet_prepare.AFTER, *train.task_ids]}
    for force in (False, True):
        for dag in (prepare, train):
            for task in dag.tasks:
                task = task.unmap({"variant": "rgb-bar-13-ratio"}) if task.is_mapped else task
                task.execute(context_of(**every, force=force))
    known = {tuple(call[2:4]) for call in calls()}
    assert ("prepare", "render") in known and ("train", "student") in known  # noqa: PT018
    for _, _, *arguments in [*calls(), [0, 0, "prepare", "flow", "--config=c", "--commit"]]:
        prog, function, rest = cli._find(arguments, COMMANDS)
        _, rest = cli._split_off_overrides(rest)
        assert cli._parse(function, prog, rest)


def test_a_command_ends_when_its_task_is_killed(tmp_path: Path) -> None:
    """Otherwise a retry would find the first try still at work."""
    pid_file = tmp_path / "pid"
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho $$ > {pid_file}\nexec sleep 60\n")
    script.chmod(0o755)
    code = (
        f"import sys; sys.path[:0] = [{str(Path(perfnet_tasks.__file__).parent)!r}]\n"
        "import perfnet_tasks\n"
        "perfnet_tasks.PerfnetOperator(task_id='t').run_command(['x'])"
    )
    env = {**os.environ, "PERFNET_PYTHON": str(script), "PERFNET_HOME": str(tmp_path)}
    task = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert task.poll() is None
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    task.send_signal(signal.SIGKILL)
    task.wait()
    for _ in range(100):
        if not _alive(pid):
            break
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    except FileNotFoundError:
        return False
