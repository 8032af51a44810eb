"""The whole chain through the command line, on videos with a real person in them: reruns, kills, awkward files."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from pipelines.samples import write_sample_videos
from stores.reader import StoreReader
from stores.store import Store

ROOT = Path(__file__).parents[1]
TINY = """
clips: {group_pattern: '(g\\d+)_c', test_pattern: 'g\\d*[13579]$'}
frames: {shorter_side_px: 64}
network: {width: 0.1, blocks: [1, 1, 1, 1], stem_kernel: [3, 5, 5]}
data: {window_frames: 8, crop_height_px: 48, crop_width_px: 48}
train: {epochs: 1, batch_size: 4, learning_rate: 0.01, warmup_steps: 1, norm_momentum: 0.1}
student: {weight: 0.1}
evaluate: {frames: 8, crop_height_px: 48, crop_width_px: 48}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_sample_videos(folder, clips_per_class=4)
    return folder


def command(config: Path, workspace: Path, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pipelines.cli",
        *arguments,
        "--config",
        str(config),
        "--workspace",
        str(workspace),
    ]


def perfnet(config: Path, workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, workspace, *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def shards_of(workspace: Path, store: str) -> list[tuple[int, str | None]]:
    return [(s.shard, s.sha256) for s in Store(str(workspace), store).require_snapshot().shards]


@pytest.fixture
def config(tmp_path: Path, videos: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("clips: {", f"clips: {{folder: {videos}, "))
    return path


def plan_of(output: str) -> dict[str, str]:
    lines = [line.removeprefix("plan: ") for line in output.splitlines() if line.startswith("plan: ")]
    return dict(line.split(": ", 1) for line in lines)


def test_reruns_do_only_what_is_stale_and_say_why(config: Path, videos: Path, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    first = perfnet(config, ws, "run")
    assert first.returncode == 0, first.stderr
    rows = [line.split() for line in first.stdout.splitlines()]
    assert [row[0] for row in rows if row[0] != "stream"] == ["rgb", "pose", "flow", "fusion", "student"]
    assert all(0 <= float(row[1]) <= 1 for row in rows if row[0] != "stream")

    second = perfnet(config, ws, "run")
    assert set(plan_of(second.stderr).values()) == {"fresh"}
    assert second.stderr.count("nothing to do") == 4
    assert second.stdout == first.stdout

    before = {name: (ws / "runs" / name / "done.json").stat().st_mtime_ns for name in ("rgb", "pose", "flow")}
    third = perfnet(config, ws, "run", "--render.variant", "black-dot-6-uniform")
    assert third.returncode == 0, third.stderr
    plan = plan_of(third.stderr)
    assert plan["render/black-dot-6-uniform"] == "stale: not computed yet"
    assert "render.variant: was rgb-bar-13-ratio, is black-dot-6-uniform" in plan["train-pose"]
    assert {n for n, s in plan.items() if s == "fresh"} == {
        "frames",
        "pose",
        "flow",
        "train-rgb",
        "train-flow",
    }
    after = {name: (ws / "runs" / name / "done.json").stat().st_mtime_ns for name in before}
    assert {name for name in before if before[name] != after[name]} == {"pose"}

    found = perfnet(config, ws, "predict", str(next(videos.glob("rise/*.mp4"))))
    assert found.returncode == 0, found.stderr
    assert found.stdout.count(",") == 2


def test_killed_in_the_middle_of_flow(config: Path, tmp_path: Path) -> None:
    """Finished shards are kept, and the end is that of an uninterrupted run."""
    calm, ws = tmp_path / "calm", tmp_path / "ws"
    slow = ("--flow.backend", "opencv")  # slow enough to be caught at work
    assert perfnet(config, calm, "run", "flow", *slow).returncode == 0
    process = subprocess.Popen(command(config, ws, "run", "flow", *slow), cwd=ROOT, stderr=subprocess.DEVNULL)
    folder = ws / "flow" / "shards"
    while len(list(folder.glob("[0-9]*.json")) if folder.exists() else []) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    workers = [int(p.name) for p in ws.glob("jobs/*/workers/*")]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    for _ in range(50):
        if not any(map(_alive, workers)):
            break
        time.sleep(0.1)
    assert not any(map(_alive, workers))
    assert Store(str(ws), "flow").snapshot() is None
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob("[0-9]*")}
    again = perfnet(config, ws, "run", "flow", *slow)
    assert again.returncode == 0, again.stderr
    assert "shards are done" in plan_of(again.stderr)["flow"]
    assert all((folder / name).stat().st_mtime_ns == mtime for name, mtime in kept.items())
    assert shards_of(ws, "flow") == shards_of(calm, "flow")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_is_quiet_and_leaves_no_orphans(config: Path, tmp_path: Path, stop: signal.Signals) -> None:
    ws = tmp_path / "ws"
    process = subprocess.Popen(
        command(config, ws, "run", "flow", "--flow.backend", "opencv"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(ws.glob("flow/shards/*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    workers = [int(p.name) for p in ws.glob("jobs/*/workers/*")]
    process.send_signal(stop)
    _, err = process.communicate(timeout=20)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[stop]
    assert "Traceback" not in err
    time.sleep(0.5)
    assert not any(map(_alive, workers))


@pytest.mark.real_data
def test_awkward_files_are_decoded_or_rejected_and_none_is_lost(tmp_path: Path, real_data: Path) -> None:
    config, ws = tmp_path / "hard.yaml", tmp_path / "ws"
    config.write_text(f"clips: {{folder: {real_data / 'hard'}}}\nframes: {{shorter_side_px: 64}}\n")
    names = {Path(row["path"]).stem for row in csv.DictReader((real_data / "hard" / "MANIFEST.csv").open())}
    for _ in range(2):  # with nothing stale it fails again
        refused = perfnet(config, ws, "run", "frames")
        assert refused.returncode == 1
        assert "11 of 31 clips were rejected, more than max_rejected 0.01 allows" in refused.stderr
        assert "zero_bytes: empty_file" in refused.stderr
    done = perfnet(config, ws, "run", "render", "flow", "--max_rejected", "1.0")
    assert done.returncode == 0, done.stderr
    listed = perfnet(config, ws, "status", "--rejected").stdout.splitlines()
    rejected = {line.split("\t")[1] for line in listed}
    frames, flow = StoreReader(str(ws), "frames"), StoreReader(str(ws), "flow")
    assert rejected | set(frames.clips) == names
    assert not rejected & set(frames.clips)
    assert {c: e.frames + 1 for c, e in flow.clips.items()} == {c: e.frames for c, e in frames.clips.items()}
    for clip_id, entry in frames.clips.items():
        (path,) = (p for p in (real_data / "hard").iterdir() if p.stem == clip_id)
        assert abs(entry.frames - _expected_frames(path)) <= 1, path.name


def _expected_frames(path: Path) -> float:
    """(last timestamp − first + last frame's length) × 25, from the stream's own packets."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.pts is not None]
    last = max(packets, key=lambda p: p.pts)
    length = last.duration or 1 / (float(stream.average_rate) * float(stream.time_base))
    return float((last.pts - min(p.pts for p in packets) + length) * stream.time_base * 25)


def test_status_is_a_table(config: Path, tmp_path: Path) -> None:
    ws = tmp_path / "ws"
    assert perfnet(config, ws, "run", "frames").returncode == 0
    out = perfnet(config, ws, "status").stdout
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows["frames"].endswith("fresh")
    assert "stale: not computed yet" in rows["pose"]
    assert rows["frames"].split()[1:3] == ["24", "0"]
