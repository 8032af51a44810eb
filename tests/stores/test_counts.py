"""How many clips each change computes, counted by the stages' own summaries over the whole chain."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_stages import (
    CountingFlow,
    CountingFrames,
    CountingPose,
    CountingRender,
    spec_of,
    table_of,
    update,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from stores.clips import ClipsTable, make_clips
from stores.commit import commit
from stores.identities import Identity
from stores.plan import VideoClips, expected_from_inputs, expected_from_videos, plan_stage
from stores.reader import StoreReader
from stores.records import Frame
from stores.store import Store
from stores.summaries import Encoding
from transforms.stage import Video

VIDEOS = {f"c{i:02d}": f"/v/{i}.mp4" for i in range(10)}
LENGTHS = {uri: 2 + i for i, uri in enumerate(VIDEOS.values())}
CHAIN = ("frames", "pose", "render", "flow")
FOUR_SHARDS = Encoding("parquet", 4)
NONE = dict.fromkeys(CHAIN, 0)


class Frames(CountingFrames):
    """Frames that tell which content of the video they were made of."""

    def _frames(self, video: Video) -> Iterator[Frame]:
        for frame in super()._frames(video):
            yield replace(frame, image=f"{video.modified} {frame.frame}".encode())


def run_chain(
    workspace: str,
    clips: ClipsTable,
    *,
    versions: Mapping[str, str] | None = None,
    flow: Mapping[str, Any] | None = None,
    encoding: Encoding = FOUR_SHARDS,
) -> tuple[dict[str, int], dict[str, int]]:
    """Brings all four stores up to date; clips computed and clips copied, by stage."""
    stages: tuple[Any, ...] = (
        Frames(LENGTHS),
        CountingPose(),
        CountingRender(),
        CountingFlow(options=flow or {}),
    )
    computed, copied = {}, {}
    for name, stage in zip(CHAIN, stages, strict=True):
        spec, inputs, videos = spec_of(stage), [], None
        if not stage.inputs:
            digests = {uri: (versions or {}).get(uri, uri) for uri in clips.uris}
            identities = {uri: Identity(uri, 1, digest, digest) for uri, digest in digests.items()}
            videos = VideoClips(clips, identities, spec, encoding.num_shards)
            expected = expected_from_videos(spec, videos)
        else:
            inputs = [(s, s.require_snapshot()) for s in (Store(workspace, n) for n in stage.inputs)]
            expected = expected_from_inputs(spec, [snapshot for _, snapshot in inputs])
        plan = plan_stage(Store(workspace, stage.name), spec=spec, encoding=encoding, expected=expected)
        summaries = update(plan, stage, videos=videos, inputs=inputs)
        commit(plan, max_rejected=0)
        computed[name] = sum(s.computed for s in summaries)
        copied[name] = sum(s.copied for s in summaries)
        assert computed[name] == len(getattr(stage, "seen", range(computed[name])))
    return computed, copied


@pytest.fixture
def ws(tmp_path: Path) -> str:
    computed, copied = run_chain(str(tmp_path), table_of(VIDEOS))
    assert computed == dict.fromkeys(CHAIN, len(VIDEOS))
    assert copied == NONE
    return str(tmp_path)


def test_a_second_run_computes_and_copies_nothing(ws: str) -> None:
    assert run_chain(ws, table_of(VIDEOS)) == (NONE, NONE)


def test_one_clip_more_is_one_clip_a_stage(ws: str) -> None:
    assert run_chain(ws, table_of({**VIDEOS, "new": "/v/3.mp4"}))[0] == dict.fromkeys(CHAIN, 1)


def test_one_clip_replaced_is_one_clip_a_stage(ws: str) -> None:
    assert run_chain(ws, table_of(VIDEOS), versions={"/v/4.mp4": "x"})[0] == dict.fromkeys(CHAIN, 1)


def test_another_segment_is_one_clip_a_stage(ws: str) -> None:
    clips = table_of(VIDEOS)
    longer = replace(clips, stops_s=[9.0, *clips.stops_s[1:]])
    assert run_chain(ws, longer)[0] == dict.fromkeys(CHAIN, 1)


def test_one_clip_less_computes_nothing(ws: str) -> None:
    assert run_chain(ws, table_of({c: u for c, u in VIDEOS.items() if c != "c06"}))[0] == NONE


def test_new_labels_and_splits_compute_and_copy_nothing(ws: str) -> None:
    rows = [{"clip_id": c, "uri": u, "label": c, "split_1": "test"} for c, u in VIDEOS.items()]
    assert run_chain(ws, make_clips(rows)) == (NONE, NONE)


def test_moved_videos_compute_and_copy_nothing(ws: str) -> None:
    moved = {c: f"/elsewhere{u}" for c, u in VIDEOS.items()}
    assert run_chain(
        ws, table_of(moved), versions=dict(zip(moved.values(), VIDEOS.values(), strict=True))
    ) == (NONE, NONE)


def test_an_option_of_flow_computes_flow_alone(ws: str) -> None:
    assert run_chain(ws, table_of(VIDEOS), flow={"bound_px": 15})[0] == {**NONE, "flow": len(VIDEOS)}


@pytest.mark.parametrize(
    "encoding", [Encoding("tfrecord", 4), Encoding("parquet", 12), Encoding("tfrecord", 8)]
)
def test_another_layout_copies_all_and_computes_nothing(ws: str, encoding: Encoding) -> None:
    keys_before = {n: [e.key for e in StoreReader(ws, n).clips.values()] for n in ("frames", "pose", "flow")}
    assert run_chain(ws, table_of(VIDEOS), encoding=encoding) == (NONE, dict.fromkeys(CHAIN, len(VIDEOS)))
    assert keys_before == {n: [e.key for e in StoreReader(ws, n).clips.values()] for n in keys_before}
    assert run_chain(ws, table_of(VIDEOS)) == (NONE, NONE)  # the shards of before still stand


class Collection(RuleBasedStateMachine):
    """Clips come, go and change in any order, and the stores follow, now and then; the end is that of a fresh build."""

    folder: Path
    number = 0

    @initialize(clips=st.sets(st.sampled_from(sorted(VIDEOS)), min_size=1, max_size=4))
    def begin(self, clips: set[str]) -> None:
        Collection.number += 1
        self.workspace = str(self.folder / f"ws{Collection.number}")
        self.clips = {c: VIDEOS[c] for c in clips}
        self.versions: dict[str, str] = {}

    @rule(clip=st.sampled_from(sorted(VIDEOS)))
    def add(self, clip: str) -> None:
        self.clips[clip] = VIDEOS[clip]

    @rule(clip=st.sampled_from(sorted(VIDEOS)))
    def remove(self, clip: str) -> None:
        if len(self.clips) > 1:
            self.clips.pop(clip, None)

    @rule(clip=st.sampled_from(sorted(VIDEOS)), version=st.sampled_from(["a", "b", "c"]))
    def replace_video(self, clip: str, version: str) -> None:
        self.versions[VIDEOS[clip]] = version

    @rule()
    def run(self) -> None:
        run_chain(self.workspace, table_of(self.clips), versions=self.versions)

    def teardown(self) -> None:
        if not hasattr(self, "workspace"):
            return
        self.run()
        fresh = self.workspace + "-fresh"
        run_chain(fresh, table_of(self.clips), versions=self.versions)
        for name in ("frames", "pose", "render/rgb-bar-13-ratio", "flow"):
            mine, theirs = StoreReader(self.workspace, name), StoreReader(fresh, name)
            assert mine.snapshot.key == theirs.snapshot.key
            assert [s.key for s in mine.snapshot.shards] == [s.key for s in theirs.snapshot.shards]
            assert [s.sha256 for s in mine.snapshot.shards] == [s.sha256 for s in theirs.snapshot.shards]
            assert list(mine.clips) == sorted(self.clips)
        frames, flow = StoreReader(self.workspace, "frames"), StoreReader(self.workspace, "flow")
        for clip in self.clips:
            content = self.versions.get(VIDEOS[clip], VIDEOS[clip])
            images = [f"{content} {i}".encode() for i in range(LENGTHS[VIDEOS[clip]])]
            assert [record.image for record in frames.records(clip)] == images
            assert [record.x for record in flow.records(clip)] == images[:-1]


@pytest.mark.slow
def test_any_order_of_changes_ends_as_a_fresh_build(tmp_path: Path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Collection.folder = tmp_path
    run_state_machine_as_test(
        Collection,
        settings=settings(
            max_examples=12,
            stateful_step_count=10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
