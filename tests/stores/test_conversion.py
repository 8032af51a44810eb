"""Another format or more shards: every clip is copied, none is computed, and the store is as if made so at once."""

from pathlib import Path

import pytest
from fake_stages import CountingFlow, CountingFrames, plan_flow, plan_frames, table_of, update

from stores.commit import commit
from stores.reader import StoreReader
from stores.store import Store
from stores.summaries import ShardSummary

VIDEOS = {f"c{i:02d}": f"/v/{i}.mp4" for i in range(12)}
LENGTHS = {uri: 2 + i * 3 for i, uri in enumerate(VIDEOS.values())}


def run(workspace: str, **layout: object) -> tuple[list[ShardSummary], list[ShardSummary]]:
    """Frames and flow brought up to date in a layout: what each wrote."""
    stage, flow = CountingFrames(LENGTHS), CountingFlow()
    planned, videos = plan_frames(workspace, stage, table_of(VIDEOS), **layout)  # type: ignore[arg-type]
    first = update(planned, stage, videos=videos)
    commit(planned, max_rejected=0)
    planned, inputs = plan_flow(workspace, flow)
    second = update(planned, flow, inputs=inputs)
    commit(planned, max_rejected=0)
    assert (len(stage.seen), len(flow.seen)) == tuple(sum(s.computed for s in w) for w in (first, second))
    return first, second


def counted(summaries: list[ShardSummary]) -> tuple[int, int]:
    return sum(s.computed for s in summaries), sum(s.copied for s in summaries)


def contents(workspace: str) -> list[tuple[int, str | None]]:
    stores = [Store(workspace, name).require_snapshot() for name in ("frames", "flow")]
    return [(s.shard, s.sha256) for snapshot in stores for s in snapshot.shards]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"shard_format": "parquet"}, {"shard_format": "tfrecord"}),
        ({"shard_format": "tfrecord"}, {"shard_format": "parquet"}),
        ({"num_shards": 4}, {"num_shards": 8}),
        ({"shard_format": "tfrecord", "num_shards": 4}, {"shard_format": "tfrecord", "num_shards": 8}),
        ({}, {"shard_format": "tfrecord", "num_shards": 12}),
    ],
)
def test_another_layout_copies_all_and_computes_nothing(
    tmp_path: Path, before: dict[str, object], after: dict[str, object]
) -> None:
    ws, fresh = str(tmp_path / "ws"), str(tmp_path / "fresh")
    assert [counted(s) for s in run(ws, **before)] == [(12, 0), (12, 0)]
    assert [counted(s) for s in run(ws, **after)] == [(0, 12), (0, 12)]
    assert [counted(s) for s in run(ws, **after)] == [(0, 0), (0, 0)]
    run(fresh, **after)
    assert contents(ws) == contents(fresh)
    assert [r.frame for r in StoreReader(ws, "frames").window("c05", 3, 6)] == [3, 4, 5]
    assert len(StoreReader(ws, "flow").window("c11", 0, 34)) == 34


def test_the_layout_that_was_there_before_is_there_still(tmp_path: Path) -> None:
    ws = str(tmp_path)
    run(ws)
    before = contents(ws)
    run(ws, shard_format="tfrecord")
    assert [counted(s) for s in run(ws)] == [(0, 0), (0, 0)]
    assert contents(ws) == before


def test_the_plan_says_what_changed(tmp_path: Path) -> None:
    ws = str(tmp_path)
    run(ws)
    stage = CountingFrames(LENGTHS)
    planned, _ = plan_frames(ws, stage, table_of(VIDEOS), shard_format="tfrecord")
    assert planned.reason == "format: was parquet, is tfrecord"


def test_a_clip_whose_copy_is_damaged_is_computed(tmp_path: Path) -> None:
    ws, fresh = str(tmp_path / "ws"), str(tmp_path / "fresh")
    run(ws)
    snapshot = Store(ws, "frames").require_snapshot()
    path = Path(Store(ws, "frames").shard_uri(str(snapshot.shards[1].data)))
    path.write_bytes(path.read_bytes()[:200])
    (computed, copied), _ = (counted(s) for s in run(ws, num_shards=8))
    assert (computed, copied) == (snapshot.shards[1].clips, 12 - snapshot.shards[1].clips)
    run(fresh, num_shards=8)
    assert contents(ws) == contents(fresh)
