"""Commands that look after a workspace, through the command line, on stages that number frames."""

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_stages import CountingFlow, CountingFrames, CountingPose, CountingRender

from pipelines import cli, prepare
from pipelines.config import Config
from stores.clips import make_clips, write_clips
from stores.reader import StoreReader
from stores.rejections import ClipRejected
from transforms.stage import ClipOutput, Video

STAGES = ("frames", "pose", "render", "flow")
REACHED, GO_ON = threading.Event(), threading.Event()
CLIPS = [f"c{i:02d}" for i in range(8)]


@dataclass
class Shaky(CountingFrames):
    """Cannot read some videos for the moment."""

    unreadable: Sequence[str] = ()

    def process(self, *clips: Video) -> ClipOutput:
        if clips[0].uri in self.unreadable:
            raise ClipRejected("io_error", "the network is away")
        return super().process(*clips)


@dataclass
class Waiting(CountingFrames):
    """Stops in the middle of a job, at one clip, until it is told to go on."""

    wait_for: str = ""

    def process(self, *clips: Video) -> ClipOutput:
        if clips[0].clip_id == self.wait_for:
            REACHED.set()
            assert GO_ON.wait(60)
        return super().process(*clips)


class Workspace:
    """A workspace with small files as videos, and the stages that read them.

    Attributes:
        frames, flow: the stages.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.folder, self.path = folder, str(folder / "ws")
        self._capsys = capsys
        for clip in CLIPS:
            self.video(clip).write_bytes(f"video of {clip}".encode())
        self.frames = Shaky({str(self.video(c)): 2 + i for i, c in enumerate(CLIPS)})
        self.flow = CountingFlow()
        self.stages: dict[str, Any] = {
            "frames": self.frames,
            "pose": CountingPose(),
            "render": CountingRender(),
            "flow": self.flow,
        }

        def make_stage(stage: str, config: Config) -> Any:
            return self.stages[stage]

        monkeypatch.setattr(prepare, "make_stage", make_stage)
        monkeypatch.setattr("transforms.flow.warm_up", lambda options: None)
        self.list_clips(CLIPS)

    def video(self, clip: str) -> Path:
        return self.folder / f"{clip}.mp4"

    def list_clips(self, clips: Sequence[str]) -> None:
        """Makes these the clips table."""
        write_clips(
            self.path, make_clips([{"clip_id": c, "uri": str(self.video(c)), "label": "a"} for c in clips])
        )

    def perfnet(self, *arguments: str) -> tuple[int, str, str]:
        """Runs a command; returns exit code, output and messages."""
        code = cli.run([*arguments, "--workspace", self.path])
        return code, *self._capsys.readouterr()

    def arguments(self, *arguments: str) -> list[str]:
        return [*arguments, "--run.workers", "1", "--quiet", "--workspace", self.path]

    def prepare(self, stage: str, *arguments: str) -> tuple[int, str, str]:
        return self.perfnet("prepare", stage, "--run.workers", "1", *arguments)

    def computed(self, stage: str, *arguments: str) -> int:
        """Brings a store up to date; how many clips that computed, by the job's counters."""
        code, _, said = self.prepare(stage, *arguments)
        assert code == 0, said
        found = re.search(r"computed (\d+), copied", said)
        assert found or "nothing to do" in said, said
        return int(found[1]) if found else 0

    def files(self) -> set[str]:
        return {str(p.relative_to(self.path)) for p in Path(self.path).rglob("*") if p.is_file()}


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workspace:
    return Workspace(tmp_path, monkeypatch, capsys)


def test_a_plan_alone_writes_nothing_and_tells_fresh_from_stale(ws: Workspace) -> None:
    before = ws.files()
    code, _, said = ws.prepare("frames", "--dry_run", "--skip_code")
    assert (code, said.splitlines()[0]) == (0, "plan: frames: stale: not computed yet")
    assert ws.prepare("flow", "--dry_run", "--skip_code")[0] == 0
    assert ws.files() - before <= {"identities.parquet"}
    assert ws.computed("frames") == 8
    assert ws.prepare("frames", "--dry_run", "--skip_code")[::2] == (99, "plan: frames: fresh\n")
    assert ws.prepare("frames", "--dry_run")[0] == 0
    assert ws.prepare("flow", "--dry_run", "--skip_code")[0] == 0


