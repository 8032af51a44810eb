"""Verifies a store: checksum, counts, schema and clip index of every shard against its summary and the snapshot."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from stores import files
from stores.identities import Identity, identify, read_identities, write_identities
from stores.parquet import SCHEMAS
from stores.records import People, Record, kind_of
from stores.shards import open_shard
from stores.store import SNAPSHOT, Store
from stores.summaries import ClipEntry, ShardReference, ShardSummary, Snapshot

_THREADS = 2
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """What is wrong with one file of a store.

    Attributes:
        name: the file, in the store's folder.
        problem: what was found, in words.
        summary: the summary that vouches for it; the shard is computed again once that is gone. None for the snapshot.
    """

    store: str
    name: str
    problem: str
    summary: str | None = None


class _Wrong(Exception):
    """A file is not what the summary or the snapshot says."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem


def verify_store(store: Store, progress: Progress = lambda done, total: None) -> list[Damage]:
    """Reads every shard that the snapshot lists, and says what is damaged.

    Args:
        progress: called with the shards done and all shards.

    Raises:
        ValueError: the store does not exist.
    """
    snapshot = store.snapshot()
    if snapshot is None:
        if files.exists(files.join(store.folder, SNAPSHOT)):
            return [Damage(store.name, SNAPSHOT, "is no whole snapshot")]
        store.require_snapshot()
    assert snapshot is not None
    found: list[Damage] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = pool.map(lambda shard: _check_shard(store, snapshot, shard), snapshot.shards)
        for done, damage in enumerate(checked, 1):
            found += [damage] if damage else []
            progress(done, len(snapshot.shards))
    return found


def remove_damaged(workspace: str, damages: Iterable[Damage]) -> None:
    """Removes the summaries of damaged shards, and a damaged snapshot: the next run makes again just these."""
    for damage in damages:
        store = Store(workspace, damage.store)
        files.remove(
            store.shard_uri(damage.summary) if damage.summary else files.join(store.folder, SNAPSHOT)
        )


def _check_shard(store: Store, snapshot: Snapshot, shard: ShardReference) -> Damage | None:
    try:
        summary = _checked_summary(store, snapshot, shard)
        if summary.data is not None:
            _check_data(store, summary)
    except _Wrong as wrong:
        return Damage(store.name, f"shards/{wrong.name}", wrong.problem, shard.summary)
    return None


def _checked_summary(store: Store, snapshot: Snapshot, shard: ShardReference) -> ShardSummary:
    summary = store.summary(shard.summary)
    if summary is None:
        missing = shard.summary not in store.listing()
        raise _Wrong(shard.summary, "is missing" if missing else "is no whole summary")
    found = ShardReference.of(summary, shard.summary)
    for name in (f.name for f in fields(ShardReference) if f.name != "milliseconds"):
        if getattr(found, name) != getattr(shard, name):
            raise _Wrong(
                shard.summary, f"says {name} {getattr(found, name)}, {SNAPSHOT} {getattr(shard, name)}"
            )
    if summary.spec != snapshot.spec or summary.encoding != snapshot.encoding:
        raise _Wrong(shard.summary, f"has another spec or encoding than {SNAPSHOT}")
    twice = [c for c, times in Counter(e.clip_id for e in summary.clips).items() if times > 1]
    if twice:
        raise _Wrong(shard.summary, f"lists clip {files.quoted(twice[0])} twice")
    return summary


def _check_data(store: Store, summary: ShardSummary) -> None:
    """Raises _Wrong unless the data file is what the summary says."""
    name = str(summary.data)
    uri = store.shard_uri(name)
    try:
        size_bytes, sha256 = files.status(uri).size_bytes, files.digest(uri).hexdigest()
    except FileNotFoundError:
        raise _Wrong(name, "is missing") from None
    except OSError as error:
        raise _Wrong(name, f"cannot be read: {files.printable(str(error))}") from error
    if size_bytes != summary.size_bytes:
        raise _Wrong(name, f"has {size_bytes} bytes, expected {summary.size_bytes}")
    if sha256 != summary.sha256:
        raise _Wrong(name, f"has sha256 {sha256[:16]}…, expected {str(summary.sha256)[:16]}…")
    try:
        if summary.encoding.format == "parquet":
            _check_parquet(uri, name, store, summary)
        _check_records(store, name, summary)
    except (ValueError, OSError, pa.ArrowException) as error:
        raise _Wrong(name, f"cannot be read: {files.printable(str(error))}") from error


