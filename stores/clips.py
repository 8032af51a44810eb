"""The clips table: what exists. Labels and splits live here and nowhere else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from stores import files

FILE = "clips.parquet"
SPLITS = ("train", "val", "test", "")
MAX_CLIP_ID_CHARACTERS = 1024
_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("uri", pa.string()),
        ("start_s", pa.float64()),
        ("stop_s", pa.float64()),
        ("label", pa.string()),
        ("group", pa.string()),
    ]
)


def is_split_column(name: str) -> bool:
    return name == "split" or name.startswith("split_")


@dataclass(frozen=True)
class ClipsTable:
    """Columns of equal length, sorted by clip_id.

    Attributes:
        clip_ids: unique names.
        uris: local paths or gs:// addresses.
        starts_s, stops_s: segment [start, stop) in seconds; stop None means until the end.
        labels: class names.
        groups: clips that must not be separated by a split ("" = no group known).
        splits: for each split column, train, val, test or "" (unused) for each clip.

    Raises:
        ValueError: naming the clip and the column, for duplicates, control characters, bad segments and splits.
    """

    clip_ids: Sequence[str]
    uris: Sequence[str]
    starts_s: Sequence[float]
    stops_s: Sequence[float | None]
    labels: Sequence[str]
    groups: Sequence[str]
    splits: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        columns = [self.uris, self.starts_s, self.stops_s, self.labels, self.groups, *self.splits.values()]
        if any(len(c) != len(self.clip_ids) for c in columns):
            raise ValueError("the columns of the clips table have different lengths")
        if not self.clip_ids:
            raise ValueError("the clips table is empty")
        for clip_id in self.clip_ids:
            _check_text("clip_id", clip_id, clip_id)
        first_of = dict(zip(reversed(self.labels), reversed(self.clip_ids), strict=True))
        for label, clip_id in first_of.items():
            _check_text("label", label, clip_id)
        for uri in set(self.uris):
            files.check_uri(uri)
        for clip_id, start, stop in zip(self.clip_ids, self.starts_s, self.stops_s, strict=True):
            _check_segment(clip_id, start, stop)
        _check_sorted(self.clip_ids)
        for name, column in self.splits.items():
            _check_split(name, column, self.clip_ids)

    def __len__(self) -> int:
        return len(self.clip_ids)

    @cached_property
    def labels_sorted(self) -> list[str]:
        """The label map: index i is class i."""
        return sorted(set(self.labels))

    @cached_property
    def label_of(self) -> dict[str, str]:
        return dict(zip(self.clip_ids, self.labels, strict=True))

    def split(self, column: str) -> dict[str, str]:
        """clip_id → train, val, test or "".

        Raises:
            ValueError: there is no such column.
        """
        if column not in self.splits:
            known = ", ".join(self.splits) or "none; perfnet clips makes one"
            raise ValueError(f"data.split: the clips table has no column {column!r}; split columns: {known}")
        return dict(zip(self.clip_ids, self.splits[column], strict=True))


def _check_text(column: str, text: str, clip_id: str) -> None:
    if text and len(text) <= MAX_CLIP_ID_CHARACTERS and text.isprintable():
        return
    shown = files.printable(clip_id)[:200]
    if not text or len(text) > MAX_CLIP_ID_CHARACTERS:
        raise ValueError(f"clip '{shown}': {column} must have 1 to {MAX_CLIP_ID_CHARACTERS} characters")
    found = files.printable(text)[:200]
    raise ValueError(
        f"clip '{shown}': {column} holds a control or unprintable character ('{found}'); rename it"
    )


def _check_segment(clip_id: str, start: float, stop: float | None) -> None:
    bad_start = not math.isfinite(start) or start < 0
    if bad_start or (stop is not None and (not math.isfinite(stop) or stop <= start)):
        raise ValueError(f"clip {clip_id!r}: segment [{start}, {stop}) is not 0 <= start_s < stop_s")


def _check_sorted(clip_ids: Sequence[str]) -> None:
    for before, after in pairwise(clip_ids):
        if before == after:
            raise ValueError(f"duplicate clip_id {after!r}; each clip needs its own name")
        if before > after:
            raise ValueError(f"clips must be sorted by clip_id; {after!r} comes after {before!r}")


def _check_split(name: str, column: Sequence[str], clip_ids: Sequence[str]) -> None:
    if not is_split_column(name):
        raise ValueError(f"split column {name!r}: the name must be split or start with split_")
    for clip_id, split in zip(clip_ids, column, strict=True):
        if split not in SPLITS:
            raise ValueError(f"clip {clip_id!r}: {name} is {split!r}; expected train, val, test or nothing")


def make_clips(rows: Sequence[Mapping[str, object]]) -> ClipsTable:
    """A clips table from rows with clip_id, uri, label and optionally start_s, stop_s, group, split columns.

    Raises:
        ValueError: as ClipsTable does; duplicates are named.
    """
    ordered = sorted(rows, key=lambda r: str(r["clip_id"]))
    split_names = sorted({name for row in rows for name in row if is_split_column(name)})

    def column(name: str, default: object) -> list:
        return [row.get(name, default) for row in ordered]

    return ClipsTable(
        clip_ids=column("clip_id", ""),
        uris=column("uri", ""),
        starts_s=column("start_s", 0.0),
        stops_s=column("stop_s", None),
        labels=column("label", ""),
        groups=column("group", ""),
        splits={name: column(name, "") for name in split_names},
    )


def write_clips(workspace: str, clips: ClipsTable) -> None:
    """Writes `clips.parquet` whole."""
    arrays = [clips.clip_ids, clips.uris, clips.starts_s, clips.stops_s, clips.labels, clips.groups]
    table = pa.table([pa.array(a, f.type) for a, f in zip(arrays, _SCHEMA, strict=True)], schema=_SCHEMA)
    for name, column in clips.splits.items():
        table = table.append_column(name, pa.array(column, pa.string()))
    with files.staged(files.join(workspace, FILE)) as path:
        pq.write_table(table, path)


def _shared(column: list) -> list:
    """The column with one object for each distinct value: labels and splits of large collections repeat."""
    values: dict = {}
    return [values.setdefault(value, value) for value in column]


def read_clips(workspace: str) -> ClipsTable:
    """Reads `clips.parquet`.

    Raises:
        ValueError: there is none, or it is not a clips table; says what to do.
    """
    uri = files.join(workspace, FILE)
    if not files.exists(uri):
        raise ValueError(
            f"{files.printable(uri)} does not exist; make it with `perfnet clips folder` or `perfnet clips csv`"
        )
    try:
        with files.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            table = parquet.read()  # pq.read_table would load pandas
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{uri} is not a Parquet file ({error}); make it again with `perfnet clips`"
        ) from error
    missing = [name for name in _SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{uri} has no column {', '.join(missing)}; make it again with `perfnet clips`")
    columns = {name: _shared(table[name].to_pylist()) for name in table.column_names}
    return ClipsTable(
        clip_ids=columns["clip_id"],
        uris=columns["uri"],
        starts_s=columns["start_s"],
        stops_s=columns["stop_s"],
        labels=columns["label"],
        groups=columns["group"],
        splits={name: column for name, column in columns.items() if is_split_column(name)},
    )
