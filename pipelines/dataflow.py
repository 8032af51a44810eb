"""Stages on Dataflow: what is refused before submission, what a stage's job is told, how a running job is met again."""

import contextlib
import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)

from pipelines.config import Config
from pipelines.progress import Screen
from stores import files, keys, leases
from stores.clips import ClipsTable
from stores.plan import StagePlan

RECORD = leases.ON_DATAFLOW
_MACHINE = "n2-standard-4"  # AVX-512: without it TV-L1 takes half as long again
_DISK_GB = 50
_MOST_WORKERS = 500
_SHARDS_PER_CORE = 4
_ONE_PROCESS = "no_use_multiple_sdk_containers"
_LOGGER = logging.getLogger("apache_beam.runners.dataflow")


@dataclass(frozen=True)
class Resources:
    """What one worker machine does at a time.

    Attributes:
        threads: clips at a time in one process.
        one_process: one process a machine, instead of one a core.
    """

    threads: int = 1
    one_process: bool = False


# Dataflow starts a process for each core, and with more threads they would only compete. A GPU is shared best by the
# threads of one process: one of them decodes and encodes while another computes.
_BY_CORE = Resources()
_BY_GPU = Resources(threads=2, one_process=True)


def resources_of(stage: str, config: Config) -> Resources:
    return _BY_GPU if stage == "flow" and config.flow.backend == "torch" else _BY_CORE


def check_job(beam_args: Sequence[str], config: Config) -> None:
    """Refuses a job that cannot be submitted or whose workers could not read what they need.

    Raises:
        ValueError: names the option or key, what was found and what to do.
    """
    options = PipelineOptions(list(beam_args))
    cloud, setup = options.view_as(GoogleCloudOptions), options.view_as(SetupOptions)
    for name in ("project", "region", "temp_location"):
        if not getattr(cloud, name):
            raise ValueError(f"DataflowRunner needs --{name}; add it after --")
    for name in ("temp_location", "staging_location"):
        found = getattr(cloud, name)
        if found and not found.startswith("gs://"):
            raise ValueError(f"--{name}: found {files.quoted(found)}, expected a folder on gs://")
    for name, path in (("workspace", config.workspace), ("pose.keypoints", config.pose.keypoints)):
        if path and files.is_local(path):
            raise ValueError(
                f"{name}: {files.printable(path)} is local, where Dataflow's workers cannot read it; put it on gs://"
            )
    image = options.view_as(WorkerOptions).sdk_container_image
    if not image and not any((setup.setup_file, setup.requirements_file, setup.extra_packages)):
        raise ValueError(
            "DataflowRunner's workers need perfnet: add --sdk_container_image IMAGE or --setup_file ./setup.py"
        )
    if setup.save_main_session:
        raise ValueError("--save_main_session: leave it out; nothing of the command line belongs on workers")


def check_videos(clips: ClipsTable) -> None:
    """Refuses videos that workers cannot read.

    Raises:
        ValueError: names the first.
    """
    local = [uri for uri in clips.uris if files.is_local(uri)]
    if local:
        raise ValueError(
            f"clips.parquet: {len(local)} of {len(clips)} clips have a local video, such as "
            f"{files.printable(local[0])}, where Dataflow's workers cannot read it; copy the videos to gs:// and make "
            "the table again"
        )


def job_name(plan: StagePlan) -> str:
    """The same for every try to bring this store to this state: Dataflow runs one job of a name at a time."""
    state = [plan.store.workspace, plan.spec, plan.encoding.format, sorted(plan.expected.items())]
    return f"perfnet-{plan.store.name.replace('/', '-')}-{keys.digest([plan.store.name, state])[:12]}"


def complete(beam_args: Sequence[str], plan: StagePlan, config: Config) -> list[str]:
    """The options as typed, and what they leave open: name, machines, threads, how far to scale."""
    options = PipelineOptions(list(beam_args))
    stage = plan.store.name.split("/")[0]
    resources = resources_of(stage, config)
    machine = options.view_as(WorkerOptions).machine_type or _MACHINE
    wanted = {
        "job_name": job_name(plan),
        "machine_type": machine,
        "disk_size_gb": _DISK_GB,
        "autoscaling_algorithm": "THROUGHPUT_BASED",
        "max_num_workers": most_workers(len(plan.stale), 1 if resources.one_process else cores_of(machine)),
        "number_of_worker_harness_threads": resources.threads,
    }
    if options.view_as(WorkerOptions).sdk_container_image:
        wanted["sdk_location"] = "container"
    typed = {arg.split("=", 1)[0].removeprefix("--") for arg in beam_args}
    if "worker_machine_type" in typed:
        typed.add("machine_type")
    added = [f"--{name}={value}" for name, value in wanted.items() if name not in typed]
    if resources.one_process and not options.view_as(DebugOptions).lookup_experiment(_ONE_PROCESS):
        added.append(f"--experiments={_ONE_PROCESS}")
    return [*beam_args, *added, f"--labels=perfnet-stage={stage}"]


