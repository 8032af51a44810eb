"""Parquet shards: a row group never spans two clips and holds the rows of at most 16 consecutive frames.

Row group k of a clip holds frames [16 k, 16 k + 16), so a window touches only the row groups it needs.

Shape legend: P people, K = 17 keypoints.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stores import files
from stores.records import NUM_KEYPOINTS, FlowPair, Frame, People, Record
from stores.summaries import ClipEntry

FRAMES_PER_ROW_GROUP = 16

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


def kind_of(store: str) -> type:
    """The record type of a store, by its name."""
    name = store.split("/", 1)[0]
    kinds: dict[str, type] = {"frames": Frame, "render": Frame, "pose": People, "flow": FlowPair}
    if name not in kinds:
        raise ValueError(f"unknown store {store!r}; known: {', '.join(kinds)}")
    return kinds[name]


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
    """Writes the row groups of one shard to a local file; the same calls give the same bytes."""

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
        )
        self.next_row_group = 0

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def write(self, table: pa.Table) -> None:
        """Adds one row group."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
            self.next_row_group += 1

    def close(self) -> None:
        self._writer.close()


class ParquetShardReader:
    """Random access to the clips of one shard file."""

    def __init__(self, uri: str, kind: type) -> None:
        self._uri = uri
        self._kind = kind

    @cached_property
    def _file(self) -> pq.ParquetFile:
        if files.is_local(self._uri):
            return pq.ParquetFile(files.local_path(self._uri))
        return pq.ParquetFile(files.open_read(self._uri), pre_buffer=False)

    def tables(self, entry: ClipEntry) -> Iterator[pa.Table]:
        """The clip's row groups, as they are."""
        for index in range(entry.first_row_group, entry.first_row_group + entry.row_groups):
            yield self._file.read_row_group(index)

    def records(self, entry: ClipEntry, start: int, stop: int) -> Iterator[Record]:
        """Records of frames [start, stop), row group by row group.

        Raises:
            ValueError: the window is not inside [0, entry.frames).
        """
        if not 0 <= start <= stop <= entry.frames:
            raise ValueError(f"clip {entry.clip_id}: window [{start}, {stop}) outside [0, {entry.frames})")
        if self._kind is People:
            rows = [row for table in self.tables(entry) for row in table.drop_columns("clip_id").to_pylist()]
            yield from _people(rows, start, stop)
            return
        first = entry.first_row_group + start // FRAMES_PER_ROW_GROUP
        last = entry.first_row_group + (stop - 1) // FRAMES_PER_ROW_GROUP
        for index in range(first, last + 1 if stop > start else first):
            table = self._file.read_row_group(index).drop_columns("clip_id")
            for values in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if start <= values[0] < stop:
                    yield self._kind(*values)

    def close(self) -> None:
        if "_file" in self.__dict__:
            self._file.close()
