"""Planning and updating: exactly what is missing or stale is computed, and the rest is copied or left alone."""

import os
from pathlib import Path

import pytest
from fake_stages import CountingFlow, CountingFrames, plan_flow, plan_frames, spec_of, table_of, update
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.checks import StageFailed
from stores.clips import ClipsTable
from stores.commit import commit
from stores.plan import ShardTask, build_tasks, choose_num_shards
from stores.reader import StoreReader
from stores.store import Store

VIDEOS = {f"c{i:02d}": f"/v/{i}.mp4" for i in range(12)}
LENGTHS = {uri: 2 + i * 3 for i, uri in enumerate(VIDEOS.values())}


def run_frames(
    workspace: str, clips: ClipsTable, *, max_rejected: float = 0.0, **kw: object
) -> CountingFrames:
    """One run of the first stage; the stage tells which clips it computed."""
    stage = CountingFrames(LENGTHS)
    planned, videos = plan_frames(workspace, stage, clips, **kw)  # type: ignore[arg-type]
    update(planned, stage, videos=videos, retry_rejected=bool(kw.get("retry_rejected")))
    commit(planned, max_rejected=max_rejected)
    return stage


def run_flow(workspace: str) -> CountingFlow:
    stage = CountingFlow()
    planned, inputs = plan_flow(workspace, stage)
    update(planned, stage, inputs=inputs)
    commit(planned, max_rejected=0)
    return stage


def shards_of(workspace: str, store: str) -> list[tuple[int, str | None]]:
    return [(s.shard, s.sha256) for s in Store(workspace, store).require_snapshot().shards]


def test_first_run_computes_all_and_the_second_nothing(tmp_path: Path) -> None:
    clips = table_of(VIDEOS)
    assert sorted(run_frames(str(tmp_path), clips).seen) == sorted(VIDEOS)
    assert run_frames(str(tmp_path), clips).seen == []
    planned, _ = plan_frames(str(tmp_path), CountingFrames(LENGTHS), clips)
    assert (planned.stale, planned.reason) == ((), "")


def test_an_added_clip_is_computed_alone_in_every_store(tmp_path: Path) -> None:
    ws = str(tmp_path)
    some = dict(list(VIDEOS.items())[:-1])
    run_frames(ws, table_of(some))
    run_flow(ws)
    assert run_frames(ws, table_of(VIDEOS)).seen == ["c11"]
    assert run_flow(ws).seen == ["c11"]
    assert list(StoreReader(ws, "flow").clips) == sorted(VIDEOS)


def test_a_removed_clip_computes_nothing_and_is_gone(tmp_path: Path) -> None:
    ws = str(tmp_path)
    run_frames(ws, table_of(VIDEOS))
    run_flow(ws)
    some = {c: u for c, u in VIDEOS.items() if c != "c03"}
    assert run_frames(ws, table_of(some)).seen == []
    assert run_flow(ws).seen == []
    assert "c03" not in StoreReader(ws, "flow").clips


def test_a_replaced_video_is_computed_alone(tmp_path: Path) -> None:
    ws, clips = str(tmp_path), table_of(VIDEOS)
    run_frames(ws, clips)
    run_flow(ws)
    assert run_frames(ws, clips, versions={"/v/4.mp4": "other content"}).seen == ["c04"]
    assert run_flow(ws).seen == ["c04"]


def test_what_determines_one_clip_alone_makes_that_clip_stale(tmp_path: Path) -> None:
    """Such as keypoints that a user brings, one file a clip."""
    ws = str(tmp_path)
    run_frames(ws, table_of(VIDEOS))

    def run(clip_specs: dict[str, str]) -> list[str]:
        stage = CountingFlow()
        planned, inputs = plan_flow(ws, stage, clip_specs)
        update(planned, stage, inputs=inputs, clip_specs=clip_specs)
        commit(planned, max_rejected=0)
        return stage.seen

    specs = dict.fromkeys(VIDEOS, "first")
    assert sorted(run(specs)) == sorted(VIDEOS)
    assert run(specs) == []
    assert run({**specs, "c07": "second"}) == ["c07"]


def test_a_changed_option_computes_all_and_says_why(tmp_path: Path) -> None:
    ws, clips = str(tmp_path), table_of(VIDEOS)
    run_frames(ws, clips)
    planned, _ = plan_frames(ws, CountingFrames(LENGTHS, {"fps": 10}), clips)
    assert len(planned.stale) == 4
    assert planned.reason == "frames.fps: was the default, is 10"


def test_a_raised_version_says_so(tmp_path: Path) -> None:
    ws, clips = str(tmp_path), table_of(VIDEOS)
    run_frames(ws, clips)
    planned, _ = plan_frames(ws, CountingFrames(LENGTHS, version=2), clips)
    assert planned.reason == "frames is computed by version 2, was 1"


def test_more_shards_copy_and_compute_nothing(tmp_path: Path) -> None:
    ws, clips = str(tmp_path), table_of(VIDEOS)
    run_frames(ws, clips)
    assert run_frames(ws, clips, num_shards=8).seen == []
    assert len(shards_of(ws, "frames")) == 8
    assert [r.frame for r in StoreReader(ws, "frames").window("c05", 3, 6)] == [3, 4, 5]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """Two of four shards are written, no snapshot: the next run computes the others, and ends as a calm run does."""
    calm, ws, clips = str(tmp_path / "calm"), str(tmp_path / "ws"), table_of(VIDEOS)
    run_frames(calm, clips)
    stage = CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, clips)
    tasks = build_tasks(planned, videos=videos)
    from transforms.update import ShardUpdate

    for task in tasks[:2]:
        ShardUpdate(stage, planned.store, planned.encoding, planned.spec).run(task)
    done = set(stage.seen)
    planned, _ = plan_frames(ws, stage, clips)
    assert planned.reason == "not finished yet, 2 of 4 shards are done"
    assert set(run_frames(ws, clips).seen) == set(VIDEOS) - done
    assert shards_of(ws, "frames") == shards_of(calm, "frames")


