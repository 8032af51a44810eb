"""Runs the Beam job: on this machine's cores, or on whatever runner the user names."""

import contextlib
import logging
import os
import queue
import re
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipelines.beam_options import is_dataflow, is_local
from pipelines.dataflow import record, told
from pipelines.progress import clips_in_flight
from pipelines.worker import kill_workers
from stores import files
from stores.checks import StageFailed
from transforms.shards import UpdateShards

_LOOK_S = 0.2
# Processes give the parallelism; threads inside them would only fight for the same cores.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "NUMBA_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}


def run_job(
    shards: Sequence[int],
    update: UpdateShards,
    *,
    scratch: str,
    workers: int,
    beam_args: Sequence[str],
    leave_running: bool = False,
) -> dict[str, int]:
    """Runs the update over the shards, blocks until it has ended, and returns the counters.

    Args:
        scratch: local folder for the log and the process numbers of local workers; their progress files lie there
            where the job's own folder is local.
        workers: local worker processes; 1 runs inside this process.
        beam_args: Beam options as the user typed them after `--`; they win over `workers`.
        leave_running: a job elsewhere goes on when this process is stopped.

    Raises:
        StageFailed: a local worker was killed or crashed, or the job failed; in one line.
    """
    options = PipelineOptions(list(beam_args))
    local = is_local(beam_args)
    runner = _local_runner(options, beam_args, min(workers, len(shards)), scratch) if local else None
    pipeline = beam.Pipeline(runner=runner, options=options)
    pipeline | "Shards" >> beam.Create(list(shards)) | update
    with in_one_line():
        if local:
            return _counters(_run_watched(pipeline, scratch))
        with told() if is_dataflow(beam_args) else contextlib.nullcontext():
            result = pipeline.run()
            if is_dataflow(beam_args):
                record(result, options, update.job_folder)
            return wait(result, leave_running=leave_running)


def wait(result: Any, *, leave_running: bool) -> dict[str, int]:
    """Waits for a job elsewhere and returns its counters; when this process is stopped, so is the job."""
    try:
        result.wait_until_finish()
    except (KeyboardInterrupt, SystemExit):
        if not leave_running:
            result.cancel()
        raise
    return _counters(result)


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Turns whatever a runner raises into what a person can use; the rest is in the job's log.

    Raises:
        StageFailed: in place of any other exception.
    """
    try:
        yield
    except StageFailed:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("the job failed")
        raise StageFailed(_last_line(error)) from error


def _last_line(error: Exception) -> str:
    """What a worker ran into, out of the pages that Beam makes of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    said = re.sub(r"^(stores|transforms)\.[\w.]+: | \[while running .*\]$", "", said)
    return f"{said}; finished shards are kept, run the same command again"


def _local_runner(
    options: PipelineOptions, beam_args: Sequence[str], workers: int, scratch: str
) -> fn_runner.FnApiRunner:
    """FnApiRunner, never Beam's own DirectRunner: that would first try to download the Prism binary."""
    direct = options.view_as(DirectOptions)
    typed = any(arg.startswith("--direct_num_workers") for arg in beam_args)
    workers = direct.direct_num_workers or len(os.sched_getaffinity(0)) if typed else workers
    if direct.direct_running_mode == "multi_processing" and not typed:
        workers = max(workers, len(os.sched_getaffinity(0)))
    direct.direct_num_workers = workers
    direct.direct_running_mode = "in_memory"  # the environment decides; another mode would replace it
    if workers == 1:
        return fn_runner.FnApiRunner()
    settings = " ".join(f"{name}={value}" for name, value in _WORKER_ENVIRONMENT.items())
    folder = shlex.quote(scratch)
    command = f"exec env {settings} {shlex.quote(sys.executable)} -m pipelines.worker {folder}"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options(drop_default=True))
    provision = beam_provision_api_pb2.ProvisionInfo(
        retrieval_token="unused-retrieval-token", pipeline_options=encoded
    )
    return fn_runner.FnApiRunner(
        default_environment=SubprocessSDKEnvironment.from_command_string(command),
        provision_info=fn_runner.ExtendedProvisionInfo(provision),
    )


def _run_watched(pipeline: beam.Pipeline, scratch: str) -> Any:
    """Runs a local job in a thread of its own, and ends it when a worker process dies.

    Beam itself would wait for that worker's answer for ever, and name no clip.

    Raises:
        StageFailed: a worker died.
    """
    ended: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            ended.put((pipeline.run(), None))
        except BaseException as error:  # noqa: BLE001  handed to the caller's thread
            ended.put((None, error))

    with _deaths() as deaths:
        threading.Thread(target=work, name="beam-job", daemon=True).start()
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    result, error = ended.get(timeout=_LOOK_S)
                    break
                if deaths:
                    raise StageFailed(_obituary(deaths[0], scratch))
        except BaseException:
            kill_workers(scratch)
            raise
    if error:
        raise error
    return result


@contextlib.contextmanager
def _deaths() -> Iterator[list[str]]:
    """Collects what Beam's threads say of worker processes that ended by themselves."""
    before, found = threading.excepthook, []

    def note(args: threading.ExceptHookArgs) -> None:
        if args.thread is not None and args.thread.name == "run_worker":
            found.append(str(args.exc_value))
        elif not isinstance(args.exc_value, grpc.RpcError):  # broken connections only tell of the same death
            before(args)

    threading.excepthook = note
    try:
        yield found
    finally:
        if not found:  # after a death Beam's threads go on complaining for a while
            threading.excepthook = before


def _obituary(death: str, scratch: str) -> str:
    clips = ", ".join(files.printable(c) for c in clips_in_flight(scratch)) or "none"
    return f"{death}; clips being worked on: {clips}; finished shards are kept, run the same command again"


def _counters(result: Any) -> dict[str, int]:
    """Committed counters of the job by name, summed over its steps."""
    found: dict[str, int] = {}
    for counter in result.metrics().query()["counters"]:
        name = counter.key.metric.name
        found[name] = found.get(name, 0) + (counter.committed or counter.attempted or 0)
    return found
