"""The whole prepare chain with workspace and videos on an object store gives the stores of a local run."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from gcs import BUCKET, environment, faulty_proxy, gcs, object_names, upload, variables

from pipelines.chain import Chain
from pipelines.config import load_config
from pipelines.progress import Screen
from pipelines.samples import write_sample_videos
from stores.checks import StageFailed
from stores.clips import make_clips, write_clips
from stores.commit import rejected_in
from stores.reader import StoreReader
from stores.store import Store
from transforms.decoder import thread_decoder

__all__ = ["gcs"]
ROOT = Path(__file__).parents[2]
STAGES = ("frames", "pose", "render", "flow")
STORES = ("frames", "pose", "render/rgb-bar-13-ratio", "flow")
OPTIONS = {"frames.shorter_side_px": 48, "store.num_shards": 8}
Digests = dict[str, list[tuple[int, str | None]]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three short videos, one a class."""
    folder = tmp_path_factory.mktemp("videos")
    write_sample_videos(folder, clips_per_class=2)
    return sorted(folder.glob("*/*.mp4"))[:6:2]


def put_clips(workspace: str, uris: dict[str, str]) -> None:
    rows = [{"clip_id": c, "uri": u, "stop_s": 0.4, "label": c} for c, u in uris.items()]
    write_clips(workspace, make_clips(rows))


def run(workspace: str, *, workers: int = 1) -> dict[str, int]:
    """Brings all stores up to date; store → clips computed."""
    config = load_config(None, {"workspace": workspace, "run.workers": workers, **OPTIONS})
    chain = Chain(config, Screen(quiet=True))
    chain.run(STAGES)
    return {o.store: o.counters.get("computed", 0) for o in chain.outcomes}


def digests(workspace: str) -> Digests:
    return {name: shards_of(workspace, name) for name in STORES}