@pytest.mark.parametrize("what", ["data", "summary", "snapshot", "half a summary", "half a snapshot"])
def test_lost_files_are_made_again(tmp_path: Path, what: str) -> None:
    ws, clips = str(tmp_path), table_of(VIDEOS)
    run_frames(ws, clips)
    before = shards_of(ws, "frames")
    snapshot = Store(ws, "frames").require_snapshot()
    reference = snapshot.shards[1]
    folder = tmp_path / "frames"
    names = {"data": f"shards/{reference.data}", "summary": f"shards/{reference.summary}"}
    path = folder / names.get(what.removeprefix("half a "), "snapshot.json")
    if what.startswith("half"):
        path.write_bytes(path.read_bytes()[:100])
        if (
            "summary" in what
        ):  # readers and planners look into a summary only where no snapshot vouches for it
            (folder / "snapshot.json").unlink()
    else:
        path.unlink()
    run_frames(ws, clips)
    assert shards_of(ws, "frames") == before
    assert StoreReader(ws, "frames").window("c01", 0, 5)[4].frame == 4


def test_rejections_are_sealed_until_asked_for(tmp_path: Path) -> None:
    ws = str(tmp_path)
    clips = table_of({**VIDEOS, "bad": "/v/bad.mp4"})
    assert "bad" in run_frames(ws, clips, max_rejected=0.5).seen
    assert run_frames(ws, clips, max_rejected=0.5).seen == []
    some = {c: u for c, u in VIDEOS.items() if c != "c00"} | {"bad": "/v/bad.mp4"}
    assert (
        run_frames(ws, table_of(some), max_rejected=0.5).seen == []
    )  # its shard is made anew, the clip is not tried
    assert run_frames(ws, table_of(some), max_rejected=0.5, retry_rejected=True).seen == ["bad"]


def test_too_many_rejections_refuse_the_store_every_time(tmp_path: Path) -> None:
    clips = table_of({**VIDEOS, "bad": "/v/bad.mp4"})
    for _ in range(2):
        with pytest.raises(
            StageFailed, match=r"1 of 13 clips were rejected(.|\n)*bad: damaged: after 20 frames"
        ):
            run_frames(str(tmp_path), clips)
    assert Store(str(tmp_path), "frames").snapshot() is None


def test_a_recovered_clip_flows_on_by_itself(tmp_path: Path) -> None:
    ws = str(tmp_path)
    clips = table_of({**VIDEOS, "bad": "/v/bad.mp4"})
    run_frames(ws, clips, max_rejected=0.5)
    run_flow(ws)
    stage = CountingFrames({**LENGTHS, "/v/bad.mp4": 9})
    planned, videos = plan_frames(ws, stage, clips, retry_rejected=True)
    update(planned, stage, videos=videos, retry_rejected=True)
    commit(planned, max_rejected=0)
    assert stage.seen == ["bad"]
    assert run_flow(ws).seen == ["bad"]


def test_an_internal_error_keeps_the_others_and_commits_nothing(tmp_path: Path) -> None:
    class Breaks(CountingFrames):
        def process(self, *clips):
            if clips[0].clip_id == "c05":
                raise ZeroDivisionError("by design")
            return super().process(*clips)

    ws, clips = str(tmp_path), table_of(VIDEOS)
    stage = Breaks(LENGTHS)
    planned, videos = plan_frames(ws, stage, clips)
    update(planned, stage, videos=videos)
    with pytest.raises(StageFailed, match=r"failed with an internal error(.|\n)*c05: .*ZeroDivisionError"):
        commit(planned, max_rejected=1)
    assert run_frames(ws, clips).seen == ["c05"]


def test_tasks_survive_json(tmp_path: Path) -> None:
    ws = str(tmp_path)
    run_frames(ws, table_of(VIDEOS))
    planned, inputs = plan_flow(ws, CountingFlow())
    for task in build_tasks(planned, inputs=inputs):
        assert ShardTask.from_json(task.to_json()) == task


@pytest.mark.parametrize(("clips", "shards"), [(1, 1), (20, 32), (120, 32), (1_000, 64), (500_000, 32_768)])
def test_number_of_shards(clips: int, shards: int) -> None:
    assert choose_num_shards(clips) == shards


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(st.sets(st.sampled_from(sorted(VIDEOS)), min_size=1), min_size=1, max_size=4))
def test_any_order_of_adding_and_removing_ends_as_a_fresh_build(
    steps: list[set[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    ws, fresh = (str(tmp_path_factory.mktemp(name)) for name in ("ws", "fresh"))
    for step in steps:
        run_frames(ws, table_of({c: VIDEOS[c] for c in step}))
    run_frames(fresh, table_of({c: VIDEOS[c] for c in steps[-1]}))
    assert shards_of(ws, "frames") == shards_of(fresh, "frames")


def test_no_partial_files_are_left(tmp_path: Path) -> None:
    run_frames(str(tmp_path), table_of(VIDEOS))
    names = [name for _, _, found in os.walk(tmp_path) for name in found]
    assert names
    assert not [n for n in names if n.startswith(".part")]
    assert spec_of(CountingFlow()) == {"stage": "flow", "version": 1, "options": {}}
