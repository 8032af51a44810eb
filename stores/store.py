"""A store on disk: its folder, its summaries and its snapshot."""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from stores import files
from stores.summaries import Encoding, ShardSummary, Snapshot

SNAPSHOT = "snapshot.json"
SHARD_FILE = re.compile(
    r"(?P<stem>(?P<shard>\d{5,})-of-(?P<num_shards>\d{5,})-[0-9a-f]{16})-[0-9a-f]{16}\.(?:(?P<data>parquet|tfrecord)|(?:tfrecord\.)?json)"
)
"""Names of data files and summaries."""
_READ_THREADS = 16
_DIGITS = 16


@dataclass(frozen=True)
class Store:
    """One product of a workspace.

    Attributes:
        workspace: local path or gs:// address.
        name: frames, pose, render/<variant> or flow.
    """

    workspace: str
    name: str

    @property
    def folder(self) -> str:
        return files.join(self.workspace, *self.name.split("/"))

    def shard_uri(self, name: str) -> str:
        return files.join(self.folder, "shards", name)

    def listing(self) -> set[str]:
        """Names of all data files and summaries."""
        return files.list_names(files.join(self.folder, "shards"))

    def snapshot(self) -> Snapshot | None:
        """The committed view; None where nothing is committed, or where what is there is not whole.

        A damaged snapshot is no loss: it is made again from the summaries by the next run.
        """
        uri = files.join(self.folder, SNAPSHOT)
        try:
            return _parsed(uri, files.read_bytes(uri))
        except (FileNotFoundError, ValueError):
            return None

    def require_snapshot(self) -> Snapshot:
        """Raises ValueError saying what to run where there is no snapshot."""
        found = self.snapshot()
        if found is None:
            raise ValueError(
                f"{files.printable(self.folder)} has no committed snapshot; run `perfnet run {self.name.split('/')[0]}`"
            )
        return found

    def put_snapshot(self, snapshot: Snapshot) -> None:
        files.put_bytes(files.join(self.folder, SNAPSHOT), snapshot.to_json())

    def summary(self, name: str) -> ShardSummary | None:
        """The summary of that file name; None where it is missing or not whole."""
        uri = self.shard_uri(name)
        try:
            return ShardSummary.from_json(files.read_bytes(uri), uri)
        except (FileNotFoundError, ValueError):
            return None

    def summaries(self, names: Iterable[str]) -> dict[str, ShardSummary | None]:
        """Many summaries, read side by side."""
        wanted = list(names)
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            return dict(zip(wanted, pool.map(self.summary, wanted), strict=True))

    def put_summary(self, summary: ShardSummary) -> str:
        """Commits one shard; its data file must be in place. Returns the summary's name."""
        name = summary_name(summary)
        files.put_bytes(self.shard_uri(name), summary.to_json())
        return name


_snapshots: dict[str, tuple[bytes, Snapshot]] = {}


def _parsed(uri: str, content: bytes) -> Snapshot:
    """The snapshot in `content`; the last one of each store is kept, since those of large stores take a second."""
    digest = hashlib.sha256(content).digest()
    known = _snapshots.get(uri)
    if known is None or known[0] != digest:
        known = _snapshots[uri] = digest, Snapshot.from_json(content, uri)
    return known[1]


def stem_of(shard: int, key: str, encoding: Encoding) -> str:
    """What the names of a shard's data files and summaries begin with, all that were ever written for that key."""
    return f"{shard:05d}-of-{encoding.num_shards:05d}-{key[:_DIGITS]}"


class Place(NamedTuple):
    """Which shard a file belongs to, and of how many."""

    shard: int
    num_shards: int


def place_of_summary(name: str) -> Place | None:
    """What the name of a summary says; None for the names of other files."""
    found = SHARD_FILE.fullmatch(name)
    if found is None or found["data"] or int(found["num_shards"]) == 0:
        return None
    return Place(int(found["shard"]), int(found["num_shards"]))


def summary_name(summary: ShardSummary) -> str:
    """Names the commit record by what the shard should be and by what it is.

    So a second writer whose shard came out differently (another CPU, a clip that timed out) replaces nothing that
    a snapshot lists. The format is part of the name: the same content in another format is another shard.
    """
    stem = stem_of(summary.shard, summary.key, summary.encoding)
    return f"{stem}-{summary.outcome[:_DIGITS]}{_suffix(summary.encoding)}"


class SummaryNames:
    """The summaries of a listing, found by what their shard should be."""

    def __init__(self, listing: Iterable[str], encoding: Encoding) -> None:
        self._encoding = encoding
        self._by_stem: dict[str, list[str]] = {}
        suffix = _suffix(encoding)
        for name in listing:
            stem, _, rest = name.rpartition("-")
            if rest.endswith(suffix) and len(rest) == _DIGITS + len(suffix):
                self._by_stem.setdefault(stem, []).append(name)

    def of(self, shard: int, key: str) -> list[str]:
        """Names of all summaries of a shard, sorted: usually none or one, more after two writers."""
        return sorted(self._by_stem.get(stem_of(shard, key, self._encoding), ()))


def _suffix(encoding: Encoding) -> str:
    return ".json" if encoding.format == "parquet" else f".{encoding.format}.json"


def data_name(shard: int, key: str, encoding: Encoding, content_sha256: str) -> str:
    """Names the data file by what the shard should be and by what it is."""
    return f"{stem_of(shard, key, encoding)}-{content_sha256[:_DIGITS]}.{encoding.format}"
