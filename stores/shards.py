"""Builds one shard: clips stream in, one data file and one summary come out, or nothing.

A clip enters the shard only when it is complete: one that is rejected midway leaves no rows. Memory is bounded by a
row group in Parquet, and by the encoded clip in TFRecord, where a clip is one record.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from stores import files, keys
from stores.formats import ShardNotWritten, ShardReader, ShardWriter
from stores.parquet import ParquetShardReader, ParquetShardWriter
from stores.records import Frame, Record, kind_of
from stores.store import Store, data_name
from stores.summaries import ClipEntry, Encoding
from stores.tfrecord import TFRecordShardReader, TFRecordShardWriter

_WRITERS: dict[str, type[ShardWriter]] = {"parquet": ParquetShardWriter, "tfrecord": TFRecordShardWriter}
_READERS: dict[str, type[ShardReader]] = {"parquet": ParquetShardReader, "tfrecord": TFRecordShardReader}
FORMATS = tuple(_WRITERS)


def open_shard(store: Store, data: str) -> ShardReader:
    """A reader of a store's data file, by the format in its name."""
    return _READERS[data.rsplit(".", 1)[-1]](store.shard_uri(data), kind_of(store.name))


class ShardBuilder:
    """Collects the clips of one shard; `publish` puts the data file in place.

    Use as a context manager: leaving it without `publish` leaves nothing behind.
    """

    def __init__(
        self, store: Store, shard: int, key: str, encoding: Encoding, spec: Mapping[str, Any]
    ) -> None:
        self._store, self._shard, self._key, self._encoding = store, shard, key, encoding
        self._metadata = {
            "perfnet.store": store.name,
            "perfnet.key": key,
            "perfnet.spec": keys.canonical_json(spec),
        }
        self._kind = kind_of(store.name)
        self.entries: list[ClipEntry] = []

    def __enter__(self) -> "ShardBuilder":
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="perfnet-shard-"))
            self._path = os.path.join(folder, "shard")
            self._writer = _WRITERS[self._encoding.format](self._path, self._kind, self._metadata)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def compute(
        self,
        clip_id: str,
        key: str,
        records: Iterable[Record],
        *,
        width_px: int,
        height_px: int,
        expected_frames: int | None = None,
    ) -> ClipEntry:
        """Adds a clip from records as they are computed.

        Args:
            expected_frames: how many records there must be; None accepts any number.

        Raises:
            ClipRejected, or whatever `records` raises: the shard is as before.
            ShardNotWritten: the shard is lost, whatever clip comes next.
        """
        counter = _Counter(records, expected_frames)
        try:
            extent = self._writer.add(clip_id, counter, width_px=width_px, height_px=height_px)
        except OSError as error:
            if error is counter.raised:
                raise
            raise ShardNotWritten(error) from error
        shape = {"width_px": width_px, "height_px": height_px}
        entry = ClipEntry(clip_id, key, counter.frames, counter.repeated, **shape, **extent._asdict())
        self.entries.append(entry)
        return entry

    def copy(self, entry: ClipEntry, source: ShardReader) -> ClipEntry:
        """Takes a clip over from another shard: as it is, or record by record from one of another format."""
        if isinstance(source, _READERS[self._encoding.format]):
            extent = self._writer.copy(entry, source)
        else:
            records = source.records(entry, 0, entry.frames)
            shape = {"width_px": entry.width_px, "height_px": entry.height_px}
            extent = self._writer.add(entry.clip_id, records, **shape)
        copied = replace(entry, **extent._asdict())
        self.entries.append(copied)
        return copied

    def publish(self) -> tuple[str | None, str | None, int]:
        """Puts the data file in place: its name, sha256 and size; (None, None, 0) for a shard without clips."""
        self._writer.close()
        if not self.entries:
            return None, None, 0
        content = files.digest(self._path).hexdigest()
        name = data_name(self._shard, self._key, self._encoding, content)
        files.put_file(self._path, self._store.shard_uri(name))
        return name, content, os.path.getsize(self._path)


class _Counter:
    """Counts what passes: records, and frames whose image repeats the one before.

    Attributes:
        raised: what the records themselves raised, and not who writes them.
    """

    def __init__(self, records: Iterable[Record], expected_frames: int | None) -> None:
        self._records, self._expected_frames = records, expected_frames
        self.frames = 0
        self.repeated = 0
        self.raised: Exception | None = None

    def __iter__(self) -> Iterator[Record]:
        before = b""
        for record in self._guarded():
            if record.frame != self.frames:
                raise ValueError(f"expected frame {self.frames}, found {record.frame}")
            self.frames += 1
            if isinstance(record, Frame):
                self.repeated += record.image == before
                before = record.image
            yield record
        expected = self._expected_frames
        assert expected in (None, self.frames), f"expected {expected} records, found {self.frames}"

    def _guarded(self) -> Iterator[Record]:
        try:
            yield from self._records
        except Exception as error:
            self.raised = error
            raise
