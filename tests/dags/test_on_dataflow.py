"""Stages on Dataflow: the Beam provider's own operator, with a stand-in for the interpreter that launches."""

import json
from collections.abc import Callable
from typing import Any

import perfnet_settings
import perfnet_tasks
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from fake_context import context_of

from pipelines import beam_main
from pipelines.beam_options import check_known

Recorder = Callable[..., Callable[[], list[list[str]]]]
CLOUD = {"project": "p-1", "region": "europe-west4", "temp_location": "gs://bucket/temp"}


def compute(context: dict[str, Any], stage: str = "flow", variant: str = "") -> Any:
    task = perfnet_tasks.ComputeOperator(task_id=stage, stage=stage, variant=variant, plan="p")
    return task.execute({**context, "task_instance": context["ti"]})


def launched_on(**params: Any) -> dict[str, Any]:
    return context_of(
        pulled="stale",
        **{"runner": "DataflowRunner", "beam_options": {**CLOUD, "num_workers": 4}, **params},
    )


@pytest.fixture(autouse=True)
def cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")


def test_the_launcher_takes_every_flag(recorder: Recorder) -> None:
    calls = recorder(0, "Created job with id: [1]")
    with pytest.raises(TaskDeferred):
        compute(launched_on(max_rejected=0.1, force=True), "render", "rgb-bar-6-ratio")
    (launched,) = (call for call in calls() if "-m" in call)
    stage, ours, beam = beam_main.split(launched[2:])
    given = ["--config=c.yaml", "--force", "--max_rejected=0.1", "--render.variant=rgb-bar-6-ratio"]
    assert (stage, sorted(ours)) == ("render", given)
    check_known(beam)


def test_submits_and_waits_without_a_worker(recorder: Recorder) -> None:
    from airflow.providers.google.cloud.triggers.dataflow import DataflowJobStateCompleteTrigger

    calls = recorder(0, "INFO:apache_beam:Created job with id: [2026-11-23_job]")
    with pytest.raises(TaskDeferred) as caught:
        compute(launched_on(max_rejected=0.1))
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


def test_the_deployment_says_which_code_runs(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder(0)
    ours = {"project": "ours", "sdk_container_image": "image"}
    monkeypatch.setenv("PERFNET_BEAM_OPTIONS", json.dumps(ours))
    options = perfnet_settings.beam_options({"beam_options": {**CLOUD, "project": "theirs"}})
    assert options == {**CLOUD, **ours}
    for wrong in ("{", "[]"):
        monkeypatch.setenv("PERFNET_BEAM_OPTIONS", wrong)
        with pytest.raises(AirflowFailException, match="PERFNET_BEAM_OPTIONS"):
            perfnet_settings.beam_options({"beam_options": CLOUD})


def test_the_end_of_the_job_commits_the_store(recorder: Recorder) -> None:
    calls = recorder(0, "flow: 4 clips in")
    task = perfnet_tasks.ComputeOperator(task_id="flow", stage="flow", plan="plan_flow")
    done = task.execute_complete(launched_on(), {"status": "success", "message": "done"})
    assert done == "flow: 4 clips in"
    assert calls()[0][2:] == ["prepare", "flow", "--config=c.yaml", "--commit"]
    with pytest.raises(AirflowException, match="it failed"):
        task.execute_complete(launched_on(), {"status": "error", "message": "it failed"})
    assert len(calls()) == 1


def test_nothing_left_to_submit_is_committed_at_once(recorder: Recorder) -> None:
    calls = recorder(0, "flow: committed")
    assert compute(launched_on()) == "flow: committed"
    assert calls()[-1][-1] == "--commit"


@pytest.mark.parametrize(("code", "error"), [(2, AirflowFailException), (1, AirflowException)])
def test_a_refused_submission_is_not_tried_again(
    recorder: Recorder, code: int, error: type[Exception]
) -> None:
    recorder(code, "perfnet: --temp_location: no such bucket")
    with pytest.raises(error) as caught:
        compute(launched_on())
    assert type(caught.value) is error


def test_the_allow_list_names_options_that_beam_has() -> None:
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

    given = {"disk_size_gb": "1", "autoscaling_algorithm": "NONE", **CLOUD}
    flags = [f"--{name}={given.get(name, '1')}" for name in perfnet_settings.BEAM_OPTIONS]
    options = PipelineOptions(flags)
    kept = {**options.view_as(GoogleCloudOptions).get_all_options(drop_default=True)}
    unknown = set(perfnet_settings.BEAM_OPTIONS) - set(kept)
    assert not unknown
    assert options.view_as(WorkerOptions).machine_type == "1"
