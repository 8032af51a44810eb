"""The fault table: each row injects a real fault into the prepare chain over real videos, then runs it again.

After that run the finished stores hold the very (shard, sha256) list of a calm run; where the fault is in the data, the
list of a calm run that rejects the same clip. Nothing is lost, nothing is wrong, the next run completes.
"""

import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_site import STAGES, STORES, Digests, Site, calm, fails, samples, site
from test_decoder import TROUBLED_CHILD

from pipelines import prepare
from pipelines.chain import Chain
from pipelines.progress import Screen
from stores import files
from stores.checks import StageFailed
from stores.store import Store
from stores.verify import remove_damaged, verify_store
from transforms import decoder, frames
from transforms.pose import PoseStage
from transforms.pose_model import default_model_path

pytestmark = pytest.mark.slow

__all__ = ["calm", "samples", "site"]
KILLS = 20

# Rows whose fault passes: the next run ends with the stores of a calm one.


def disk_full(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workspace lies on a small file system of its own."""
    room = Path(default_model_path()).stat().st_size + 400_000  # the pose model lies in the workspace too
    with small_disk(site.workspace, room):
        site.make()
        said = fails(site, "No space left on device")
        assert "run the same command again" in said
        kept = shutil.copytree(site.workspace, site.workspace + "-kept")
    shutil.copytree(kept, site.workspace, dirs_exist_ok=True)


@contextlib.contextmanager
def small_disk(folder: str, size_bytes: int) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def temporary_disk_full(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are built on a small file system of their own, on which the first of them does not fit."""
    folder = site.videos.parent / "tmp"
    folder.mkdir()
    with small_disk(str(folder), 8192), monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        said = fails(site, "a new shard could not be written to .*No space left on device")
    assert "rise" not in said  # no clip is blamed
    assert not Store(site.workspace, "frames").listing()


def write_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk answers EIO at the fifth shard."""
    real, calls = os.replace, iter(range(1000))

    def replace(source: str, target: str) -> None:
        if "/shards/" in target and next(calls) == 9:
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        fails(site, "Input/output error")


def deleted_shard(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    for store in STORES:
        site.shards(store, ".parquet")[1].unlink()


def deleted_summary(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    for store in STORES:
        site.shards(store, ".json")[1].unlink()


def truncated_snapshot(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    for store in STORES:
        path = Path(site.workspace) / store / "snapshot.json"
        os.truncate(path, path.stat().st_size // 2)


def truncated_summary(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    os.truncate(site.shards("flow", ".json")[1], 100)
    (Path(site.workspace) / "flow" / "snapshot.json").unlink()


def truncated_shard(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of each store loses its end; verify names them, and only these are made again."""
    site.run()
    hurt = [site.shards(store, ".parquet")[1] for store in STORES]
    for path in hurt:
        os.truncate(path, path.stat().st_size // 2)
    mend(site, [path.name for path in hurt])


def flipped_byte(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit of a frames shard flips before the other stages read it: they say so, and compute nothing wrong."""
    chain = Chain(site.config(), Screen(quiet=True))
    chain.run(["frames"])
    path = site.shards("frames", ".parquet")[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(StageFailed, match=f"io_error: .*{path.name}"):
        site.run()
    mend(site, [path.name])


def mend(site: Site, names: list[str]) -> None:
    """Does what `perfnet verify --remove_damaged` does, which must find just these files."""
    stores = [Store(site.workspace, n) for n in STORES]
    damage = [d for store in stores if store.snapshot() for d in verify_store(store)]
    assert [d.name.rsplit("/", 1)[-1] for d in damage] == names
    remove_damaged(site.workspace, damage)


def clock_steps_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day back in the middle of the chain, and every file comes from the future."""
    chain = Chain(site.config(), Screen(quiet=True))
    chain.run(STAGES[:2])
    real = time.time
    for name in ("time", "time_ns"):
        monkeypatch.setattr(
            time, name, lambda scale=1e9 if name == "time_ns" else 1: (real() - 86_400) * scale
        )


def decoder_segfault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    troubled(site, monkeypatch, "segv", "decoder_crashed")


def decoder_hang(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    troubled(site, monkeypatch, "hang", "timeout")


def troubled(site: Site, monkeypatch: pytest.MonkeyPatch, trouble: str, reason: str) -> None:
    """One clip's decoder gets into trouble; the clip's name is what asks for it."""
    asks = f'"{trouble}" if "/rise/" in video.uri else ""'
    child = TROUBLED_CHILD.replace("os.path.basename(video.uri)", asks)
    troubled = decoder.Decoder(command=[sys.executable, "-c", child])
    monkeypatch.setattr(frames, "thread_decoder", lambda: troubled)
    assert reason in fails(site, "1 of 6 clips were rejected")
    troubled.close()
    monkeypatch.undo()


def pose_model_raises(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error for one clip keeps everybody else's work."""
    real = PoseStage.process

    def process(self: PoseStage, *clips: Any) -> Any:
        if "rise" in clips[0].clip_id:
            raise ArithmeticError("a bug in the model")
        return real(self, *clips)

    monkeypatch.setattr(PoseStage, "process", process)
    said = fails(site, "1 clips failed with an internal error")
    assert "rise" in said
    assert "a bug in the model" in said
    monkeypatch.undo()
    assert site.run()["pose"] == 1


def replaced_while_running(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another video appears under a clip's name between planning and reading; then the first comes back."""
    path, other = site.clip("rise"), site.clip("approach")
    original, status = path.read_bytes(), path.stat()
    real = prepare._write_job

    def write_job(*arguments: Any) -> str:
        path.write_bytes(other.read_bytes())
        return real(*arguments)

    monkeypatch.setattr(prepare, "_write_job", write_job)
    assert "file_changed" in fails(site, "1 of 6 clips were rejected")
    monkeypatch.undo()
    path.write_bytes(original)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def unreadable_while_planned(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails while a video is identified, and works again when the worker opens it."""
    real = files.content_digest

    def content_digest(uri: str, status: files.FileStatus) -> str:
        if "/rise/" in uri:
            raise OSError(errno.EIO, os.strerror(errno.EIO), uri)
        return real(uri, status)

    with monkeypatch.context() as patch:
        patch.setattr(files, "content_digest", content_digest)
        assert "file_changed" in fails(site, "1 of 6 clips were rejected")


def layout_change_cut_short(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the stores of a change to more shards: it goes on as it began, and can be taken back."""
    site.run()
    more = {"store.num_shards": 16}
    for stages in (["frames"], ["pose"]):
        Chain(site.config(**more), Screen(quiet=True)).run(stages)
        assert set(Chain(site.config(**more), Screen(quiet=True), look_only=True).plan(STAGES)) == set(STAGES)
    assert set(site.run(**more).values()) == {0}
    Chain(site.config(), Screen(quiet=True)).run(["frames"])


def layout_change_without_snapshots(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshots are cut short before the format changes: the shards' own names say what is there."""
    site.run()
    truncated_snapshot(site, monkeypatch)
    assert set(site.run(**{"store.format": "tfrecord", "store.num_shards": None}).values()) == {0}


PASSING = [
    disk_full,
    temporary_disk_full,
    write_error,
    deleted_shard,
    deleted_summary,
    truncated_snapshot,
    truncated_summary,
    truncated_shard,
    flipped_byte,
    clock_steps_back,
    decoder_segfault,
    decoder_hang,
    pose_model_raises,
    replaced_while_running,
    unreadable_while_planned,
    layout_change_cut_short,
    layout_change_without_snapshots,
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f.__name__)
def test_after_a_fault_the_next_run_ends_as_a_calm_one(
    fault: Callable[[Site, pytest.MonkeyPatch], None],
    site: Site,
    calm: Digests,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(site, monkeypatch)
    site.run()
    site.check()
    assert site.digests() == calm
    assert set(site.run().values()) == {0}


# Rows whose fault is in the data: the next run equals a calm one over what is left.


def unreadable_directory(site: Site) -> None:
    """A folder that cannot be entered: for the administrator too, because it leads to itself."""
    shutil.rmtree(site.videos / "rise")
    (site.videos / "rise").symlink_to("rise")


def video_cut_short(site: Site) -> None:
    os.truncate(site.clip("rise"), 100)


def video_is_empty(site: Site) -> None:
    os.truncate(site.clip("rise"), 0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (unreadable_directory, "unreadable_file"),
        (video_cut_short, "damaged"),
        (video_is_empty, "empty_file"),
    ],
    ids=lambda f: getattr(f, "__name__", str(f)),
)
def test_bad_data_costs_its_own_clip(
    fault: Callable[[Site], None], reason: str, site: Site, calm: Digests
) -> None:
    fault(site)
    assert reason in fails(site, "1 of 6 clips were rejected")
    counted = site.run(**{"run.max_rejected": 1.0})
    assert counted["pose"] == 5
    site.check()
    again = Site(site.videos, site.workspace + "-again")
    shutil.copytree(
        site.workspace, again.workspace, ignore=lambda folder, names: {*names} - {"clips.parquet"}
    )
    again.run(**{"run.max_rejected": 1.0})
    assert again.digests() == site.digests()
    for store, shards in site.digests().items():
        assert sum(ours != theirs for ours, theirs in zip(shards, calm[store], strict=True)) == 1


# Rows that need processes of their own.


def run_chain(videos: Path, workspace: str) -> None:
    Site(videos, workspace).run()


def warm_processes() -> Any:
    """Processes that have imported everything before they are told what to do, so that kills hit work, not imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["test_faults", "apache_beam", "cv2", "mediapipe", "numba", "av", "pipelines.runner"]
    )
    return context


@pytest.mark.timeout(1800)
def test_killed_at_twenty_random_moments(site: Site, calm: Digests, tmp_path: Path) -> None:
    context = warm_processes()

    def start(workspace: Path) -> Any:
        Site(site.videos, str(workspace)).make()
        process = context.Process(target=run_chain, args=(site.videos, str(workspace)))
        process.start()
        return process

    start(tmp_path / "first").join()  # loads the libraries once for all that follow
    started = time.monotonic()
    start(tmp_path / "second").join()
    length_s = time.monotonic() - started
    moments = random.Random(2023)
    killed = 0
    for number in range(KILLS * 2):  # some runs end before their moment comes
        workspace = tmp_path / f"killed-{number}"
        process = start(workspace)
        process.join(moments.uniform(0.1, length_s))
        process.kill()
        process.join()
        killed += process.exitcode == -9
        (again := Site(site.videos, str(workspace))).run()
        assert again.digests() == calm, number
        again.check()
        shutil.rmtree(workspace)
        if killed == KILLS:
            break
    assert killed == KILLS


def test_two_runs_at_once(site: Site, calm: Digests) -> None:
    context = warm_processes()
    processes = [context.Process(target=run_chain, args=(site.videos, site.workspace)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    site.check()
    assert site.digests() == calm
    assert set(site.run().values()) == {0}
