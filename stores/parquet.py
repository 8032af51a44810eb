"""Parquet shards: a row group never spans two clips and holds the rows of at most 16 consecutive frames.

Row group k of a clip holds frames [16 k, 16 k + 16), so a window touches only the row groups it needs.

Shape legend: P people, K = 17 keypoints.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stores import files
from stores.formats import DamagedShard, Extent, check_window, writing
from stores.records import NUM_KEYPOINTS, FlowPair, Frame, People, Record
from stores.summaries import ClipEntry

FRAMES_PER_ROW_GROUP = 16
_FRAME_COLUMN = 1

_CLIP = [pa.field("clip_id", pa.string(), nullable=False), pa.field("frame", pa.int32(), nullable=False)]
SCHEMAS: dict[type, pa.Schema] = {
    Frame: pa.schema(
        [
            *_CLIP,
            pa.field("time_us", pa.int64(), nullable=False),
            pa.field("image", pa.binary(), nullable=False),
        ]
    ),
    People: pa.schema(
        [
            *_CLIP,
            pa.field("person", pa.int32(), nullable=False),
            pa.field("score", pa.float32(), nullable=False),
            pa.field("box", pa.list_(pa.float32(), 4), nullable=False),
            pa.field("keypoints", pa.list_(pa.float32(), NUM_KEYPOINTS * 3), nullable=False),
        ]
    ),
    FlowPair: pa.schema(
        [
            *_CLIP,
            pa.field("x", pa.binary(), nullable=False),
            pa.field("y", pa.binary(), nullable=False),
        ]
    ),
}


def _columns(clip_id: str, records: list[Any]) -> dict[str, Any]:
    if isinstance(records[0], People):
        return _people_columns(clip_id, records)
    columns: dict[str, Any] = {"clip_id": [clip_id] * len(records), "frame": [r.frame for r in records]}
    names = ("time_us", "image") if isinstance(records[0], Frame) else ("x", "y")
    return columns | {name: [getattr(r, name) for r in records] for name in names}


def _people_columns(clip_id: str, records: list[People]) -> dict[str, Any]:
    people = [len(r.scores_P) for r in records]
    boxes = np.concatenate([r.boxes_P4 for r in records]).astype(np.float32)
    keypoints = np.concatenate([r.keypoints_PK3 for r in records]).astype(np.float32)
    return {
        "clip_id": [clip_id] * sum(people),
        "frame": np.repeat([r.frame for r in records], people).astype(np.int32),
        "person": np.concatenate([np.arange(p, dtype=np.int32) for p in people]),
        "score": np.concatenate([r.scores_P for r in records]).astype(np.float32),
        "box": pa.FixedSizeListArray.from_arrays(boxes.ravel(), 4),
        "keypoints": pa.FixedSizeListArray.from_arrays(keypoints.ravel(), NUM_KEYPOINTS * 3),
    }


def row_groups(clip_id: str, records: Iterable[Record], schema: pa.Schema) -> Iterator[pa.Table]:
    """Cuts a clip's records into the tables that become its row groups, one at a time."""
    for _, group in groupby(records, key=lambda r: r.frame // FRAMES_PER_ROW_GROUP):
        yield pa.table(_columns(clip_id, list(group)), schema=schema)


def _people(rows: list[dict[str, Any]], start: int, stop: int) -> Iterator[People]:
    by_frame: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_frame.setdefault(row["frame"], []).append(row)
    for frame in range(start, stop):
        found = by_frame.get(frame)
        if not found:
            yield People.nobody(frame)
            continue
        yield People(
            frame,
            np.array([r["score"] for r in found], np.float32),
            np.array([r["box"] for r in found], np.float32),
            np.array([r["keypoints"] for r in found], np.float32).reshape(-1, NUM_KEYPOINTS, 3),
        )


class ParquetShardWriter:
    """Writes the row groups of one shard to a local file; see `formats.ShardWriter`.

    Args:
        metadata: kept in the file's own metadata, for people who find the file alone.
    """

    def __init__(self, path: str, kind: type, metadata: Mapping[str, str]) -> None:
        self._schema = SCHEMAS[kind].with_metadata(dict(metadata))
        # Images are compressed already, and statistics of binary columns would copy them into the footer.
        plain = [f.name for f in self._schema if f.type not in (pa.string(), pa.int32(), pa.int64())]
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="none" if kind is not People else "zstd",
            use_dictionary=["clip_id"],
            write_statistics=[f.name for f in self._schema if f.name not in plain],
            write_page_checksum=True,
        )
        self._spool_path = path + ".clip"
        self._next_row_group = 0

    def add(self, clip_id: str, records: Iterable[Record], *, width_px: int, height_px: int) -> Extent:
        """Adds one clip, row group by row group."""
        return self._append(row_groups(clip_id, records, self._schema))

    def copy(self, entry: ClipEntry, source: "ParquetShardReader") -> Extent:
        """Takes a clip over, row group by row group."""
        return self._append(table.cast(self._schema) for table in source.tables(entry))

    def _append(self, tables: Iterable[pa.Table]) -> Extent:
        """Adds the row groups of one clip, or none of them where `tables` raises.

        They are first spooled to a local file, so that memory is bounded by one row group.
        """
        with pa.OSFile(self._spool_path, "wb") as sink, pa.ipc.new_file(sink, self._schema) as spool:
            for table in tables:
                spool.write_table(table)
        first, rows = self._next_row_group, 0
        # A mapped file would count as memory of the worker.
        with writing(), pa.OSFile(self._spool_path) as source:
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(index)])
                self.write(table)
                rows += table.num_rows
        return Extent(rows, first_row_group=first, row_groups=self._next_row_group - first)

    def write(self, table: pa.Table) -> None:
        """Adds one row group."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._next_row_group += 1

    def close(self) -> None:
        with writing():
            self._writer.close()


class ParquetShardReader:
    """Random access to the clips of one shard file; see `formats.ShardReader`."""

    def __init__(self, uri: str, kind: type) -> None:
        self._uri = uri
        self._kind = kind
        self._columns = [name for name in SCHEMAS[kind].names if name != "clip_id"]

    @cached_property
    def _file(self) -> pq.ParquetFile:
        local = files.is_local(self._uri)
        source: Any = files.local_path(self._uri) if local else files.open_read(self._uri)
        with self._damage_named():
            return pq.ParquetFile(source, page_checksum_verification=True)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        """Arrow says what is wrong, but not with which file; errors of the file system say it themselves."""
        try:
            yield
        except pa.ArrowInvalid as error:
            raise DamagedShard(self._uri, error) from error
        except OSError as error:
            if type(error) is OSError and error.errno is None:
                raise DamagedShard(self._uri, error) from error
            raise

    def _read(self, row_group: int, columns: list[str] | None = None) -> pa.Table:
        # One column holds nearly all the bytes, and workers are what runs in parallel: threads only cost.
        with self._damage_named():
            return self._file.read_row_group(row_group, columns=columns, use_threads=False)

    def tables(self, entry: ClipEntry) -> Iterator[pa.Table]:
        """The clip's row groups, as they are."""
        for index in range(entry.first_row_group, entry.first_row_group + entry.row_groups):
            yield self._read(index)

    def records(self, entry: ClipEntry, start: int, stop: int) -> Iterator[Record]:
        """Records of frames [start, stop), from the row groups that hold them."""
        check_window(entry, start, stop)
        if start == stop:
            return
        if self._kind is People:
            tables = [self._read(index, self._columns) for index in self._with_people(entry, start, stop)]
            yield from _people([row for table in tables for row in table.to_pylist()], start, stop)
            return
        first = entry.first_row_group + start // FRAMES_PER_ROW_GROUP
        last = entry.first_row_group + (stop - 1) // FRAMES_PER_ROW_GROUP
        for index in range(first, last + 1):
            table = self._read(index, self._columns)
            for values in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if start <= values[0] < stop:
                    yield self._kind(*values)

    def _with_people(self, entry: ClipEntry, start: int, stop: int) -> Iterator[int]:
        """Row groups with people in [start, stop): sixteen frames without any have no row group at all."""
        with self._damage_named():
            metadata = self._file.metadata
            for index in range(entry.first_row_group, entry.first_row_group + entry.row_groups):
                frames = metadata.row_group(index).column(_FRAME_COLUMN).statistics
                if frames.min < stop and frames.max >= start:
                    yield index

    def close(self) -> None:
        if "_file" in self.__dict__:
            self._file.close()
