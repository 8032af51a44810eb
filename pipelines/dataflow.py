"""Stages on Dataflow: what is refused before submission, what a stage's job is told, how a running job is met again."""

import contextlib
import json
import logging
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from stores.summaries import Snapshot
from transforms.shards import DONE, counted

RECORD = leases.ON_DATAFLOW
_MACHINE = "n2-standard-4"  # AVX-512: without it TV-L1 takes half as long again
_DISK_GB = 50
_MOST_WORKERS = 500
_SHARDS_PER_CORE = 4
_AGAIN = "-again"
_LOOK_S = 2.0
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


def check_stages(stages: Collection[str], beam_args: Sequence[str], config: Config) -> None:
    """Refuses a stage whose library the workers will not have, as far as that can be known of an image.

    Raises:
        ValueError: names the key and what to do.
    """
    options = PipelineOptions(list(beam_args))
    setup, image = options.view_as(SetupOptions), options.view_as(WorkerOptions).sdk_container_image
    brought = image or setup.requirements_file or setup.extra_packages
    if "flow" in stages and config.flow.backend == "torch" and not brought:
        raise ValueError(
            "flow.backend: torch needs PyTorch on Dataflow's workers, and --setup_file brings none; "
            "add --sdk_container_image with an image built with TORCH=cu130, or set flow.backend to numba"
        )


def job_name(plan: StagePlan) -> str:
    """The same for every try to bring this store to this state: Dataflow runs one job of a name at a time.

    Computing again what is fresh is another job, which nobody who asks for that must take the first for.
    """
    state = [plan.store.workspace, plan.spec, plan.encoding.format, sorted(plan.expected.items())]
    name = f"perfnet-{plan.store.name.replace('/', '-')}-{keys.digest([plan.store.name, state])[:12]}"
    return name + _AGAIN if plan.force else name


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
    about: dict[str, Any] = {"job_name": cloud.job_name, "project": cloud.project, "region": cloud.region}
    about |= {"job_id": result.job_id() if result.has_job else None, "started_s": time.time()}
    files.put_bytes(files.join(job_folder, RECORD), json.dumps(about).encode())
    if not result.has_job:
        _LOGGER.info("staged; when the job has ended, run `perfnet prepare` with --commit")
        raise SystemExit(0)


def await_running(
    plan: StagePlan, config: Config, beam_args: Sequence[str], screen: Screen
) -> Mapping[str, int] | None:
    """Waits for the job that an earlier try has started for the same state of this store.

    Returns:
        Its counters; None where no such job runs, or where one was being cancelled and now is.

    Raises:
        StageFailed: it failed, or Dataflow does not answer.
    """
    from pipelines.runner import in_one_line, wait

    options = PipelineOptions(complete(beam_args, plan, config))
    if options.view_as(GoogleCloudOptions).template_location:
        return None  # the service has created its job already, which waits for what is staged here
    with told(), in_one_line():
        for result in _active(options, _names(plan, options)):
            if _is_stopping(result):
                _await_end(result, screen)
                continue
            screen.line(f"{plan.store.name}: Dataflow runs {result._job.name} already; waiting for it")
            _LOGGER.info("Created job with id: [%s]", result.job_id())
            with _its_lease(plan.store.workspace, result.job_id()):
                return wait(result, leave_running=config.run.leave_running)
    return None


def _names(plan: StagePlan, options: PipelineOptions) -> set[str]:
    """Names of jobs that do what this one would: one that computes everything again also does what a plain one does."""
    name = options.view_as(GoogleCloudOptions).job_name
    return {name, name + _AGAIN} if name == job_name(plan) and not plan.force else {name}


def _active(options: PipelineOptions, names: Collection[str]) -> list[Any]:
    """The active jobs of these names, as Beam's own result objects."""
    from apache_beam.runners.dataflow.dataflow_metrics import DataflowMetrics
    from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult, DataflowRunner
    from apache_beam.runners.dataflow.internal import apiclient
    from google.cloud import dataflow

    cloud = options.view_as(GoogleCloudOptions)
    client = apiclient.DataflowApplicationClient(options)
    active = dataflow.ListJobsRequest.Filter.ACTIVE
    request = dataflow.ListJobsRequest(project_id=cloud.project, location=cloud.region, filter=active)
    found = []
    # Beam's client only looks for jobs in the state RUNNING, not for those that are queued or start.
    for job in client._jobs_client.list_jobs(request):
        if job.name in names:
            runner = DataflowRunner()
            runner.dataflow_client = client
            result = DataflowPipelineResult(job, runner, options)
            result.metric_results = DataflowMetrics(client, result)
            found.append(result)
    return found


def _is_stopping(result: Any) -> bool:
    """Whether a job was asked to stop: for a while it still counts as active."""
    from google.cloud.dataflow import JobState

    asked, now = result._job.requested_state, result._job.current_state
    return JobState.JOB_STATE_CANCELLED in (asked, now) or now == JobState.JOB_STATE_CANCELLING


def _await_end(result: Any, screen: Screen) -> None:
    """Waits until Dataflow has stopped a job, which frees its name."""
    screen.line(f"Dataflow still stops {result._job.name}; waiting until it has")
    while not result.is_in_terminal_state():
        time.sleep(_LOOK_S)
        result._update_job()


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
    return next((folder for folder, about in _records(workspace) if about["job_id"] == job_id), None)


def _records(workspace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Folders of jobs that were given to Dataflow, and what `record` noted of them."""
    jobs = files.join(workspace, leases.FOLDER)
    for name in files.list_tree(jobs):
        if name.endswith(f"/{RECORD}"):
            with contextlib.suppress(FileNotFoundError):
                about = json.loads(files.read_bytes(files.join(jobs, name)))
                yield files.join(jobs, name.removesuffix(f"/{RECORD}")), about


@dataclass(frozen=True)
class Left:
    """What jobs whose launcher is gone have left for a snapshot.

    Attributes:
        counters: as the jobs counted, of the shards that the snapshot has from them.
        started_s: when the first of these jobs was submitted, POSIX time; None where there was none.
    """

    counters: Mapping[str, int]
    started_s: float | None


def left_by_jobs(plan: StagePlan, snapshot: Snapshot) -> Left:
    """What is new in a snapshot and was computed by jobs elsewhere."""
    before = {shard.summary for shard in plan.previous.shards} if plan.previous else set()
    new = {shard.shard: shard.summary for shard in snapshot.shards if shard.summary not in before}
    shards: set[int] = set()
    started: list[float] = []
    for folder, about in _records(plan.store.workspace):
        if not re.match(rf"{plan.store.name.replace('/', '-')}-\d{{8}}T", folder.rsplit("/", 1)[1]):
            continue
        done = {int(name) for name in files.list_names(files.join(folder, DONE))} & new.keys()
        shards |= done
        started += [about["started_s"]] if done and "started_s" in about else []
    total: Counter[str] = Counter()
    for summary in plan.store.summaries(new[shard] for shard in shards).values():
        total.update(counted(summary) if summary else {})
    return Left(dict(total), min(started, default=None))
