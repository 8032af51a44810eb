"""What every shard format must do: one suite, inherited by the tests of each format."""

import contextlib
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stores.formats import DamagedShard, ShardNotWritten
from stores.records import Y_IN_X, FlowPair, Frame, People, Record
from stores.rejections import ClipRejected
from stores.shards import ShardBuilder, open_shard
from stores.store import Store
from stores.summaries import ClipEntry, Encoding

SPEC: dict[str, Any] = {"stage": "x", "version": 1, "options": {}}


def build(
    folder: str, name: str, clips: dict[str, list[Record]], shard_format: str = "parquet"
) -> tuple[str | None, list[ClipEntry]]:
    """Publishes a shard of these clips: the name of its data file and its entries."""
    store = Store(folder, name)
    with ShardBuilder(store, 0, "k" * 64, Encoding(shard_format, 1), SPEC) as builder:
        for clip_id, records in clips.items():
            builder.compute(clip_id, "key " + clip_id, records, width_px=40, height_px=30)
        data, _, _ = builder.publish()
    return data, builder.entries


def read(
    folder: str, name: str, data: str | None, entry: ClipEntry, start: int = 0, stop: int | None = None
) -> list[Record]:
    shard = open_shard(Store(folder, name), str(data))
    return list(shard.records(entry, start, entry.frames if stop is None else stop))


def frames(count: int, tag: str = "") -> list[Record]:
    return [Frame(i, i * 40_000, f"{tag}{i}".encode()) for i in range(count)]


@contextlib.contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file may become larger, for this process and while the block runs: writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def person(frame: int, seed: int = 0) -> People:
    random = np.random.default_rng([frame, seed])
    shapes = ((1,), (1, 4), (1, 17, 3))
    return People(frame, *(random.uniform(0, 40, shape).astype(np.float32) for shape in shapes))