def test_a_plan_alone_refuses_a_finished_store_with_too_many_rejections(ws: Workspace) -> None:
    ws.frames.frames_of = {u: n for u, n in ws.frames.frames_of.items() if "c03" not in u}
    assert ws.prepare("frames")[0] == 1
    code, _, said = ws.prepare("frames", "--dry_run", "--skip_code")
    assert code == 1
    assert "1 of 8 clips were rejected" in said
    assert ws.prepare("frames", "--max_rejected", "0.5")[0] == 0
    assert ws.prepare("frames", "--max_rejected", "0.5", "--dry_run", "--skip_code")[0] == 99


def test_a_run_cut_short_before_its_snapshot_is_not_finished(ws: Workspace) -> None:
    assert ws.prepare("frames")[0] == 0
    (Path(ws.path) / "frames" / "snapshot.json").unlink()
    code, _, said = ws.prepare("frames", "--dry_run", "--skip_code")
    assert code == 0
    assert said.splitlines() == [
        "plan: frames: stale: computed, not committed yet",
        "cost: frames: computes 0 clips, 0 frames; copies 0 clips",
    ]
    assert ws.computed("frames", "--skip_code") == 0
    assert ws.prepare("frames", "--skip_code")[0] == 99


def test_force_computes_a_fresh_store_again_and_leaves_one_valid_snapshot(ws: Workspace) -> None:
    assert (ws.computed("frames"), ws.computed("flow")) == (8, 8)
    before = StoreReader(ws.path, "flow")
    assert ws.prepare("flow", "--force", "--dry_run", "--skip_code")[0] == 0
    assert ws.computed("flow", "--force") == 8
    after = StoreReader(ws.path, "flow")
    assert after.data_files == before.data_files
    assert list(after.clips) == CLIPS
    assert ws.prepare("flow", "--dry_run", "--skip_code")[0] == 99


def test_force_replaces_what_came_out_differently(ws: Workspace) -> None:
    """As after a faulty library: the same key, other bytes."""
    assert ws.computed("frames") == 8
    before = StoreReader(ws.path, "frames").data_files
    ws.frames.frames_of = {uri: n + 1 for uri, n in ws.frames.frames_of.items()}
    assert ws.computed("frames") == 0
    assert ws.computed("frames", "--force") == 8
    after = StoreReader(ws.path, "frames")
    assert not set(after.data_files) & set(before)
    assert [e.frames for e in after.clips.values()] == [3 + i for i in range(8)]
    assert ws.computed("frames") == 0
    assert StoreReader(ws.path, "frames").data_files == after.data_files


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "--force"], "--force: name the stages to compute again"),
        (["run", "train-rgb", "--force"], "--force: found train-rgb, expected only stages that fill a store"),
    ],
)
def test_force_needs_stages_that_fill_a_store(ws: Workspace, command: list[str], message: str) -> None:
    code, _, said = ws.perfnet(*command)
    assert code == 2
    assert message in said


@pytest.mark.parametrize("command", [["run", "--dry_run"], ["status"], ["status", "--rejected"]])
def test_looking_writes_nothing(ws: Workspace, command: list[str]) -> None:
    """Also where the configuration names a folder of videos, which a run makes the clips table of."""
    videos = ws.folder / "videos" / "a"
    videos.mkdir(parents=True)
    (videos / "x.mp4").write_bytes(b"x")
    ws.path = str(ws.folder / "new")
    code, _, said = ws.perfnet(*command, "--clips.folder", str(videos.parent))
    assert code == 0, said
    assert not Path(ws.path).exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "deleted", "summary"])