def _check_parquet(uri: str, name: str, store: Store, summary: ShardSummary) -> None:
    """Schema, key, and that each clip's row groups hold that clip and no other."""
    with files.open_read(uri) as source, pq.ParquetFile(source) as file:
        if not file.schema_arrow.remove_metadata().equals(SCHEMAS[kind_of(store.name)]):
            raise _Wrong(name, f"has another schema than store {store.name}")
        key = (file.schema_arrow.metadata or {}).get(b"perfnet.key", b"").decode("ascii", "replace")
        if key != summary.key:
            raise _Wrong(name, f"was made for key {files.printable(key)[:16]}…, expected {summary.key[:16]}…")
        _check_row_groups(name, summary.clips, file.num_row_groups)
        for entry in summary.clips:
            groups = list(range(entry.first_row_group, entry.first_row_group + entry.row_groups))
            clip_ids = file.read_row_groups(groups, columns=["clip_id"])["clip_id"] if groups else []
            if len(clip_ids) != entry.rows or any(c.as_py() != entry.clip_id for c in clip_ids):
                raise _Wrong(name, f"does not hold {entry.rows} rows of clip {files.quoted(entry.clip_id)}")


def _check_row_groups(name: str, clips: Iterable[ClipEntry], row_groups: int) -> None:
    spans = sorted((c.first_row_group, c.first_row_group + c.row_groups) for c in clips if c.row_groups)
    edges = [(0, 0), *spans, (row_groups, row_groups)]
    if any(before[1] != after[0] for before, after in pairwise(edges)):
        raise _Wrong(name, f"has {row_groups} row groups, and the clip index does not name each once")


def _check_records(store: Store, name: str, summary: ShardSummary) -> None:
    """Every record of every clip can be read, in order, as many as the clip index says."""
    reader = open_shard(store, name)
    try:
        for entry in summary.clips:
            frames, rows = _count(reader.records(entry, 0, entry.frames))
            if (frames, rows) != (entry.frames, entry.rows):
                raise _Wrong(
                    name,
                    f"holds {frames} records and {rows} rows of clip {files.quoted(entry.clip_id)}, "
                    f"expected {entry.frames} and {entry.rows}",
                )
    finally:
        reader.close()


def _count(records: Iterator[Record]) -> tuple[int, int]:
    """Records that follow each other from 0, and their rows."""
    frames = rows = 0
    for record in records:
        if record.frame != frames:
            return frames, rows
        frames += 1
        rows += len(record.scores_P) if isinstance(record, People) else 1
    return frames, rows


def verify_videos(
    workspace: str, uris: Iterable[str], progress: Progress = lambda done, total: None
) -> tuple[list[Identity], list[str]]:
    """Reads every video again: those whose content is not what was known, which is known from now on; and those that
    a failing disk or network kept from being read, which stay what they were known as.

    Also of a video that was replaced with size and time restored; the next run computes its clips. Of objects whose
    store keeps an md5, that is read.
    """
    wanted, known = sorted(set(uris)), read_identities(workspace)
    changed: list[Identity] = []
    unread: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = pool.map(lambda uri: identify(uri, known.get(uri), again=True), wanted)
        for done, found in enumerate(looked, 1):
            before = known.get(found.uri)
            unread += [found.uri] if found is before else []
            changed += [found] if before and before.digest != found.digest else []
            known[found.uri] = found
            progress(done, len(wanted))
    write_identities(workspace, known)
    return changed, unread
