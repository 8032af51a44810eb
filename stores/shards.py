"""Builds one shard: clips stream in, one data file and one summary come out, or nothing.

A clip is first spooled to a local temporary file and enters the shard only when it is complete: a clip that is
rejected midway leaves no rows, and memory is bounded by one row group.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pyarrow as pa

from stores import files, keys
from stores.parquet import ParquetShardReader, ParquetShardWriter, kind_of, row_groups
from stores.records import Frame, Record
from stores.store import Store, data_name
from stores.summaries import ClipEntry, Encoding

_WRITERS = {"parquet": ParquetShardWriter}
_READERS = {"parquet": ParquetShardReader}
FORMATS = tuple(_WRITERS)


def open_shard(store: Store, data: str) -> ParquetShardReader:
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
            self._spool_path = os.path.join(folder, "clip.arrow")
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
        """
        counter = _Counter(records)
        with _spool(self._spool_path, self._writer.schema) as spool:
            for table in row_groups(clip_id, counter, self._writer.schema):
                spool.write_table(table)
        assert expected_frames in (None, counter.frames), (
            f"expected {expected_frames} records, found {counter.frames}"
        )
        with pa.OSFile(self._spool_path) as source:  # a mapped file would count as memory of the worker
            reader = pa.ipc.open_file(source)
            tables = (pa.Table.from_batches([reader.get_batch(i)]) for i in range(reader.num_record_batches))
            return self._append(clip_id, key, width_px, height_px, counter.frames, counter.repeated, tables)

    def copy(self, entry: ClipEntry, source: ParquetShardReader) -> ClipEntry:
        """Takes a clip over from another shard, row group by row group."""
        tables = source.tables(entry)
        shape = (entry.width_px, entry.height_px, entry.frames, entry.repeated)
        return self._append(entry.clip_id, entry.key, *shape, tables)

    def _append(
        self,
        clip_id: str,
        key: str,
        width_px: int,
        height_px: int,
        frames: int,
        repeated: int,
        tables: Iterator[pa.Table],
    ) -> ClipEntry:
        first, rows = self._writer.next_row_group, 0
        for table in tables:
            self._writer.write(table.cast(self._writer.schema))
            rows += table.num_rows
        groups = self._writer.next_row_group - first
        entry = ClipEntry(clip_id, key, frames, repeated, rows, width_px, height_px, first, groups)
        self.entries.append(entry)
        return entry

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
    """Counts what passes: records, and frames whose image repeats the one before."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.frames = 0
        self.repeated = 0

    def __iter__(self) -> Iterator[Record]:
        before = b""
        for record in self._records:
            if record.frame != self.frames:
                raise ValueError(f"expected frame {self.frames}, found {record.frame}")
            self.frames += 1
            if isinstance(record, Frame):
                self.repeated += record.image == before
                before = record.image
            yield record


@contextmanager
def _spool(path: str, schema: pa.Schema) -> Iterator[pa.RecordBatchFileWriter]:
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        yield writer