def test_damage_is_named_and_only_that_shard_is_made_again(ws: Workspace, damage: str) -> None:
    assert ws.computed("frames") == 8
    before = StoreReader(ws.path, "frames").snapshot
    assert ws.perfnet("verify", "--quiet") == (0, "", "")
    shard = next(s for s in before.shards if s.clips)
    name = str(shard.summary if damage == "summary" else shard.data)
    path = Path(ws.path) / "frames" / "shards" / name
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[:-40] if damage != "flipped" else content[:50] + b"\xff" + content[51:])
    code, out, _ = ws.perfnet("verify", "frames")
    assert code == 1
    says = {"flipped": "has sha256", "cut": "has", "deleted": "is missing", "summary": "is no whole summary"}
    assert out.startswith(f"frames: shards/{name} {says[damage]}")
    assert "perfnet verify --remove_damaged`, then `perfnet run frames`" in out
    assert ws.perfnet("verify", "--remove_damaged")[0] == 1
    assert ws.computed("frames") == shard.clips
    assert ws.perfnet("verify", "--quiet") == (0, "", "")
    after = StoreReader(ws.path, "frames").snapshot
    assert [s.sha256 for s in after.shards] == [s.sha256 for s in before.shards]


def test_a_cut_snapshot_is_named_and_made_again(ws: Workspace) -> None:
    assert ws.computed("frames") == 8
    path = Path(ws.path) / "frames" / "snapshot.json"
    before = path.read_bytes()
    path.write_bytes(before[:100])
    assert ws.perfnet("verify")[1].startswith("frames: snapshot.json is no whole snapshot")
    assert ws.perfnet("verify", "--remove_damaged")[0] == 1
    assert ws.computed("frames") == 0
    assert path.read_bytes() == before


def test_a_video_replaced_with_size_and_time_restored_is_noticed(ws: Workspace) -> None:
    assert ws.computed("frames") == 8
    video = ws.video("c02")
    status = video.stat()
    video.write_bytes(video.read_bytes().upper())
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ws.computed("frames") == 0
    code, out, _ = ws.perfnet("verify", "--videos")
    assert code == 0
    assert out.startswith(f"videos: {video} has another content")
    assert "computes their 1 clips again" in out
    assert ws.computed("frames") == 1
    assert ws.perfnet("verify", "--videos", "--quiet")[1] == ""


def test_gc_beside_a_running_job_takes_nothing_of_it(ws: Workspace) -> None:
    """The job is at its fourth clip while everything older is collected, whatever its age."""
    assert ws.computed("frames") == 8
    ws.list_clips(CLIPS[:4])
    assert ws.computed("frames") == 0
    ws.list_clips(CLIPS)
    ws.stages["frames"] = Waiting(ws.frames.frames_of, {"anew": 1}, version=2, wait_for="c04")
    REACHED.clear(), GO_ON.clear()
    ended: list[int] = []
    job = threading.Thread(target=lambda: ended.append(cli.run(ws.arguments("prepare", "frames"))))
    job.start()
    assert REACHED.wait(60)
    written = {n for n in ws.files() if n.startswith("frames/shards")}
    code, out, said = ws.perfnet("gc", "--min_age_h", "0", "--flow.bound_px", "9")
    assert code == 0, said
    left = ws.files()
    GO_ON.set()
    job.join(60)
    assert ended == [0]
    gone = written - left
    assert gone  # of the first table, which no snapshot lists any more
    assert all(n in out for n in gone)
    assert not [n for n in left if n.startswith("jobs/") and not n.startswith("jobs/frames-")]
    assert ws.perfnet("verify", "--quiet") == (0, "", "")
    assert list(StoreReader(ws.path, "frames").clips) == CLIPS
    assert not [n for n in ws.files() if n.startswith("jobs/")]


def test_gc_says_what_it_would_delete(ws: Workspace) -> None:
    assert ws.computed("frames") == 8
    ws.list_clips(CLIPS[1:])
    assert ws.computed("frames") == 0
    before = ws.files()
    assert ws.perfnet("gc", "--dry_run")[1] == "would delete 0 files, 0 B\n"
    out = ws.perfnet("gc", "--dry_run", "--min_age_h", "0")[1]
    assert "would delete 2 files" in out
    assert "1 summary files, 1 data files" in out
    assert ws.files() == before
    assert "deleted 2 files" in ws.perfnet("gc", "--min_age_h", "0", "--quiet")[1]
    assert len(before - ws.files()) == 2
    assert "--min_age_h: found -1.0, expected at least 0" in ws.perfnet("gc", "--min_age_h", "-1")[2]


