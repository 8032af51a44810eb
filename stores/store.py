"""A store on disk: its folder, its summaries and its snapshot."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from stores import files
from stores.summaries import Encoding, ShardSummary, Snapshot

SNAPSHOT = "snapshot.json"
_READ_THREADS = 16


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
            return Snapshot.from_json(files.read_bytes(uri), uri)
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
        name = summary_name(summary.shard, summary.key, summary.encoding)
        files.put_bytes(self.shard_uri(name), summary.to_json())
        return name


def _stem(shard: int, key: str, encoding: Encoding) -> str:
    return f"{shard:05d}-of-{encoding.num_shards:05d}-{key[:16]}"


def summary_name(shard: int, key: str, encoding: Encoding) -> str:
    """Names the commit record by what the shard should be.

    The format is part of it: the same content in another format is another shard.
    """
    suffix = "" if encoding.format == "parquet" else f".{encoding.format}"
    return f"{_stem(shard, key, encoding)}{suffix}.json"


def data_name(shard: int, key: str, encoding: Encoding, content_sha256: str) -> str:
    """Names the data file by what the shard should be and by what it is."""
    return f"{_stem(shard, key, encoding)}-{content_sha256[:16]}.{encoding.format}"
