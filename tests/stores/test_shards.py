"""Shards: what goes in comes out, bytes are the same every time, a clip is in whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stores.parquet import FRAMES_PER_ROW_GROUP
from stores.records import FlowPair, Frame, People, Record
from stores.rejections import ClipRejected
from stores.shards import ShardBuilder, open_shard
from stores.store import Store
from stores.summaries import ClipEntry, Encoding

SPEC = {"stage": "x", "version": 1, "options": {}}


def build(folder: str, name: str, clips: dict[str, list[Record]]) -> tuple[str | None, list[ClipEntry]]:
    store = Store(folder, name)
    with ShardBuilder(store, 0, "k" * 64, Encoding("parquet", 1), SPEC) as builder:
        for clip_id, records in clips.items():
            builder.compute(clip_id, "key " + clip_id, records, width_px=40, height_px=30)
        data, _, _ = builder.publish()
    return data, builder.entries


def read(folder: str, name: str, data: str, entry: ClipEntry, start: int, stop: int) -> list[Record]:
    return list(open_shard(Store(folder, name), data).records(entry, start, stop))


def frames(count: int, tag: str = "") -> list[Record]:
    return [Frame(i, i * 40_000, f"{tag}{i}".encode()) for i in range(count)]


def same(a: Record, b: Record) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)


@st.composite
def people(draw: st.DrawFn) -> list[Record]:
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    values = st.floats(-1e6, 1e6, width=32)
    arrays = [
        [draw(npst.arrays(np.float32, s, elements=values)) for s in ((n,), (n, 4), (n, 17, 3))]
        for n in counts
    ]
    return [People(frame, *found) for frame, found in enumerate(arrays)]


images = st.binary(min_size=1, max_size=20)
frame_lists = st.lists(images, min_size=1, max_size=40).map(
    lambda found: [Frame(i, i * 7, image) for i, image in enumerate(found)]
)
flow_lists = st.lists(st.tuples(images, images), min_size=1, max_size=40).map(
    lambda found: [FlowPair(i, x, y) for i, (x, y) in enumerate(found)]
)


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize(
    ("name", "records"), [("frames", frame_lists), ("pose", people()), ("flow", flow_lists)]
)
def test_records_round_trip(name: str, records: st.SearchStrategy, data: st.DataObject) -> None:
    clips = {clip_id: data.draw(records) for clip_id in ("a", "b/é")}
    with tempfile.TemporaryDirectory() as folder:
        file, entries = build(folder, name, clips)
        for entry, expected in zip(entries, clips.values(), strict=True):
            start = data.draw(st.integers(0, len(expected)))
            stop = data.draw(st.integers(start, len(expected)))
            found = read(folder, name, file or "", entry, start, stop)
            assert len(found) == stop - start
            assert all(same(f, e) for f, e in zip(found, expected[start:stop], strict=True))


def test_row_groups_hold_one_clip_and_at_most_16_frames(tmp_path: Path) -> None:
    data, _ = build(str(tmp_path), "frames", {"a": frames(33), "b": frames(5)})
    file = pq.ParquetFile(tmp_path / "frames" / "shards" / str(data))
    groups = [file.read_row_group(i).to_pydict() for i in range(file.num_row_groups)]
    assert [len(g["frame"]) for g in groups] == [16, 16, 1, 5]
    assert all(len(set(g["clip_id"])) == 1 for g in groups)


def test_a_window_reads_only_its_row_groups(tmp_path: Path) -> None:
    """64 of 250 frames lie in at most five row groups of 16: a third of the clip's bytes."""
    data, (entry,) = build(str(tmp_path), "frames", {"a": frames(250)})
    reader = open_shard(Store(str(tmp_path), "frames"), str(data))
    touched: list[int] = []
    whole = reader._file.read_row_group
    reader._file.read_row_group = lambda i: touched.append(i) or whole(i)  # type: ignore[method-assign]
    assert [r.frame for r in reader.records(entry, 100, 164)] == list(range(100, 164))
    assert len(touched) * FRAMES_PER_ROW_GROUP <= 0.4 * 250


def test_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    clips = {"a": frames(20), "b": frames(3)}
    first, _ = build(str(tmp_path / "1"), "frames", clips)
    second, _ = build(str(tmp_path / "2"), "frames", clips)
    assert first == second  # the name holds the sha256 of the content
    assert first is not None


def test_a_clip_rejected_midway_leaves_no_rows(tmp_path: Path) -> None:
    def breaks() -> Iterator[Record]:
        yield from frames(40)
        raise ClipRejected("damaged", "after 40 frames")

    store = Store(str(tmp_path), "frames")
    with ShardBuilder(store, 0, "k" * 64, Encoding("parquet", 1), SPEC) as builder:
        builder.compute("a", "ka", frames(2), width_px=1, height_px=1)
        with pytest.raises(ClipRejected):
            builder.compute("b", "kb", breaks(), width_px=1, height_px=1)
        builder.compute("c", "kc", frames(3), width_px=1, height_px=1)
        data, _, _ = builder.publish()
    assert [e.clip_id for e in builder.entries] == ["a", "c"]
    assert pq.read_table(tmp_path / "frames" / "shards" / str(data)).num_rows == 5


def test_wrong_number_of_frames_is_refused(tmp_path: Path) -> None:
    with ShardBuilder(Store(str(tmp_path), "flow"), 0, "k" * 64, Encoding(), SPEC) as builder:
        with pytest.raises(AssertionError, match="expected 4 records, found 3"):
            pairs = [FlowPair(i, b"x", b"y") for i in range(3)]
            builder.compute("a", "k", pairs, width_px=1, height_px=1, expected_frames=4)
        assert builder.entries == []


def test_missing_frame_numbers_are_refused(tmp_path: Path) -> None:
    with (
        ShardBuilder(Store(str(tmp_path), "frames"), 0, "k" * 64, Encoding(), SPEC) as builder,
        pytest.raises(ValueError, match="expected frame 1, found 2"),
    ):
        builder.compute("a", "k", [Frame(0, 0, b"x"), Frame(2, 0, b"x")], width_px=1, height_px=1)


def test_repeated_frames_are_counted(tmp_path: Path) -> None:
    records: list[Record] = [
        Frame(i, i, image) for i, image in enumerate([b"a", b"a", b"b", b"b", b"b", b"a"])
    ]
    _, (entry,) = build(str(tmp_path), "frames", {"a": records})
    assert entry.repeated == 3


def test_copied_clips_keep_their_rows(tmp_path: Path) -> None:
    data, entries = build(str(tmp_path), "frames", {"a": frames(20, "a"), "b": frames(18, "b")})
    store = Store(str(tmp_path), "frames")
    with ShardBuilder(store, 1, "n" * 64, Encoding("parquet", 2), SPEC) as builder:
        copied = builder.copy(entries[1], open_shard(store, str(data)))
        new, _, _ = builder.publish()
    assert (copied.first_row_group, copied.row_groups, copied.key) == (0, 2, "key b")
    assert read(str(tmp_path), "frames", str(new), copied, 0, 18) == frames(18, "b")


def test_a_shard_without_clips_has_no_file(tmp_path: Path) -> None:
    assert build(str(tmp_path), "frames", {}) == (None, [])
    assert not os.path.exists(tmp_path / "frames")


def test_a_window_outside_the_clip_is_refused(tmp_path: Path) -> None:
    data, (entry,) = build(str(tmp_path), "frames", {"a": frames(5)})
    with pytest.raises(ValueError, match=r"window \[2, 6\) outside \[0, 5\)"):
        read(str(tmp_path), "frames", str(data), entry, 2, 6)
