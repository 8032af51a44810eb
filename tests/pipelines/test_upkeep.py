"""Commands that look after a workspace, through the command line, on stages that number frames."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_stages import CountingFlow, CountingFrames, CountingPose, CountingRender

from pipelines import cli, prepare
from pipelines.config import Config
from stores.clips import make_clips, write_clips
from stores.reader import StoreReader

CLIPS = [f"c{i:02d}" for i in range(8)]


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
        self.frames = CountingFrames({str(self.video(c)): 2 + i for i, c in enumerate(CLIPS)})
        self.flow = CountingFlow()
        stages: dict[str, Any] = {
            "frames": self.frames,
            "pose": CountingPose(),
            "render": CountingRender(),
            "flow": self.flow,
        }

        def make_stage(stage: str, config: Config) -> Any:
            return stages[stage]

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
    assert ws.prepare("frames", "--dry_run", "--skip_code")[::2] == (
        0,
        "plan: frames: stale: not computed yet\n",
    )
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
    assert (code, said) == (0, "plan: frames: stale: computed, not committed yet\n")
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
