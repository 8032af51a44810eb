"""Two processes plan the same stale stores, compute and commit at the same time: one valid snapshot, nothing lost.

Run as a script this file is one of the writers.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_stages import CountingFlow, CountingFrames, plan_flow, plan_frames, table_of, update
from gcs import BUCKET, gcs

from stores import files
from stores.commit import commit
from stores.gc import delete, find_garbage
from stores.plan import StagePlan, build_tasks
from stores.reader import StoreReader
from stores.records import FlowPair, Frame
from stores.rejections import ClipRejected
from stores.store import Store
from stores.verify import verify_store
from transforms.stage import ClipOutput, Video
from transforms.update import ShardUpdate

__all__ = ["gcs"]
VIDEOS = {f"c{i:02d}": f"/v/{i}.mp4" for i in range(12)}
LENGTHS = {uri: 2 + i * 3 for i, uri in enumerate(VIDEOS.values())}
ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0


@dataclass
class ThisMachinesFrames(CountingFrames):
    """Frames whose bytes depend on the machine, as on CPUs with other features; some clips time out there.

    Attributes:
        machine: stands for the CPU.
        timeouts: clips that are rejected for a transient cause.
    """

    machine: str = ""
    timeouts: tuple[str, ...] = ()

    def _frames(self, video: Video) -> Iterator[Frame]:
        if video.clip_id in self.timeouts:
            raise ClipRejected("timeout", f"on {self.machine}")
        for frame in super()._frames(video):
            time.sleep(0.001)
            yield Frame(frame.frame, frame.time_us, frame.image + self.machine.encode())


@dataclass
class ThisMachinesFlow(CountingFlow):
    machine: str = ""

    def process(self, *clips: object) -> ClipOutput:
        (clip,) = clips
        length = clip.frames - 1  # type: ignore[attr-defined]
        marks = f"{self.machine} {length}".encode()
        return ClipOutput(40, 30, (FlowPair(i, marks, marks) for i in range(length)))


def write(workspace: str, machine: str, timeouts: tuple[str, ...], barrier: Path) -> None:
    """One writer: plans, waits until the other has planned too, computes, commits; then the same for flow."""
    stage = ThisMachinesFrames(LENGTHS, machine=machine, timeouts=timeouts)
    planned, videos = plan_frames(workspace, stage, table_of(VIDEOS))
    meet(barrier, "frames")
    update(planned, stage, videos=videos)
    commit(planned, max_rejected=1)
    flow = ThisMachinesFlow(machine=machine)
    planned, inputs = plan_flow(workspace, flow)
    meet(barrier, "flow")
    update(planned, flow, inputs=inputs)
    commit(planned, max_rejected=1)


def meet(barrier: Path, what: str) -> None:
    """Waits until both writers are here."""
    (barrier / f"{what}-{os.getpid()}").touch()
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while len(list(barrier.glob(f"{what}-*"))) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def two_writers(workspace: str, barrier: Path, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Runs both as processes; each is (machine, clips that time out there)."""
    barrier.mkdir()
    paths = os.pathsep.join(map(str, [ROOT, ROOT / "tests", ROOT / "tests" / "stores"]))
    writers = [
        subprocess.Popen(
            [sys.executable, __file__, workspace, *writer, str(barrier)],
            env={**os.environ, "PYTHONPATH": paths},
        )
        for writer in (first, second)
    ]
    assert [w.wait() for w in writers] == [0, 0]


def plans(workspace: str) -> tuple[StagePlan, StagePlan]:
    frames, _ = plan_frames(workspace, CountingFrames(LENGTHS), table_of(VIDEOS))
    flow, _ = plan_flow(workspace, CountingFlow())
    return frames, flow


def check(workspace: str) -> None:
    """Every listed file is there and is what the snapshot says; the index fits it; all clips can be read."""
    for name in ("frames", "flow"):
        store = Store(workspace, name)
        for shard in store.require_snapshot().shards:
            summary = store.summary(shard.summary)
            assert summary
            assert (summary.data, summary.sha256, summary.held) == (shard.data, shard.sha256, shard.held)
            assert shard.data
            assert files.digest(store.shard_uri(shard.data)).hexdigest() == shard.sha256
        reader = StoreReader(workspace, name)
        assert sorted(reader.clips) == sorted(VIDEOS)
        for clip_id, entry in reader.clips.items():
            assert entry.frames == LENGTHS[VIDEOS[clip_id]] - (name == "flow")
            assert [r.frame for r in reader.records(clip_id)] == list(range(entry.frames))


