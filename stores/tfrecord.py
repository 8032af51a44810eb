"""TFRecord shards: one `tf.train.SequenceExample` a clip, with MediaSequence keys; TensorFlow is not needed.

A record is its length (8 bytes, little endian), the masked CRC-32C of the length (4), the message, the masked CRC-32C
of the message (4). The clip index tells where each clip's record begins; a window reads the whole record.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf.message import DecodeError

from stores import files, mediasequence
from stores.formats import DamagedShard, Extent, check_window, writing
from stores.records import Frame, People, Record
from stores.sequence_example import SequenceExample
from stores.summaries import ClipEntry

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _FOOTER.size


def masked_crc(content: bytes) -> int:
    """CRC-32C, masked as TFRecord wants it: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file: BinaryIO, content: bytes) -> int:
    """Appends one record; returns its length in bytes with its frame."""
    length = struct.pack("<Q", len(content))
    file.write(length + _FOOTER.pack(masked_crc(length)))
    file.write(content)
    file.write(_FOOTER.pack(masked_crc(content)))
    return FRAMING_BYTES + len(content)


def unframe(record: bytes) -> bytes:
    """The message of one whole record.

    Raises:
        ValueError: too short, another length than it says, or a checksum that does not fit.
    """
    if len(record) < FRAMING_BYTES:
        raise ValueError(f"a record of {len(record)} bytes")
    length, length_crc = _HEADER.unpack_from(record)
    if masked_crc(record[:8]) != length_crc or length != len(record) - FRAMING_BYTES:
        raise ValueError("a record whose length is wrong")
    content = record[_HEADER.size : -_FOOTER.size]
    if masked_crc(content) != _FOOTER.unpack_from(record, len(record) - _FOOTER.size)[0]:
        raise ValueError("a record whose checksum is wrong")
    return content


class TFRecordShardWriter:
    """Writes one record a clip to a local file; see `formats.ShardWriter`.

    A clip is assembled in memory, unlike in Parquet. The metadata have no place in a TFRecord file; the shard's
    summary holds them.
    """

    def __init__(self, path: str, kind: type, metadata: dict[str, str]) -> None:
        self._kind = kind
        self._file = open(path, "wb")  # noqa: SIM115  closed by `close`
        self._offset_bytes = 0

    def add(self, clip_id: str, records: Iterable[Any], *, width_px: int, height_px: int) -> Extent:
        """Adds one clip.

        Raises:
            ValueError: it needs more than 2 GiB.
        """
        example = SequenceExample()
        mediasequence.put_clip(example, clip_id)
        size_px = {"width_px": width_px, "height_px": height_px}
        if self._kind is People:
            _, rows = mediasequence.put_people(example, records, **size_px)
        elif self._kind is Frame:
            rows = len(mediasequence.put_frames(example, clip_id, records, **size_px))
        else:
            rows = mediasequence.put_flow(example, clip_id, records, **size_px)
        return self._append(rows, example.serialise())

    def copy(self, entry: ClipEntry, source: "TFRecordShardReader") -> Extent:
        """Takes a clip's record over as it is."""
        return self._append(entry.rows, source.content(entry))

    def _append(self, rows: int, content: bytes) -> Extent:
        offset_bytes = self._offset_bytes
        with writing():
            length_bytes = write_record(self._file, content)
        self._offset_bytes += length_bytes
        return Extent(rows, offset_bytes=offset_bytes, length_bytes=length_bytes)

    def close(self) -> None:
        with writing():
            self._file.close()


class TFRecordShardReader:
    """Random access to the clips of one shard file; see `formats.ShardReader`."""

    def __init__(self, uri: str, kind: type) -> None:
        self._uri = uri
        self._kind = kind

    @cached_property
    def _file(self) -> BinaryIO:
        return files.open_read(self._uri)

    def content(self, entry: ClipEntry) -> bytes:
        """The message of a clip; its checksum fits."""
        self._file.seek(entry.offset_bytes)
        try:
            return unframe(self._file.read(entry.length_bytes))
        except ValueError as error:
            raise DamagedShard(self._uri, f"clip {entry.clip_id}: {error}") from error

    def records(self, entry: ClipEntry, start: int, stop: int) -> Iterator[Record]:
        """Records of frames [start, stop), from the clip's whole record."""
        check_window(entry, start, stop)
        example = self._example(entry)
        yield from mediasequence.GET[self._kind](example, start, stop)

    def _example(self, entry: ClipEntry) -> SequenceExample:
        try:
            example = SequenceExample.parse(self.content(entry))
        except DecodeError as error:
            raise DamagedShard(self._uri, f"clip {entry.clip_id}: no SequenceExample") from error
        found = sum(map(example.length, mediasequence.FIRST_KEYS[self._kind]))
        if example.one("example/id") != entry.clip_id or found != entry.frames:
            expected = f"expected {entry.frames} records of clip {entry.clip_id}"
            raise DamagedShard(self._uri, f"{expected}, found {found} of {example.one('example/id')}")
        return example

    def close(self) -> None:
        if "_file" in self.__dict__:
            self._file.close()
