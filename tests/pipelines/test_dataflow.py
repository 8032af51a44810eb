"""Stages on Dataflow: the real client against a stand-in of the service, and the staged job run as Dataflow would."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataflow_stub import Service, dataflow
from fake_stages import CountingFrames, plan_frames, table_of
from gcs import BUCKET, free_port, gcs, object_names, upload, variables
from test_gcs_chain import OPTIONS, local_frames, local_workspace, put_clips, videos
from test_plan import LENGTHS, VIDEOS

from pipelines import cli
from pipelines.beam_options import beam_parser, check_known
from pipelines.config import load_config
from pipelines.dataflow import (
    check_job,
    check_stages,
    check_videos,
    complete,
    cores_of,
    job_name,
    most_workers,
)
from pipelines.exit_codes import EXIT_USAGE
from stores.clips import make_clips
from stores.plan import build_tasks
from stores.store import Store
from transforms.update import ShardUpdate

__all__ = ["gcs", "local_frames", "local_workspace", "videos"]
ROOT = Path(__file__).parents[2]
TYPED = [
    "--runner=DataflowRunner",
    "--project=p",
    "--region=europe-west4",
    "--temp_location=gs://bucket/temp",
]
IMAGE = "--sdk_container_image=europe-docker.pkg.dev/p/r/perfnet:1"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with dataflow() as found:
        yield found


def cloud(service: Service) -> list[str]:
    return [*TYPED, IMAGE, f"--dataflow_endpoint={service.endpoint}", "--no_auth"]


def launch(gcs: str, *arguments: str, module: str = "pipelines.cli") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables(gcs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(launcher: subprocess.Popen[str], words: str) -> str:
    """What a launcher says until it says `words`."""
    assert launcher.stderr
    told = ""
    while words not in told:
        line = launcher.stderr.readline()
        assert line, told
        told += line
    return told


def remote_workspace(gcs: str, videos: list[Path], name: str) -> str:
    workspace = f"gs://{BUCKET}/{name}"
    put_clips(workspace, {v.parent.name: upload(gcs, v, f"videos/{v.parent.name}.mp4") for v in videos})
    return workspace


def frames_of(workspace: str) -> list[tuple[int, str | None]]:
    return [(s.shard, s.sha256) for s in Store(workspace, "frames").require_snapshot().shards]


OVERRIDES = [f"--{name}={value}" for name, value in OPTIONS.items()]


@pytest.mark.slow
def test_stopping_the_launcher_cancels_the_job(gcs: str, service: Service, videos: list[Path]) -> None:
    ws = remote_workspace(gcs, videos, "stopped")
    before = len(service.jobs)
    launcher = launch(gcs, "prepare", "frames", "--workspace", ws, *OVERRIDES, "--", *cloud(service))
    job = service.await_job(before + 1)
    time.sleep(3)
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=240)
    assert launcher.returncode == 143
    assert "Traceback" not in err
    assert service.jobs[job["id"]]["currentState"] == "JOB_STATE_CANCELLING"
    assert Store(ws, "frames").snapshot() is None

    # Dataflow takes its time to stop: started again at once, it waits for that, and never for the job that ends.
    again = launch(gcs, "prepare", "frames", "--workspace", ws, *OVERRIDES, "--", *cloud(service))
    told = read_until(again, f"Dataflow still stops {job['name']}; waiting until it has")
    assert "already" not in told
    assert len(service.jobs) == before + 1
    service.cancelled(job)
    service.fail(service.await_job(before + 2), "Traceback …\nOSError: quota exceeded")
    _, err = again.communicate(timeout=240)
    assert again.returncode == 1
    assert "OSError: quota exceeded; finished shards are kept, run the same command again" in err


@pytest.mark.slow
def test_a_template_is_staged_and_nothing_waits(gcs: str, service: Service, videos: list[Path]) -> None:
    """What the launcher of a Flex Template runs: the service starts the job from the staged file."""
    ws, before = remote_workspace(gcs, videos, "template"), len(service.jobs)
    flags = ["--stage=frames", f"--workspace={ws}", *OVERRIDES, *cloud(service)]
    queued = service.queue("perfnet-frames")  # it waits for this launcher, which must not wait for it
    before += 1
    own = [f"--job_name={queued['name']}", "--template_location=gs://bucket/launch/job"]
    launcher = launch(gcs, *flags, *own, module="pipelines.beam_main")
    _, err = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, err
    assert "when the job has ended, run `perfnet prepare` with --commit" in err
    assert len(service.jobs) == before
    names = object_names(gcs)
    assert "launch/job" in names
    left = {n.rsplit("/", 1)[1] for n in names if n.startswith("template/jobs/")}
    assert left == {"plan.parquet", "job.json", "dataflow.json"}  # what keeps it from being cleaned up


@pytest.mark.slow
def test_the_portable_job_service_makes_the_same_store(
    gcs: str, videos: list[Path], local_frames: list[tuple[int, str | None]]
) -> None:
    ws, port = remote_workspace(gcs, videos, "portable"), free_port()
    module = "apache_beam.runners.portability.local_job_service_main"
    server = subprocess.Popen(
        [sys.executable, "-m", module, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        beam = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
        run = launch(gcs, "prepare", "frames", "--workspace", ws, *OVERRIDES, "--", *beam)
        _, err = run.communicate(timeout=300)
    finally:
        server.kill()
        server.wait()
    assert run.returncode == 0, err
    assert "computed 3" in err
    assert frames_of(ws) == local_frames


# What is refused before anything is submitted.


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["prepare", *arguments]) == EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("missing", ["project", "region", "temp_location"])
def test_missing_options_are_named(
    capsys: pytest.CaptureFixture[str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [arg for arg in TYPED if not arg.startswith(f"--{missing}")]
    line = refusal(capsys, "flow", "--workspace", "gs://bucket/w", "--", *typed, IMAGE)
    assert line == f"perfnet: DataflowRunner needs --{missing}; add it after --"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flow", "--workspace", "work", "--", *TYPED, IMAGE], "workspace: work is local"),
        (["flow", "--workspace", "gs://b/w", "--", *TYPED], "--sdk_container_image IMAGE or --setup_file"),
        (
            ["flow", "--workspace", "gs://b/w", "--", *TYPED, IMAGE, "--staging_location=/tmp"],
            "--staging_location",
        ),
        (["flow", "--workspace", "gs://b/w", "--", *TYPED, IMAGE, "--save_main_session"], "leave it out"),
        (
            ["flow", "--workspace", "gs://b/w", "--", *TYPED, "--machine_typ=x"],
            "did you mean --machine_type?",
        ),
        (
            ["flow", "--workspace", "gs://b/w", "--", *TYPED, "--num_workers=many"],
            "invalid int value: 'many'",
        ),
        (["flows", "--workspace", "gs://b/w", "--", *TYPED, IMAGE], "unknown stage 'flows'"),
        (
            ["flow", "--config", "/nowhere/c.yaml", "--", *TYPED, IMAGE],
            "--config: /nowhere/c.yaml does not exist",
        ),
        (
            [
                "pose",
                "--workspace",
                "gs://b/w",
                "--pose.backend=file",
                "--pose.keypoints=/k",
                "--",
                *TYPED,
                IMAGE,
            ],
            "pose.keypoints: /k is local",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in refusal(capsys, *arguments)


def test_local_videos_are_refused() -> None:
    rows = [
        {"clip_id": "a", "uri": "gs://b/a.mp4", "label": "x"},
        {"clip_id": "b", "uri": "/v/b.mp4", "label": "x"},
    ]
    with pytest.raises(ValueError, match=r"1 of 2 clips have a local video, such as /v/b\.mp4"):
        check_videos(make_clips(rows))
    check_videos(make_clips(rows[:1]))


def test_pytorch_comes_to_workers_with_an_image_only() -> None:
    """What an image holds is not known here; what --setup_file brings is."""
    config = load_config(None, {"workspace": "gs://b/w", "flow.backend": "torch"})
    bare = [*TYPED, "--setup_file=./setup.py"]
    with pytest.raises(ValueError, match=r"flow\.backend: torch needs PyTorch on Dataflow's workers"):
        check_stages(["frames", "flow"], bare, config)
    check_stages(["frames"], bare, config)
    check_stages(["flow"], [*TYPED, IMAGE], config)
    check_stages(["flow"], [*bare, "--requirements_file=torch.txt"], config)
    check_stages(["flow"], bare, load_config(None, {"workspace": "gs://b/w"}))


def test_setup_file_stands_in_for_an_image() -> None:
    check_job([*TYPED, "--setup_file=./setup.py"], load_config(None, {"workspace": "gs://b/w"}))


def test_beams_own_options_are_known() -> None:
    check_known(
        [*TYPED, IMAGE, "--experiments=a", "--experiments=b", "--labels=a=b", "--max_num_workers", "3"]
    )


# What we set, and what a job is called.


def test_settings_that_are_typed_win(tmp_path: Path) -> None:
    planned, _ = plan_frames(str(tmp_path), CountingFrames(LENGTHS), table_of(VIDEOS))
    config = load_config(None, {"workspace": "gs://b/w"})
    ours = complete([*TYPED, IMAGE], planned, config)
    assert "--number_of_worker_harness_threads=1" in ours
    assert "--sdk_location=container" in ours
    mine = ["--worker_machine_type=c3-standard-8", "--max_num_workers", "7", "--job_name=mine"]
    found = complete([*TYPED, *mine], planned, config)
    added = {arg.split("=")[0] for arg in found[len(TYPED) + len(mine) :]}
    assert added == {
        "--disk_size_gb",
        "--autoscaling_algorithm",
        "--number_of_worker_harness_threads",
        "--labels",
    }


def test_the_manual_names_what_we_set(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cloud.md").read_text(encoding="utf-8")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    named = {name for cell in table for name in re.findall(r"--\w+", cell)}
    planned, _ = plan_frames(str(tmp_path), CountingFrames(LENGTHS), table_of(VIDEOS))
    found = {arg.split("=")[0] for arg in complete([IMAGE], planned, load_config(None, {}))[1:]}
    assert found - {"--labels"} == named - {"--experiments"}
    known = beam_parser()._option_string_actions
    for line in text.splitlines():
        if "--runner" in line or "=$" in line or line.lstrip().startswith("--temp_location"):
            assert {name for name in re.findall(r"--\w+_\w+", line) if name not in ("--dry_run",)} <= set(
                known
            ), line


def test_a_gpu_is_shared_by_the_threads_of_one_process(tmp_path: Path) -> None:
    planned, _ = plan_frames(str(tmp_path), CountingFrames(LENGTHS), table_of(VIDEOS))
    flow = type(planned)(**{**vars(planned), "store": Store(str(tmp_path), "flow")})
    config = load_config(None, {"workspace": "gs://b/w", "flow.backend": "torch"})
    found = complete(TYPED, flow, config)
    assert "--experiments=no_use_multiple_sdk_containers" in found
    assert "--number_of_worker_harness_threads=2" in found


def test_a_jobs_name_stays_while_it_works_and_changes_with_what_it_makes(tmp_path: Path) -> None:
    ws, stage = str(tmp_path), CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    task = build_tasks(planned, videos=videos)[0]
    ShardUpdate(stage, planned.store, planned.encoding, planned.spec).run(task)
    later, _ = plan_frames(ws, stage, table_of(VIDEOS))
    assert len(later.stale) == len(planned.stale) - 1
    assert job_name(later) == job_name(planned)
    names = {job_name(planned)}
    names.add(job_name(plan_frames(ws, stage, table_of({**VIDEOS, "more": "/v/1.mp4"}))[0]))
    names.add(job_name(plan_frames(ws, CountingFrames(LENGTHS, {"fps": 10}), table_of(VIDEOS))[0]))
    names.add(job_name(plan_frames(ws + "2", stage, table_of(VIDEOS))[0]))
    assert len(names) == 4
    assert all(name.startswith("perfnet-frames-") and name.replace("-", "").isalnum() for name in names)


@pytest.mark.parametrize(
    ("machine", "cores"),
    [
        ("n2-standard-4", 4),
        ("c3-highcpu-22", 22),
        ("custom-8-16384", 8),
        ("e2-medium", 1),
        ("c3d-standard-8-lssd", 8),
    ],
)
def test_cores_of_a_machine_type(machine: str, cores: int) -> None:
    assert cores_of(machine) == cores


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (16, 1), (17, 2), (1024, 64), (32_768, 500)])
def test_no_more_machines_than_shards_keep_busy(shards: int, workers: int) -> None:
    assert most_workers(shards, processes=4) == workers
