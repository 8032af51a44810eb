"""What any earlier run has done is not done again, whatever became of that run."""

from pathlib import Path

import pytest
from fake_stages import CountingFrames, plan_frames, table_of, update
from test_plan import LENGTHS, VIDEOS, run_flow, run_frames, shards_of

from stores.checks import StageFailed
from stores.earlier import summaries_with_clips_of, written_num_shards
from stores.keys import shard_of
from stores.plan import build_tasks
from stores.store import Store

BAD = {**VIDEOS, "bad": "/v/bad.mp4"}
KEY, CONTENT = "0" * 16, "1" * 16


def test_a_refused_run_is_not_computed_again_when_its_bad_clip_is_taken_out(tmp_path: Path) -> None:
    ws = str(tmp_path)
    with pytest.raises(StageFailed, match="1 of 13 clips were rejected"):
        run_frames(ws, table_of(BAD))
    assert run_frames(ws, table_of(VIDEOS)).seen == []
    run_frames(str(tmp_path / "fresh"), table_of(VIDEOS))
    assert shards_of(ws, "frames") == shards_of(str(tmp_path / "fresh"), "frames")


@pytest.mark.parametrize("layout", [{"shard_format": "tfrecord"}, {"num_shards": 8}, {"num_shards": 2}])
def test_without_a_snapshot_another_layout_copies(tmp_path: Path, layout: dict[str, object]) -> None:
    ws = str(tmp_path)
    run_frames(ws, table_of(VIDEOS))
    (tmp_path / "frames" / "snapshot.json").write_text("{")
    assert run_frames(ws, table_of(VIDEOS), **layout).seen == []


def test_a_clip_that_comes_back_is_copied(tmp_path: Path) -> None:
    ws = str(tmp_path)
    some = {c: u for c, u in VIDEOS.items() if c != "c03"}
    run_frames(ws, table_of(VIDEOS))
    run_frames(ws, table_of(some))
    others = {**some, "new": "/v/3.mp4"}
    run_frames(ws, table_of(others))
    assert run_frames(ws, table_of({**others, "c03": VIDEOS["c03"]})).seen == []


def test_a_data_file_that_is_gone_or_damaged_is_computed(tmp_path: Path) -> None:
    ws = str(tmp_path)
    with pytest.raises(StageFailed):
        run_frames(ws, table_of(BAD))
    shard = shard_of("bad", 4)
    (data,) = (tmp_path / "frames" / "shards").glob(f"{shard:05d}-*.parquet")
    data.write_bytes(data.read_bytes()[:100])
    its = sorted(c for c in VIDEOS if shard_of(c, 4) == shard)
    assert its
    stage = CountingFrames(LENGTHS)
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    assert sorted(c.clip_id for t in build_tasks(planned, videos=videos) for c in t.clips if c.copy) == its
    update(planned, stage, videos=videos)
    assert sorted(stage.seen) == its


def test_a_clip_that_recovered_once_is_not_rejected_because_its_copy_is_damaged(tmp_path: Path) -> None:
    """Its old rejection stands in the summary of a run before."""
    ws, clips = str(tmp_path), table_of(BAD)
    run_frames(ws, clips, max_rejected=0.5)
    stage = CountingFrames({**LENGTHS, "/v/bad.mp4": 9})
    planned, videos = plan_frames(ws, stage, clips, retry_rejected=True)
    update(planned, stage, videos=videos, retry_rejected=True)
    assert stage.seen == ["bad"]
    for path in (tmp_path / "frames" / "shards").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    planned, videos = plan_frames(ws, stage, clips, num_shards=8)
    update(planned, stage, videos=videos)
    assert sorted(stage.seen) == sorted([*BAD, "bad"])


def test_a_changed_option_reads_none_of_the_summaries_that_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are of the option before, and a large collection has tens of thousands of them."""
    ws = str(tmp_path)
    run_frames(ws, table_of(VIDEOS))
    run_flow(ws)
    read: list[str] = []
    real = Store.summary
    monkeypatch.setattr(Store, "summary", lambda self, name: read.append(name) or real(self, name))
    stage = CountingFrames(LENGTHS, {"fps": 10})
    planned, videos = plan_frames(ws, stage, table_of(VIDEOS))
    assert len(build_tasks(planned, videos=videos)) == 4
    assert read == []
    planned, videos = plan_frames(ws, CountingFrames(LENGTHS), table_of(VIDEOS))
    assert build_tasks(planned, videos=videos) == []
    assert read == []


def summary(shard: int, num_shards: int) -> str:
    return f"{shard:05d}-of-{num_shards:05d}-{KEY}-{CONTENT}.json"


def test_only_summaries_of_shards_that_can_share_clips_count() -> None:
    listing = [summary(s, n) for n in (4, 6, 8) for s in range(n)]
    listing += [
        f"00001-of-00004-{KEY}-{CONTENT}.tfrecord.json",
        f"00001-of-00004-{KEY}-{CONTENT}.parquet",
        "x",
    ]
    found = set(summaries_with_clips_of([1], 4, listing))
    four, six = {summary(1, 4), f"00001-of-00004-{KEY}-{CONTENT}.tfrecord.json"}, {1, 3, 5}
    assert found == four | {summary(s, 6) for s in six} | {summary(s, 8) for s in (1, 5)}
    both = [c for c in map(str, range(200)) if shard_of(c, 4) == 1]
    assert {shard_of(c, 6) for c in both} == six


def test_the_number_of_shards_is_read_from_names() -> None:
    assert written_num_shards([]) is None
    assert written_num_shards([f"00001-of-00004-{KEY}-{CONTENT}.parquet", "00000-of-00000.json"]) is None
    assert written_num_shards([summary(3, 64)]) == 64
    four, eight = [summary(s, 4) for s in range(4)], [summary(s, 8) for s in range(8)]
    assert written_num_shards([*four, *eight[:7]]) == 4
    assert written_num_shards([*four, *eight]) == 8
