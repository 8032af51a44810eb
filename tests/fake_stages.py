"""Stages whose output can be told in advance: they number frames instead of looking at videos."""

import glob
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stores.clips import ClipsTable, make_clips
from stores.identities import Identity
from stores.plan import (
    StagePlan,
    VideoClips,
    build_tasks,
    expected_from_inputs,
    expected_from_videos,
    plan_stage,
)
from stores.records import FlowPair, Frame, People
from stores.rejections import ClipRejected
from stores.store import Store
from stores.summaries import Encoding, ShardSummary
from transforms.stage import ClipOutput, StoredClip, Video
from transforms.update import ShardUpdate


@dataclass
class CountingFrames:
    """Makes `frames_of[uri]` frames of each video; a uri that is missing there is rejected as damaged."""

    frames_of: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    name: str = "frames"
    version: int = 1
    inputs: tuple[str, ...] = ()

    def spec(self) -> Mapping[str, Any]:
        return self.options

    def setup(self) -> None:
        pass

    def process(self, *clips: Video) -> ClipOutput:
        (video,) = clips
        self.seen.append(video.clip_id)
        return ClipOutput(40, 30, self._frames(video))

    def _frames(self, video: Video) -> Iterator[Frame]:
        for frame in range(self.frames_of.get(video.uri, 20)):
            yield Frame(frame, frame * 40_000, f"{video.uri} {frame}".encode())
        if video.uri not in self.frames_of:
            raise ClipRejected("damaged", "after 20 frames")


@dataclass
class CountingFlow:
    """One pair fewer than frames, made of the images' bytes."""

    seen: list[str] = field(default_factory=list)
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = "flow"
    version: int = 1
    inputs: tuple[str, ...] = ("frames",)

    def spec(self) -> Mapping[str, Any]:
        return self.options

    def setup(self) -> None:
        pass

    def process(self, *clips: StoredClip) -> ClipOutput:
        (clip,) = clips
        self.seen.append(clip.clip_id)
        images = [record.image for record in clip.records()]
        pairs = (FlowPair(i, images[i], images[i + 1]) for i in range(len(images) - 1))
        return ClipOutput(clip.width_px, clip.height_px, pairs)


@dataclass
class CountingPose:
    """Nobody in any frame."""

    name: str = "pose"
    version: int = 1
    inputs: tuple[str, ...] = ("frames",)

    def spec(self) -> Mapping[str, Any]:
        return {}

    def setup(self) -> None:
        pass

    def process(self, *clips: StoredClip) -> ClipOutput:
        (clip,) = clips
        return ClipOutput(clip.width_px, clip.height_px, map(People.nobody, range(clip.frames)))


@dataclass
class CountingRender:
    """The frames as they are, once pose has an answer for each."""

    name: str = "render/rgb-bar-13-ratio"
    version: int = 1
    inputs: tuple[str, ...] = ("frames", "pose")

    def spec(self) -> Mapping[str, Any]:
        return {}

    def setup(self) -> None:
        pass

    def process(self, *clips: StoredClip) -> ClipOutput:
        frames, pose = clips
        pairs = zip(frames.records(), pose.records(), strict=True)
        return ClipOutput(frames.width_px, frames.height_px, (frame for frame, _ in pairs))


def table_of(uris: Mapping[str, str]) -> ClipsTable:
    """A clips table from clip_id → uri."""
    return make_clips([{"clip_id": c, "uri": u, "label": "a"} for c, u in uris.items()])


def identities_of(clips: ClipsTable, versions: Mapping[str, str] | None = None) -> dict[str, Identity]:
    """Identities whose digest is the uri, or what `versions` says."""
    return {uri: Identity(uri, 1, "1", (versions or {}).get(uri, uri)) for uri in clips.uris}


def spec_of(stage: Any) -> dict[str, Any]:
    return {"stage": stage.name, "version": stage.version, "options": dict(stage.spec())}


def plan_frames(
    workspace: str,
    stage: CountingFrames,
    clips: ClipsTable,
    *,
    num_shards: int = 4,
    shard_format: str = "parquet",
    retry_rejected: bool = False,
    **kw: Any,
) -> tuple[StagePlan, dict]:
    spec = spec_of(stage)
    videos = VideoClips(clips, identities_of(clips, **kw), spec, num_shards)
    planned = plan_stage(
        Store(workspace, "frames"),
        spec=spec,
        encoding=Encoding(shard_format, num_shards),
        expected=expected_from_videos(spec, videos),
        retry_rejected=retry_rejected,
    )
    return planned, videos


def plan_flow(
    workspace: str, stage: CountingFlow, clip_specs: Mapping[str, str] | None = None
) -> tuple[StagePlan, tuple]:
    spec, frames = spec_of(stage), Store(workspace, "frames")
    snapshot = frames.require_snapshot()
    expected = expected_from_inputs(spec, [snapshot], clip_specs)
    planned = plan_stage(Store(workspace, "flow"), spec=spec, encoding=snapshot.encoding, expected=expected)
    return planned, ((frames, snapshot),)


def update(planned: StagePlan, stage: Any, **tasks: Any) -> list[ShardSummary]:
    """Runs every stale shard of a plan in this process."""
    work = ShardUpdate(stage, planned.store, planned.encoding, planned.spec)
    return [work.run(task) for task in build_tasks(planned, **tasks)]


@dataclass
class Deadly(CountingFrames):
    """Kills its own process at one clip, the way a segmentation fault or the out-of-memory killer would.

    It waits for the first shard with clips in `shards`: another worker may not have begun yet.
    """

    deadly: str = ""
    shards: str = ""

    def process(self, *clips: Video) -> ClipOutput:
        if clips[0].clip_id == self.deadly:
            deadline = time.monotonic() + 60
            while not glob.glob(os.path.join(self.shards, "*.parquet")) and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(*clips)