@pytest.fixture(scope="module")
def local_workspace(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A calm local run of the first stage."""
    workspace = str(tmp_path_factory.mktemp("local"))
    put_clips(workspace, {v.parent.name: str(v) for v in videos})
    config = load_config(None, {"workspace": workspace, "run.workers": 1, **OPTIONS})
    Chain(config, Screen(quiet=True)).run(["frames"])
    return workspace


def shards_of(workspace: str, store: str) -> list[tuple[int, str | None]]:
    return [(s.shard, s.sha256) for s in Store(workspace, store).require_snapshot().shards]


@pytest.fixture(scope="module")
def local_frames(local_workspace: str) -> list[tuple[int, str | None]]:
    return shards_of(local_workspace, "frames")


@pytest.fixture(scope="module")
def local(local_workspace: str) -> Digests:
    """Digests of a calm local run of all stages."""
    assert set(run(local_workspace).values()) == {0, 3}
    return digests(local_workspace)


@pytest.fixture
def remote(gcs: str, videos: list[Path], request: pytest.FixtureRequest) -> str:
    """A workspace on the emulator over videos on the emulator, of this test alone."""
    workspace = f"gs://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}"
    put_clips(workspace, {v.parent.name: upload(gcs, v, f"videos/{v.parent.name}.mp4") for v in videos})
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_chain_on_an_object_store(remote: str, local: Digests, workers: int) -> None:
    assert set(run(remote, workers=workers).values()) == {3}
    assert digests(remote) == local
    assert set(run(remote, workers=workers).values()) == {0}
    window = StoreReader(remote, "frames").window("approach", 3, 6)
    assert [frame.frame for frame in window] == [3, 4, 5]


def test_frames_from_an_object_store(
    gcs: str, remote: str, local_frames: list[tuple[int, str | None]]
) -> None:
    """The quick part: one stage, and no object but finished ones."""
    config = load_config(None, {"workspace": remote, "run.workers": 1, **OPTIONS})
    Chain(config, Screen(quiet=True)).run(["frames"])
    snapshot = Store(remote, "frames").require_snapshot()
    assert [(s.shard, s.sha256) for s in snapshot.shards] == local_frames
    prefix = remote.removeprefix(f"gs://{BUCKET}/") + "/frames/"
    listed = {f"shards/{n}" for s in snapshot.shards for n in (s.summary, s.data) if n} | {
        "snapshot.json",
        "last_job.json",
    }
    assert {n.removeprefix(prefix) for n in object_names(gcs) if n.startswith(prefix)} == listed


def perfnet(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables(url)}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_commands_take_a_remote_workspace(gcs: str, remote: str, tmp_path: Path) -> None:
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    ran = perfnet(gcs, "run", "frames", "flow", "--workspace", remote, "--workers", "2", *options)
    assert ran.returncode == 0, ran.stderr
    assert "flow: 3 clips in, 3 out, 0 rejected" in ran.stderr
    status = perfnet(gcs, "status", "--workspace", remote, *options)
    rows = {line.split()[0]: line for line in status.stdout.splitlines()}
    assert rows["frames"].endswith("fresh"), status.stderr
    assert rows["flow"].endswith("fresh")
    seen = perfnet(
        gcs, "preview", "approach", "--workspace", remote, "--out", str(tmp_path / "a.mp4"), *options
    )
    assert seen.returncode == 0, seen.stderr
    assert (tmp_path / "a.mp4").stat().st_size > 0


@pytest.mark.slow
def test_what_fails_for_a_while_is_repeated(gcs: str, remote: str, local: Digests) -> None:
    """Every fifth request fails in one of four ways, never twice in a row; the stores come out the same."""
    kinds = ("503", "drop", "half", "lost")

    def fail(number: int, method: str, path: str) -> str | None:
        return kinds[number // 5 % 4] if number % 5 == 4 else None

    with faulty_proxy(gcs, fail=fail) as faults, environment(faults.url):
        assert set(run(remote).values()) == {3}
    assert {kind for kind, _ in faults.injected} == set(kinds)
    assert digests(remote) == local


def test_what_goes_on_failing_ends_in_one_line_and_commits_nothing(
    gcs: str, remote: str, local_frames: list[tuple[int, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=no_pause))
    uploads = itertools.count()

    def fail(number: int, method: str, path: str) -> str | None:
        return "503" if method == "POST" and next(uploads) >= 5 else None

    config = load_config(None, {"workspace": remote, "run.workers": 1, **OPTIONS})
    with faulty_proxy(gcs, fail=fail) as faults, environment(faults.url):
        with pytest.raises(StageFailed, match=r"^gs://bucket/.*503.*run the same command again") as found:
            Chain(config, Screen(quiet=True)).run(["frames"])
        assert faults.injected
    assert len(str(found.value).splitlines()) == 2  # what happened, where the logs are
    assert Store(remote, "frames").snapshot() is None
    Chain(config, Screen(quiet=True)).run(["frames"])
    snapshot = Store(remote, "frames").require_snapshot()
    assert [(s.shard, s.sha256) for s in snapshot.shards] == local_frames


def test_a_video_that_cannot_be_read_for_a_while_is_tried_again(
    gcs: str, remote: str, local_frames: list[tuple[int, str | None]]
) -> None:
    def fail(number: int, method: str, path: str) -> str | None:
        return "400" if "videos" in path and "approach" in path and "alt=media" in path else None

    options = {"workspace": remote, "run.workers": 1, "run.max_rejected": 0.5, **OPTIONS}
    with faulty_proxy(gcs, fail=fail) as faults, environment(faults.url):
        # The decoder is a process of its own, and keeps the environment that it was started with.
        thread_decoder().close()
        Chain(load_config(None, options), Screen(quiet=True)).run(["frames"])
        thread_decoder().close()
    assert faults.injected
    store = Store(remote, "frames")
    (rejection,) = rejected_in(store, store.require_snapshot().shards)
    assert (rejection.clip_id, rejection.cause, rejection.reason) == ("approach", "transient", "io_error")
    chain = Chain(load_config(None, options), Screen(quiet=True))
    chain.run(["frames"])
    assert chain.outcomes[0].counters["computed"] == 1
    assert [(s.shard, s.sha256) for s in store.require_snapshot().shards] == local_frames


def test_training_on_an_object_store_is_refused_before_the_stages(remote: str) -> None:
    config = load_config(None, {"workspace": remote, **OPTIONS})
    with pytest.raises(ValueError, match="perfnet run frames pose"):
        Chain(config, Screen(quiet=True)).run(["frames", "pose", "train-rgb"])
    assert Store(remote, "frames").snapshot() is None


async def no_pause(delay: float) -> None:
    """Retries come at once."""
