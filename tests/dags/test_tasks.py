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
import perfnet_tasks
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred
from fake_context import context_of

from pipelines import beam_main, cli
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
    assert calls() == [["-m", "pipelines.cli", "clips", "check", "--config=c.yaml"]]
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


def test_publish_emits_only_what_changed(prepare: Any) -> None:
    done = {"frames": None, "pose": [], "render": ["render: 4 clips in"], "flow": None}
    context = context_of(pulled=lambda task_ids: done[task_ids])
    assert task_of(prepare, "publish").execute(context) == ["render"]
    assert context["outlet_events"][perfnet_tasks.DATASET].extra == {
        "config": "c.yaml",
        "changed": ["render"],
    }
    with pytest.raises(AirflowSkipException):
        task_of(prepare, "publish").execute(context_of(pulled=None))


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
    assert perfnet_tasks.config_of(context) == "default.yaml"
    context["triggering_asset_events"] = {perfnet_tasks.DATASET: events}
    assert perfnet_tasks.config_of(context) == "last.yaml"


def test_every_command_is_one_that_perfnet_has(recorder: Recorder, prepare: Any, train: Any) -> None:
    """The flags that the DAGs use are parsed by the real command line."""
    calls = recorder(0)
    every = {"pulled": "stale", "max_rejected": 0.5, "stages": [*perfnet_prepare.AFTER, *train.task_ids]}
    for force in (False, True):
        for dag in (prepare, train):
            for task in dag.tasks:
                if task.task_id != "publish":
                    (task.unmap({"variant": "rgb-bar-13-ratio"}) if task.is_mapped else task).execute(
                        context_of(**every, force=force)
                    )
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


class TestDataflow:
    """The Beam provider's own operator, with a stand-in for the interpreter that launches."""

    def compute(self, context: dict[str, Any], stage: str = "flow", variant: str = "") -> Any:
        task = perfnet_tasks.ComputeOperator(task_id=stage, stage=stage, variant=variant, plan="p")
        return task.execute({**context, "task_instance": context["ti"]})

    def context(self, **params: Any) -> dict[str, Any]:
        return context_of(
            pulled="stale",
            **{"runner": "DataflowRunner", "beam_options": {**CLOUD, "num_workers": 4}, **params},
        )

    @pytest.fixture(autouse=True)
    def cloud(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")

    def test_the_launcher_takes_every_flag(self, recorder: Recorder) -> None:
        calls = recorder(0, "Created job with id: [1]")
        with pytest.raises(TaskDeferred):
            self.compute(self.context(max_rejected=0.1, force=True), "render", "rgb-bar-6-ratio")
        (launched,) = (call for call in calls() if "-m" in call)
        stage, ours, beam = beam_main.split(launched[2:])
        given = ["--config=c.yaml", "--force", "--max_rejected=0.1", "--render.variant=rgb-bar-6-ratio"]
        assert (stage, sorted(ours)) == ("render", given)
        check_known(beam)

    def test_submits_and_waits_without_a_worker(self, recorder: Recorder) -> None:
        from airflow.providers.google.cloud.triggers.dataflow import DataflowJobStateCompleteTrigger

        calls = recorder(0, "INFO:apache_beam:Created job with id: [2026-11-23_job]")
        with pytest.raises(TaskDeferred) as caught:
            self.compute(self.context(max_rejected=0.1))
        trigger = caught.value.trigger
        assert isinstance(trigger, DataflowJobStateCompleteTrigger)
        assert (trigger.job_id, trigger.project_id, trigger.location) == (
            "2026-11-23_job",
            "p-1",
            "europe-west4",
        )
        assert caught.value.method_name == "execute_complete"
        (launched,) = (call for call in calls() if "-m" in call)
        assert launched[:3] == ["-m", "pipelines.beam_main", "--runner=DataflowRunner"]
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in launched[3:] if "=" in flag)
        assert flags.pop("labels").startswith("airflow-version=")
        # No job_name: perfnet's own is the same for every try, so a retry meets the job that still runs.
        assert flags == {
            **CLOUD,
            "stage": "flow",
            "config": "c.yaml",
            "max_rejected": "0.1",
            "num_workers": "4",
        }

    def test_the_deployment_says_which_code_runs(
        self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorder(0)
        ours = {"project": "ours", "sdk_container_image": "image"}
        monkeypatch.setenv("PERFNET_BEAM_OPTIONS", json.dumps(ours))
        options = perfnet_tasks.beam_options({"beam_options": {**CLOUD, "project": "theirs"}})
        assert options == {**CLOUD, **ours}
        for wrong in ("{", "[]"):
            monkeypatch.setenv("PERFNET_BEAM_OPTIONS", wrong)
            with pytest.raises(AirflowFailException, match="PERFNET_BEAM_OPTIONS"):
                perfnet_tasks.beam_options({"beam_options": CLOUD})

    def test_the_end_of_the_job_commits_the_store(self, recorder: Recorder) -> None:
        calls = recorder(0, "flow: 4 clips in")
        task = perfnet_tasks.ComputeOperator(task_id="flow", stage="flow", plan="plan_flow")
        done = task.execute_complete(self.context(), {"status": "success", "message": "done"})
        assert done == "flow: 4 clips in"
        assert calls()[0][2:] == ["prepare", "flow", "--config=c.yaml", "--commit"]
        with pytest.raises(AirflowException, match="it failed"):
            task.execute_complete(self.context(), {"status": "error", "message": "it failed"})
        assert len(calls()) == 1

    def test_nothing_left_to_submit_is_committed_at_once(self, recorder: Recorder) -> None:
        calls = recorder(0, "flow: committed")
        assert self.compute(self.context()) == "flow: committed"
        assert calls()[-1][-1] == "--commit"

    @pytest.mark.parametrize(("code", "error"), [(2, AirflowFailException), (1, AirflowException)])
    def test_a_refused_submission_is_not_tried_again(
        self, recorder: Recorder, code: int, error: type[Exception]
    ) -> None:
        recorder(code, "perfnet: --temp_location: no such bucket")
        with pytest.raises(error) as caught:
            self.compute(self.context())
        assert type(caught.value) is error

    def test_the_allow_list_names_options_that_beam_has(self) -> None:
        from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

        given = {"disk_size_gb": "1", "autoscaling_algorithm": "NONE", **CLOUD}
        flags = [f"--{name}={given.get(name, '1')}" for name in perfnet_tasks.BEAM_OPTIONS]
        options = PipelineOptions(flags)
        kept = {**options.view_as(GoogleCloudOptions).get_all_options(drop_default=True)}
        unknown = set(perfnet_tasks.BEAM_OPTIONS) - set(kept)
        assert not unknown
        assert options.view_as(WorkerOptions).machine_type == "1"
