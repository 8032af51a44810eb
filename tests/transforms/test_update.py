"""One shard's update: what a failing disk does to it."""

from pathlib import Path

import pytest
from fake_stages import CountingFrames, plan_frames, table_of
from shard_contract import largest_file

from stores.formats import ShardNotWritten
from stores.plan import build_tasks
from stores.store import Store
from transforms.update import ShardUpdate

VIDEOS = {f"c{i:02d}": f"/v/{i}.mp4" for i in range(12)}


@pytest.mark.parametrize("shard_format", ["parquet", "tfrecord"])
def test_a_disk_that_fills_up_under_a_shard_publishes_nothing(tmp_path: Path, shard_format: str) -> None:
    """The first clips fit. No clip is called unreadable for it, and no file with half a clip stands in the store."""
    stage = CountingFrames(dict.fromkeys(VIDEOS.values(), 400))
    planned, videos = plan_frames(
        str(tmp_path), stage, table_of(VIDEOS), num_shards=1, shard_format=shard_format
    )
    (task,) = build_tasks(planned, videos=videos)
    update = ShardUpdate(stage, planned.store, planned.encoding, planned.spec)
    with largest_file(80_000), pytest.raises(ShardNotWritten, match="File too large"):
        update.run(task)
    assert 1 < len(stage.seen) < len(VIDEOS)
    assert Store(str(tmp_path), "frames").listing() == set()
    summary = update.run(task)
    assert (len(summary.clips), summary.rejected) == (12, ())