def cores_of(machine_type: str) -> int:
    """vCPUs of a machine type by its name; 1 where it does not tell."""
    found = re.search(r"-(\d+)(?:-|$)", machine_type)
    return int(found[1]) if found else 1


def most_workers(shards: int, processes: int) -> int:
    """Machines that can be kept busy: with fewer shards than that a process, the last ones would wait for one."""
    return max(1, min(_MOST_WORKERS, math.ceil(shards / (processes * _SHARDS_PER_CORE))))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Shows what Dataflow says; Airflow's operator reads the job's id from these lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
    # The whole job as text says nothing to a person.
    handler.addFilter(lambda record: not str(record.msg).startswith(("Create job: ", "sdk_pipeline_options")))
    before = _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(before)


def record(result: Any, options: PipelineOptions, job_folder: str) -> None:
    """Notes in the job's folder which Dataflow job it is.

    Raises:
        SystemExit: 0 for a template, whose job the service starts: nobody here can wait for it.
    """
    cloud = options.view_as(GoogleCloudOptions)
    about = {"job_name": cloud.job_name, "project": cloud.project, "region": cloud.region}
    about["job_id"] = result.job_id() if result.has_job else None
    files.put_bytes(files.join(job_folder, RECORD), json.dumps(about).encode())
    if not result.has_job:
        _LOGGER.info("staged; when the job has ended, run `perfnet prepare` with --commit")
        raise SystemExit(0)


def await_running(
    plan: StagePlan, config: Config, beam_args: Sequence[str], screen: Screen
) -> Mapping[str, int] | None:
    """Waits for the job that an earlier try has started for the same state of this store.

    Returns:
        Its counters; None where no such job runs.

    Raises:
        StageFailed: it failed, or Dataflow does not answer.
    """
    from pipelines.runner import in_one_line, wait

    options = PipelineOptions(complete(beam_args, plan, config))
    name = options.view_as(GoogleCloudOptions).job_name
    with told(), in_one_line():
        result = _running(options)
        if result is None:
            return None
        screen.line(f"{plan.store.name}: Dataflow runs {name} already; waiting for it")
        _LOGGER.info("Created job with id: [%s]", result.job_id())
        with _its_lease(plan.store.workspace, result.job_id()):
            return wait(result, leave_running=config.run.leave_running)


def _running(options: PipelineOptions) -> Any:
    """The active job of that name, as Beam's own result object."""
    from apache_beam.runners.dataflow.dataflow_metrics import DataflowMetrics
    from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult, DataflowRunner
    from apache_beam.runners.dataflow.internal import apiclient
    from google.cloud import dataflow

    cloud = options.view_as(GoogleCloudOptions)
    client = apiclient.DataflowApplicationClient(options)
    active = dataflow.ListJobsRequest.Filter.ACTIVE
    request = dataflow.ListJobsRequest(project_id=cloud.project, location=cloud.region, filter=active)
    # Beam's client only looks for jobs in the state RUNNING, not for those that are queued or start.
    job = next((job for job in client._jobs_client.list_jobs(request) if job.name == cloud.job_name), None)
    if job is None:
        return None
    runner = DataflowRunner()
    runner.dataflow_client = client
    result = DataflowPipelineResult(job, runner, options)
    result.metric_results = DataflowMetrics(client, result)
    return result


@contextlib.contextmanager
def _its_lease(workspace: str, job_id: str) -> Iterator[None]:
    """Holds the lease of a job whose launcher may be gone, so that `perfnet gc` keeps what its workers read."""
    folder = _job_folder(workspace, job_id)
    if folder is None:
        yield
        return
    with leases.held_lease(folder):
        yield
    leases.remove_job(folder)


def _job_folder(workspace: str, job_id: str) -> str | None:
    jobs = files.join(workspace, leases.FOLDER)
    for name in files.list_tree(jobs):
        if name.endswith(f"/{RECORD}"):
            with contextlib.suppress(FileNotFoundError):
                if json.loads(files.read_bytes(files.join(jobs, name)))["job_id"] == job_id:
                    return files.join(jobs, name.removesuffix(f"/{RECORD}"))
    return None
