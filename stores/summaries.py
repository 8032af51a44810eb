"""The summary commits one shard; the snapshot is the view of a whole store that readers see."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib import metadata
from typing import Any

from stores import keys
from stores.rejections import Rejection

PACKAGES = (
    *("perfnet", "numpy", "pyarrow", "av", "simplejpeg", "opencv-contrib-python"),
    *("mediapipe", "tensorflow", "numba", "torch"),
)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a store's bytes look like, those installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class ClipEntry:
    """One clip of a shard: where its rows are and what they are.

    Attributes:
        frames: number of records: frames, or pairs in the flow store.
        repeated: frames whose image is the same as the one before.
        rows: rows in the file (people, in the pose store).
        first_row_group, row_groups: in Parquet, the clip's row groups are [first, first + row_groups).
        milliseconds: what computing it took, when it was computed; copies keep it.
        offset_bytes, length_bytes: in TFRecord, the clip's record is the bytes [offset, offset + length).
    """

    clip_id: str
    key: str
    frames: int
    repeated: int
    rows: int
    width_px: int
    height_px: int
    first_row_group: int = 0
    row_groups: int = 0
    offset_bytes: int = 0
    length_bytes: int = 0
    milliseconds: int = 0


@dataclass(frozen=True)
class Source:
    """Rows of one clip in a committed data file."""

    data: str
    entry: ClipEntry


@dataclass(frozen=True)
class Encoding:
    """How the content is laid out; in file names, in no key."""

    format: str = "parquet"
    num_shards: int = 1


@dataclass(frozen=True)
class ShardSummary:
    """The commit record of one shard.

    Attributes:
        data: name of the data file in the same folder, None where the shard holds no clip.
        sha256, size_bytes: of the data file.
        computed, copied: clips worked on by this commit (also those it rejected), and clips taken over from
            earlier shards.
        milliseconds: time spent on the computed clips, also on those that were rejected.
    """

    store: str
    shard: int
    key: str
    encoding: Encoding
    spec: Mapping[str, Any]
    data: str | None
    sha256: str | None
    size_bytes: int
    clips: tuple[ClipEntry, ...]
    rejected: tuple[Rejection, ...]
    computed: int
    copied: int
    milliseconds: int
    versions: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def held(self) -> str:
        return keys.held_digest((c.clip_id, c.key) for c in self.clips)

    @cached_property
    def outcome(self) -> str:
        """Digest of what the shard is: its data, and which clips were rejected for what."""
        return keys.digest([self.sha256, [[r.clip_id, r.key, r.reason] for r in self.rejected]])

    def to_json(self) -> bytes:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values, default=vars, sort_keys=True, ensure_ascii=False, indent=0).encode()

    @classmethod
    def from_json(cls, content: bytes, name: str) -> "ShardSummary":
        """Raises ValueError naming the file when it is not a whole summary."""
        try:
            values = json.loads(content)
            values["encoding"] = Encoding(**values["encoding"])
            values["clips"] = tuple(ClipEntry(**c) for c in values["clips"])
            values["rejected"] = tuple(Rejection(**r) for r in values["rejected"])
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name}: not a whole shard summary ({error})") from error


@dataclass(frozen=True)
class ShardReference:
    """One shard as the snapshot lists it.

    Attributes:
        milliseconds: what computing its clips took, whenever that was.
    """

    shard: int
    key: str
    summary: str
    data: str | None
    sha256: str | None
    size_bytes: int
    clips: int
    frames: int
    repeated: int
    rejected_data: int
    rejected_transient: int
    held: str
    milliseconds: int

    @property
    def rejected(self) -> int:
        return self.rejected_data + self.rejected_transient

    @property
    def preference(self) -> tuple[int, int, str]:
        """Smaller is better, where two writers made the same shard; the same choice for everybody who looks."""
        return self.rejected_transient, self.rejected_data, self.summary

    @classmethod
    def of(cls, summary: ShardSummary, name: str) -> "ShardReference":
        transient = sum(r.cause == "transient" for r in summary.rejected)
        return cls(
            shard=summary.shard,
            key=summary.key,
            summary=name,
            data=summary.data,
            sha256=summary.sha256,
            size_bytes=summary.size_bytes,
            clips=len(summary.clips),
            frames=sum(c.frames for c in summary.clips),
            repeated=sum(c.repeated for c in summary.clips),
            rejected_data=len(summary.rejected) - transient,
            rejected_transient=transient,
            held=summary.held,
            milliseconds=sum(c.milliseconds for c in summary.clips),
        )


@dataclass(frozen=True)
class Snapshot:
    """The committed view of a store: a function of the clips table, the spec and the summaries."""

    store: str
    spec: Mapping[str, Any]
    encoding: Encoding
    shards: tuple[ShardReference, ...]

    @cached_property
    def totals(self) -> dict[str, int]:
        names = ("clips", "frames", "repeated", "rejected_data", "rejected_transient", "size_bytes")
        return {name: sum(getattr(s, name) for s in self.shards) for name in names}

    @property
    def rejected(self) -> int:
        return self.totals["rejected_data"] + self.totals["rejected_transient"]

    @cached_property
    def key(self) -> str:
        """Identifies the content: spec and what every shard holds."""
        return keys.digest([self.spec, [s.held for s in self.shards]])

    def to_json(self) -> bytes:
        values = {
            "store": self.store,
            "spec": dict(self.spec),
            "encoding": asdict(self.encoding),
            "totals": self.totals,
            "shards": [vars(s) for s in self.shards],
        }
        return json.dumps(values, sort_keys=True, ensure_ascii=False, indent=0).encode()

    @classmethod
    def from_json(cls, content: bytes, name: str) -> "Snapshot":
        """Raises ValueError naming the file when it is not a whole snapshot."""
        try:
            values = json.loads(content)
            shards = tuple(ShardReference(**s) for s in values["shards"])
            return cls(values["store"], values["spec"], Encoding(**values["encoding"]), shards)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{name}: not a whole snapshot ({error})") from error
