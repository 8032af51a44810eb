"""The job that is staged for Dataflow, run from its proto as Dataflow would, makes the stores of a local run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from dataflow_stub import Service
from gcs import BUCKET, gcs, object_names, variables
from google.cloud.dataflow import JobType
from test_dataflow import (
    IMAGE,
    OVERRIDES,
    ROOT,
    cloud,
    frames_of,
    launch,
    read_until,
    remote_workspace,
    service,
)
from test_gcs_chain import (
    OPTIONS,
    Digests,
    local,
    local_frames,
    local_workspace,
    shards_of,
    videos,
)

from pipelines.chain import Chain
from pipelines.config import load_config
from pipelines.dataflow import RECORD
from pipelines.progress import Screen

__all__ = ["gcs", "local", "local_frames", "local_workspace", "service", "videos"]


def run_as_dataflow(gcs: str, job: dict[str, Any]) -> dict[str, int]:
    """Runs what was staged for a job, with the workers' dependencies only; returns its counters."""
    (staged,) = (
        n for n in object_names(gcs) if n.startswith(f"temp/{job['name']}") and n.endswith("pipeline.pb")
    )
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_staged.py")), f"gs://{BUCKET}/{staged}"],
        cwd=ROOT,
        env={**os.environ, **variables(gcs), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_staged_job_makes_the_stores_of_a_local_run(
    gcs: str, service: Service, videos: list[Path], local_frames: list[tuple[int, str | None]]
) -> None:
    """A launcher submits and is killed; the next one meets its job, waits for it and commits."""
    ws = remote_workspace(gcs, videos, "submitted")
    flags = [
        "--stage=frames",
        f"--workspace={ws}",
        *OVERRIDES,
        *cloud(service),
        '--labels={"airflow-version": "v3"}',
    ]
    before = len(service.jobs)
    first = launch(gcs, *flags, module="pipelines.beam_main")
    job = service.await_job(before + 1)
    told = read_until(first, "Created job with id")
    while not any(n.startswith("submitted/jobs/") and n.endswith(RECORD) for n in object_names(gcs)):
        time.sleep(0.1)
    first.kill()
    out, _ = first.communicate()
    assert out == ""  # the operator reads standard error to its end first
    assert f"Created job with id: [{job['id']}]" in told
    check_submitted(job)

    second = launch(gcs, "prepare", "frames", "--workspace", ws, *OVERRIDES, "--", *cloud(service))
    counters = run_as_dataflow(gcs, job)
    assert counters["computed"] == 3
    service.finish(job, counters=counters)
    _, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert f"Dataflow runs {job['name']} already; waiting for it" in err
    assert "frames: 3 clips in, 3 out, 0 rejected; 30 frames; computed 3, copied 0" in err
    assert len(service.jobs) == before + 1
    assert frames_of(ws) == local_frames
    assert not [
        n for n in object_names(gcs) if n.startswith("submitted/jobs/") and n.endswith("plan.parquet")
    ]


def check_submitted(job: dict[str, Any]) -> None:
    """What Dataflow is told."""
    assert job["name"].startswith("perfnet-frames-")
    assert job["type"] == JobType.JOB_TYPE_BATCH
    assert job["labels"] == {"airflow-version": "v3", "perfnet-stage": "frames"}
    options = job["environment"]["sdkPipelineOptions"]["options"]
    assert options["number_of_worker_harness_threads"] == 1
    assert options["sdk_location"] == "container"
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["diskSizeGb"] == 50
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 1
    (image,) = pool["sdkHarnessContainerImages"]
    assert f"--sdk_container_image={image['containerImage']}" == IMAGE


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pose", "flow"])
def test_stages_that_load_more_do_so_on_workers_too(
    gcs: str, service: Service, videos: list[Path], local: Digests, stage: str
) -> None:
    """MediaPipe's model travels through the workspace, and TV-L1 is compiled where it runs."""
    ws, before = remote_workspace(gcs, videos, f"submitted-{stage}"), len(service.jobs)
    Chain(load_config(None, {"workspace": ws, "run.workers": 1, **OPTIONS}), Screen(quiet=True)).run(
        ["frames"]
    )
    launcher = launch(gcs, "prepare", stage, "--workspace", ws, *OVERRIDES, "--", *cloud(service))
    job = service.await_job(before + 1)
    read_until(launcher, "Created job with id")
    service.finish(job, counters=run_as_dataflow(gcs, job))
    _, err = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, err
    assert f"{stage}: 3 clips in, 3 out, 0 rejected" in err
    assert shards_of(ws, stage) == local[stage]
