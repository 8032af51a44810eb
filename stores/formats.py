"""What every shard format offers: a writer that adds clips whole, and a reader that gives windows of them."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from stores import files
from stores.checks import Damaged
from stores.records import Record
from stores.summaries import ClipEntry


class Extent(NamedTuple):
    """Where a clip lies in its data file; fields as in `ClipEntry`."""

    rows: int
    first_row_group: int = 0
    row_groups: int = 0
    offset_bytes: int = 0
    length_bytes: int = 0


class ShardWriter(Protocol):
    """Writes the clips of one shard to a local file; the same calls give the same bytes."""

    def __init__(self, path: str, kind: type, metadata: dict[str, str]) -> None: ...

    def add(self, clip_id: str, records: Iterable[Record], *, width_px: int, height_px: int) -> Extent:
        """Adds one clip; where `records` raises, the file is as before."""

    def copy(self, entry: ClipEntry, source: Any) -> Extent:
        """Takes a clip over from a reader of the same format, without taking its records apart."""

    def close(self) -> None: ...


class ShardReader(Protocol):
    """Random access to the clips of one data file, which is opened on first use."""

    def __init__(self, uri: str, kind: type) -> None: ...

    def records(self, entry: ClipEntry, start: int, stop: int) -> Iterator[Record]:
        """Records of frames [start, stop).

        Raises:
            ValueError: the window is not inside [0, entry.frames).
            DamagedShard: the file is not what was written.
        """

    def close(self) -> None: ...


class DamagedShard(Damaged):
    """A data file is not what was written; the message names it."""

    def __init__(self, uri: str, found: object) -> None:
        text = files.printable(" ".join(str(found).split()))
        super().__init__(f"{files.printable(uri)} is damaged ({text}); run `perfnet verify`")


class ShardNotWritten(Exception):
    """The file of a new shard could not be written; half a clip may be in it, and it must not be published."""

    def __init__(self, found: object) -> None:
        text = files.printable(" ".join(str(found).split()) or type(found).__name__)
        super().__init__(
            f"a new shard could not be written to {tempfile.gettempdir()} ({text}); make room there or set TMPDIR"
        )


@contextmanager
def writing() -> Iterator[None]:
    """For what is written of a clip that is there whole: whatever fails now leaves a broken file."""
    try:
        yield
    except Exception as error:
        raise ShardNotWritten(error) from error


def check_window(entry: ClipEntry, start: int, stop: int) -> None:
    """Raises ValueError unless [start, stop) is inside the clip."""
    if not 0 <= start <= stop <= entry.frames:
        clip = files.printable(entry.clip_id)
        raise ValueError(f"clip {clip}: window [{start}, {stop}) outside [0, {entry.frames})")