def test_costs_are_told_before_the_work(ws: Workspace) -> None:
    """Nothing measured; then one clip more than was measured, which pose, render and flow will have to compute too."""
    ws.list_clips(CLIPS[:7])
    out = ws.perfnet("status")[1]
    assert "cost: frames: computes 7 clips, an unknown number of frames; copies 0 clips; no rate" in out
    assert "cost: flow: computes 7 clips, an unknown number of frames" in out
    assert [ws.computed(stage) for stage in STAGES] == [7, 7, 7, 7]
    assert "cost: " not in ws.perfnet("status")[1]
    ws.list_clips(CLIPS)
    said = ws.perfnet("run", "flow", "render", "--dry_run")[2]
    costs = dict(re.findall(r"cost: (\S+): computes (.*)", said))
    frames = sum(range(2, 9)) / 7  # what the first seven clips have, on average
    assert costs["frames"].startswith(f"1 clips, {frames:.0f} frames; copies ")
    assert {line.split("; copies ")[0] for name, line in costs.items() if name != "flow"} == {
        "1 clips, 5 frames"
    }
    assert costs["flow"].startswith("1 clips, 4 frames; copies ")
    assert len({line.split("copies ")[1].split(";")[0] for line in costs.values()}) == 1


def test_a_first_run_cut_short_has_measured_a_rate(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finished shards say what a frame takes, though no snapshot lists them."""
    real = CountingFrames.process

    def process(self: CountingFrames, *clips: Video) -> ClipOutput:
        if clips[0].clip_id == "c05":
            raise ArithmeticError("by design")
        time.sleep(0.1)
        return real(self, *clips)

    with monkeypatch.context() as patch:
        patch.setattr(CountingFrames, "process", process)
        assert ws.prepare("frames")[0] == 1
    assert not (Path(ws.path) / "frames" / "snapshot.json").exists()
    (line,) = (n for n in ws.perfnet("status")[1].splitlines() if n.startswith("cost: frames: "))
    found = re.search(r": computes 1 clips, \d frames; copies \d clips; about (\S+) core-seconds", line)
    assert found, line
    assert float(found[1]) >= 0.1 * 7 / 44 * 4  # seven clips have at most 44 frames, this one at least 4


def test_status_for_machines(ws: Workspace) -> None:
    """The same as the table: state and reason, totals, the last job, the cost of what is stale."""
    ws.list_clips(CLIPS[:7])
    assert ws.computed("frames") == 7
    found = {row["item"]: row for row in json.loads(ws.perfnet("status", "--json")[1])["items"]}
    assert list(found)[:4] == list(STAGES)
    frames, flow = found["frames"], found["flow"]
    assert (frames["state"], frames["reason"], frames["cost"]) == ("fresh", None, None)
    assert (frames["totals"]["clips"], frames["totals"]["frames"]) == (7, sum(range(2, 9)))
    assert frames["last_job"]["counters"]["computed"] == 7
    assert " INFO " in (Path(ws.path) / "frames" / "last_job.log").read_text()
    assert list((Path(ws.path) / "jobs").iterdir()) == []
    assert abs(frames["last_job"]["ended_s"] - time.time()) < 60
    assert (flow["state"], flow["reason"], flow["totals"]) == ("stale", "not computed yet", None)
    assert (flow["cost"]["clips"], flow["cost"]["frames"]) == (7, sum(range(2, 9)))
    assert found["train-rgb"].keys() == {"item", "state", "reason"}
    row = next(line for line in ws.perfnet("status")[1].splitlines() if line.startswith("frames "))
    assert row.split()[1:4] == ["7", "0", "35"]
    assert row.endswith("fresh")
    assert time.strftime("%Y-%m-%d") in row
    assert "--json: prints the table of stores" in ws.perfnet("status", "--rejected", "--json")[2]