def snapshots(workspace: str) -> Mapping[str, bytes]:
    return {s: files.read_bytes(files.join(workspace, s, "snapshot.json")) for s in ("frames", "flow")}


def check_settled(workspace: str) -> None:
    """What follows has nothing to compute, and leaves the snapshots as they are from then on."""
    for planned in plans(workspace):
        assert planned.stale == ()
        commit(planned, max_rejected=0)
    check(workspace)
    before = snapshots(workspace)
    for planned in plans(workspace):
        assert (planned.stale, planned.reason) == ((), "")
        commit(planned, max_rejected=0)
    assert snapshots(workspace) == before
    check_upkeep(workspace)


def check_upkeep(workspace: str) -> None:
    """Nothing that a snapshot lists is damaged, and what of the two writers is superseded can be deleted."""
    for name in ("frames", "flow"):
        assert verify_store(Store(workspace, name)) == []
    garbage = find_garbage(workspace, plans=plans(workspace), min_age_s=0, now_s=time.time() + 1)
    delete(workspace, garbage)
    check(workspace)
    assert [p.reason for p in plans(workspace)] == ["", ""]
    assert [len(Store(workspace, "frames").listing()), len(Store(workspace, "flow").listing())] == [8, 8]


@pytest.mark.parametrize("machines", [("", ""), ("avx2", "avx512")], ids=["same", "other_bytes"])
def test_two_writers_end_in_one_valid_snapshot(tmp_path: Path, machines: tuple[str, str]) -> None:
    ws = str(tmp_path / "ws")
    two_writers(ws, tmp_path / "barrier", (machines[0], ""), (machines[1], ""))
    check(ws)
    assert [p.reason for p in plans(ws)] == ["", ""]
    check_settled(ws)


def test_two_writers_on_an_object_store(gcs: str, tmp_path: Path) -> None:
    ws = f"gs://{BUCKET}/two"
    two_writers(ws, tmp_path / "barrier", ("avx2", ""), ("avx512", ""))
    check(ws)
    check_settled(ws)


def test_what_timed_out_for_one_writer_is_taken_from_the_other(tmp_path: Path) -> None:
    """Each of them lost clips that the other has, also of one shard; afterwards no frame has to be computed."""
    ws = str(tmp_path / "ws")
    two_writers(ws, tmp_path / "barrier", ("avx2", "c03,c07"), ("avx512", "c05"))
    stage = CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    update(planned, stage, videos=videos)
    commit(planned, max_rejected=0)
    assert stage.seen == []
    stage = CountingFlow()
    planned, inputs = plan_flow(ws, stage)
    update(planned, stage, inputs=inputs)
    commit(planned, max_rejected=0)
    check_settled(ws)


@pytest.mark.parametrize("worse_last", [True, False])
def test_a_later_worse_shard_replaces_nothing(tmp_path: Path, worse_last: bool) -> None:
    """The snapshot that one writer has committed stays whole while the other goes on, whoever is worse."""
    ws = str(tmp_path)
    lucky, unlucky = (
        ThisMachinesFrames(LENGTHS, machine=m, timeouts=t) for m, t in (("a", ()), ("b", ("c05",)))
    )
    first, second = (lucky, unlucky) if worse_last else (unlucky, lucky)
    planned, videos = plan_frames(ws, first, table_of(VIDEOS))
    late, _ = plan_frames(ws, second, table_of(VIDEOS))
    tasks = build_tasks(late, videos=videos)
    update(planned, first, videos=videos)
    early = commit(planned, max_rejected=1)
    before = {s.summary: Store(ws, "frames").summary(s.summary) for s in early.shards}
    for task in tasks:
        ShardUpdate(second, late.store, late.encoding, late.spec).run(task)
    assert {s.summary: Store(ws, "frames").summary(s.summary) for s in early.shards} == before
    assert commit(late, max_rejected=0).rejected == 0
    assert early.rejected == (0 if worse_last else 1)
    assert plan_frames(ws, lucky, table_of(VIDEOS))[0].reason == ""


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], tuple(filter(None, sys.argv[3].split(","))), Path(sys.argv[4]))
