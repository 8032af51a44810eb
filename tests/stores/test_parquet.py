"""Parquet shards: the contract of every format, row groups, and how little of a file a window reads."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from shard_contract import ShardContract, build, frames, person

from stores.parquet import ParquetShardReader
from stores.records import FlowPair, Frame, People, Record


class TestParquet(ShardContract):
    format, other = "parquet", "tfrecord"


def test_row_groups_hold_one_clip_and_at_most_16_frames(tmp_path: Path) -> None:
    data, _ = build(str(tmp_path), "frames", {"a": frames(33), "b": frames(5)})
    file = pq.ParquetFile(tmp_path / "frames" / "shards" / str(data))
    groups = [file.read_row_group(i).to_pydict() for i in range(file.num_row_groups)]
    assert [len(g["frame"]) for g in groups] == [16, 16, 1, 5]
    assert all(len(set(g["clip_id"])) == 1 for g in groups)


class CountingFile(io.FileIO):
    """Counts the bytes that are read."""

    bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        found = super().read(size)
        self.bytes_read += len(found)
        return found

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = super().readinto(buffer)
        self.bytes_read += count
        return count


def ten_seconds(name: str) -> list[Record]:
    """250 records of realistic sizes: JPEGs of 15 kB, planes of 5 kB, three people."""
    random = np.random.default_rng(0)
    if name == "frames":
        return [Frame(i, 40_000 * i, random.bytes(15_000)) for i in range(250)]
    if name == "flow":
        return [FlowPair(i, random.bytes(5_000), random.bytes(5_000)) for i in range(250)]
    crowd = [[person(i, seed) for seed in range(3)] for i in range(250)]
    columns = ("scores_P", "boxes_P4", "keypoints_PK3")
    return [
        People(i, *(np.concatenate([getattr(p, c) for p in people]) for c in columns))
        for i, people in enumerate(crowd)
    ]


@pytest.mark.parametrize("name", ["frames", "flow", "pose"])
@pytest.mark.parametrize("start", [0, 100, 111, 186])
def test_64_of_250_frames_touch_less_than_two_fifths_of_the_bytes(
    tmp_path: Path, name: str, start: int
) -> None:
    """The window lies in at most five row groups of 16. The footer counts too, except for pose, whose clip is small
    beside the 64 kB that Arrow reads once for every file that it opens.
    """
    clip = ten_seconds(name)
    data, (entry,) = build(str(tmp_path), name, {"a": clip})
    path = tmp_path / name / "shards" / str(data)
    kind = type(clip[0])
    reader = ParquetShardReader(str(path), kind)
    file = CountingFile(path)
    reader.__dict__["_file"] = pq.ParquetFile(file, page_checksum_verification=True)
    opened = file.bytes_read if name == "pose" else 0
    found = list(reader.records(entry, start, start + 64))
    assert [r.frame for r in found] == list(range(start, start + 64))
    assert 0 < file.bytes_read - opened <= 0.4 * path.stat().st_size