def same(a: Record, b: Record) -> bool:
    """Bit for bit, also the sign of a zero."""
    pairs = [(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__]
    return type(a) is type(b) and all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@st.composite
def people_lists(draw: st.DrawFn) -> list[Record]:
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    values = st.floats(-1e6, 1e6, width=32)
    arrays = [
        [draw(npst.arrays(np.float32, s, elements=values)) for s in ((n,), (n, 4), (n, 17, 3))]
        for n in counts
    ]
    return [People(frame, *found) for frame, found in enumerate(arrays)]


images = st.binary(min_size=1, max_size=20)
frame_lists = st.lists(st.tuples(images, st.integers(0, 2**62)), min_size=1, max_size=40).map(
    lambda found: [Frame(i, time_us, image) for i, (image, time_us) in enumerate(found)]
)
flow_lists = st.lists(st.tuples(images, images | st.just(Y_IN_X)), min_size=1, max_size=40).map(
    lambda found: [FlowPair(i, x, y) for i, (x, y) in enumerate(found)]
)
jpeg3_lists = st.lists(images, min_size=1, max_size=40).map(
    lambda found: [FlowPair(i, x, Y_IN_X) for i, x in enumerate(found)]
)
ANY_RECORDS = pytest.mark.parametrize(
    ("name", "records"),
    [("frames", frame_lists), ("pose", people_lists()), ("flow", flow_lists), ("flow", jpeg3_lists)],
    ids=["frames", "pose", "flow", "flow-jpeg3"],
)


class ShardContract:
    """Inherit and name the format."""

    format: str
    other: str

    def build(
        self, folder: str | Path, name: str, clips: dict[str, list[Record]]
    ) -> tuple[str | None, list[ClipEntry]]:
        return build(str(folder), name, clips, self.format)

    def builder(self, folder: Path, name: str = "frames") -> ShardBuilder:
        return ShardBuilder(Store(str(folder), name), 0, "k" * 64, Encoding(self.format, 1), SPEC)

    @settings(max_examples=20, deadline=None)
    @given(st.data())
    @ANY_RECORDS
    def test_any_window_of_any_records_comes_back(
        self, name: str, records: st.SearchStrategy, data: st.DataObject
    ) -> None:
        clips = {clip_id: data.draw(records) for clip_id in ("a", "b/é")}
        with tempfile.TemporaryDirectory() as folder:
            file, entries = self.build(folder, name, clips)
            for entry, expected in zip(entries, clips.values(), strict=True):
                start = data.draw(st.integers(0, len(expected)))
                stop = data.draw(st.integers(start, len(expected)))
                found = read(folder, name, file, entry, start, stop)
                assert len(found) == stop - start
                assert all(same(f, e) for f, e in zip(found, expected[start:stop], strict=True))

    def test_clips_are_read_in_any_order_from_one_reader(self, tmp_path: Path) -> None:
        clips = {c: frames(18, c) for c in "abc"}
        file, entries = self.build(tmp_path, "frames", clips)
        reader = open_shard(Store(str(tmp_path), "frames"), str(file))
        for entry in [entries[2], entries[0], entries[2], entries[1]]:
            assert list(reader.records(entry, 7, 17)) == clips[entry.clip_id][7:17]
        reader.close()

    def test_frames_without_people_are_records_too(self, tmp_path: Path) -> None:
        some = [People.nobody(i) if i < 40 else person(i) for i in range(60)]
        nobody = [People.nobody(i) for i in range(5)]
        file, entries = self.build(tmp_path, "pose", {"a": some, "nobody": nobody, "z": some[:3]})
        assert [(e.frames, e.rows) for e in entries] == [(60, 20), (5, 0), (3, 0)]
        assert [len(r.scores_P) for r in read(str(tmp_path), "pose", file, entries[0], 38, 42)] == [
            0,
            0,
            1,
            1,
        ]
        assert [len(r.scores_P) for r in read(str(tmp_path), "pose", file, entries[1])] == [0] * 5

    def test_a_clip_without_records_is_held(self, tmp_path: Path) -> None:
        file, (first, empty) = self.build(tmp_path, "flow", {"a": [FlowPair(0, b"x", b"y")], "empty": []})
        assert (first.frames, empty.frames, empty.rows) == (1, 0, 0)
        assert read(str(tmp_path), "flow", file, empty) == []

    def test_same_records_give_the_same_bytes(self, tmp_path: Path) -> None:
        for name, records in {"frames": frames(20), "pose": [person(i) for i in range(20)]}.items():
            first, _ = self.build(tmp_path / "1", name, {"a": records, "b": records[:3]})
            second, _ = self.build(tmp_path / "2", name, {"a": records, "b": records[:3]})
            assert first == second  # the name holds the sha256 of the content
            assert first is not None

    def test_a_clip_rejected_midway_leaves_nothing(self, tmp_path: Path) -> None:
        def breaks() -> Iterator[Record]:
            yield from frames(40)
            raise ClipRejected("damaged", "after 40 frames")

        with self.builder(tmp_path) as builder:
            builder.compute("a", "key a", frames(2), width_px=40, height_px=30)
            with pytest.raises(ClipRejected):
                builder.compute("b", "key b", breaks(), width_px=40, height_px=30)
            builder.compute("c", "key c", frames(3), width_px=40, height_px=30)
            data, _, _ = builder.publish()
        assert (data, builder.entries) == self.build(
            tmp_path / "calm", "frames", {"a": frames(2), "c": frames(3)}
        )

    @pytest.mark.parametrize("room", [10_000, 90_000])
    def test_a_full_disk_loses_the_shard_and_blames_no_clip(self, tmp_path: Path, room: int) -> None:
        """There is room for less than one clip, and for two of three."""
        clip: list[Record] = [Frame(i, i, bytes([i]) * 1000) for i in range(32)]
        with self.builder(tmp_path) as builder, largest_file(room):
            with pytest.raises(ShardNotWritten, match="File too large") as found:
                for clip_id in "abc":
                    builder.compute(clip_id, "k", clip, width_px=40, height_px=30)
                builder.publish()
            assert "set TMPDIR" in str(found.value)
            assert len(builder.entries) == room // 40_000
        assert not (tmp_path / "frames").exists()

    def test_what_reading_raises_is_the_clips_own(self, tmp_path: Path) -> None:
        def breaks() -> Iterator[Record]:
            yield from frames(20)
            raise OSError("the network is away")

        with self.builder(tmp_path) as builder:
            with pytest.raises(OSError, match="the network is away"):
                builder.compute("a", "k", breaks(), width_px=40, height_px=30)
            builder.compute("b", "key b", frames(3), width_px=40, height_px=30)
            data, _, _ = builder.publish()
        assert (data, builder.entries) == self.build(tmp_path / "calm", "frames", {"b": frames(3)})

    def test_a_wrong_number_of_records_leaves_nothing(self, tmp_path: Path) -> None:
        pairs = [FlowPair(i, b"x", b"y") for i in range(3)]
        with self.builder(tmp_path, "flow") as builder:
            with pytest.raises(AssertionError, match="expected 4 records, found 3"):
                builder.compute("a", "key a", pairs, width_px=40, height_px=30, expected_frames=4)
            builder.compute("b", "key b", pairs, width_px=40, height_px=30, expected_frames=3)
            data, _, _ = builder.publish()
        assert (data, builder.entries) == self.build(tmp_path / "calm", "flow", {"b": pairs})

    def test_missing_frame_numbers_are_refused(self, tmp_path: Path) -> None:
        with (
            self.builder(tmp_path) as builder,
            pytest.raises(ValueError, match="expected frame 1, found 2"),
        ):
            builder.compute("a", "k", [Frame(0, 0, b"x"), Frame(2, 0, b"x")], width_px=1, height_px=1)

    def test_repeated_frames_are_counted(self, tmp_path: Path) -> None:
        letters = [b"a", b"a", b"b", b"b", b"b", b"a"]
        _, (entry,) = self.build(tmp_path, "frames", {"a": [Frame(i, i, x) for i, x in enumerate(letters)]})
        assert entry.repeated == 3

    @pytest.mark.parametrize("source", ["the same format", "the other format"])
    @pytest.mark.parametrize("name", ["frames", "pose", "flow"])
    def test_copies_are_as_if_computed(self, tmp_path: Path, name: str, source: str) -> None:
        records: dict[str, list[Record]] = {
            "frames": frames(20),
            "pose": [People.nobody(i) if 3 < i < 37 else person(i) for i in range(40)],
            "flow": [FlowPair(i, b"x%d" % i, b"y") for i in range(20)],
        }
        clips = dict.fromkeys("abc", records[name])
        source_format = self.format if source == "the same format" else self.other
        data, entries = build(str(tmp_path), name, clips, source_format)
        with self.builder(tmp_path / "copy", name) as builder:
            for entry in entries[1:]:
                builder.copy(entry, open_shard(Store(str(tmp_path), name), str(data)))
            copied, _, _ = builder.publish()
        expected = self.build(tmp_path / "computed", name, {c: clips[c] for c in "bc"})
        assert (copied, builder.entries) == expected

    def test_a_copy_from_a_damaged_shard_leaves_nothing(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        clip: list[Record] = [Frame(i, i, random.bytes(1000)) for i in range(40)]
        data, (entry,) = self.build(tmp_path, "frames", {"a": clip})
        path = tmp_path / "frames" / "shards" / str(data)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with self.builder(tmp_path / "copy") as builder:
            with pytest.raises(DamagedShard):
                builder.copy(entry, open_shard(Store(str(tmp_path), "frames"), str(data)))
            builder.compute("b", "key b", frames(3), width_px=40, height_px=30)
            copied, _, _ = builder.publish()
        assert (copied, builder.entries) == self.build(tmp_path / "calm", "frames", {"b": frames(3)})

    def test_a_shard_without_clips_has_no_file(self, tmp_path: Path) -> None:
        assert self.build(tmp_path, "frames", {}) == (None, [])
        assert list(tmp_path.iterdir()) == []

    def test_a_window_outside_the_clip_is_refused(self, tmp_path: Path) -> None:
        data, (entry,) = self.build(tmp_path, "frames", {"a": frames(5)})
        with pytest.raises(ValueError, match=r"window \[2, 6\) outside \[0, 5\)"):
            read(str(tmp_path), "frames", data, entry, 2, 6)

    @pytest.mark.parametrize("how", ["a flipped byte", "truncated", "empty", "another file"])
    def test_damage_is_noticed_and_the_file_is_named(self, tmp_path: Path, how: str) -> None:
        images = np.random.default_rng(0).bytes(40_000)
        clip: list[Record] = [Frame(i, i, images[1000 * i : 1000 * (i + 1)]) for i in range(40)]
        data, (entry,) = self.build(tmp_path, "frames", {"a": clip})
        path = tmp_path / "frames" / "shards" / str(data)
        content = bytearray(path.read_bytes())
        if how == "a flipped byte":
            content[len(content) // 2] ^= 1
        path.write_bytes(
            {"truncated": content[: len(content) // 2], "empty": b"", "another file": b"{}" * 30_000}.get(
                how, content
            )
        )
        with pytest.raises(DamagedShard, match=f"{data} is damaged .*run `perfnet verify`"):
            read(str(tmp_path), "frames", data, entry)

    def test_a_missing_file_is_an_error_of_the_file_system(self, tmp_path: Path) -> None:
        data, (entry,) = self.build(tmp_path, "frames", {"a": frames(5)})
        (tmp_path / "frames" / "shards" / str(data)).unlink()
        with pytest.raises(FileNotFoundError, match=str(data)):
            read(str(tmp_path), "frames", data, entry)
