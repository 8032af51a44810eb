"""Shards across formats: a copy into another format and back loses nothing."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_contract import ANY_RECORDS, SPEC, build, frames, read, same

from stores.records import Record
from stores.shards import FORMATS, ShardBuilder, open_shard
from stores.store import Store
from stores.summaries import Encoding


def converted(folder: str, name: str, clips: dict[str, list[Record]], formats: list[str]) -> tuple:
    """Builds a shard in the first format and copies it on from format to format."""
    data, entries = build(f"{folder}/0", name, clips, formats[0])
    for step, shard_format in enumerate(formats[1:], 1):
        before = open_shard(Store(f"{folder}/{step - 1}", name), str(data))
        with ShardBuilder(
            Store(f"{folder}/{step}", name), 0, "k" * 64, Encoding(shard_format, 1), SPEC
        ) as builder:
            entries = [builder.copy(entry, before) for entry in entries]
            data, _, _ = builder.publish()
    return data, entries


@settings(max_examples=15, deadline=None)
@given(st.data())
@ANY_RECORDS
def test_a_copy_into_another_format_and_back_is_the_same_file(
    name: str, records: st.SearchStrategy, data: st.DataObject
) -> None:
    clips = {clip_id: data.draw(records) for clip_id in ("a", "b")}
    there_and_back = data.draw(st.sampled_from([["parquet", "tfrecord"] * 2, ["tfrecord", "parquet"] * 2]))
    with tempfile.TemporaryDirectory() as folder:
        first = build(f"{folder}/direct", name, clips, there_and_back[-1])
        assert converted(folder, name, clips, there_and_back) == first
        for entry, expected in zip(first[1], clips.values(), strict=True):
            found = read(f"{folder}/3", name, first[0], entry)
            assert all(same(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("shard_format", FORMATS)
def test_the_name_of_a_data_file_tells_its_format(tmp_path: Path, shard_format: str) -> None:
    data, _ = build(str(tmp_path), "frames", {"a": frames(3)}, shard_format)
    assert str(data).endswith(f".{shard_format}")
