"""Reads a committed store: every clip by name, any window of it."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from stores.checks import Damaged
from stores.records import Record
from stores.shards import open_shard
from stores.store import Store
from stores.summaries import ClipEntry, Snapshot

_OPEN_SHARDS = 64


class StoreReader:
    """The clips of one store as its snapshot lists them.

    Picklable; shard files are opened on first use, in the process that uses them.

    Raises:
        ValueError: the store has no snapshot, or a shard of it has lost its summary.
    """

    def __init__(self, workspace: str, store: str) -> None:
        self.store = Store(workspace, store)
        self.snapshot: Snapshot = self.store.require_snapshot()
        self._open: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.snapshot.spec)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the stage that made the store."""
        return dict(self.snapshot.spec["options"])

    @property
    def data_files(self) -> list[str]:
        """Names of the data files that the snapshot lists."""
        return [s.data for s in self.snapshot.shards if s.data]

    @property
    def pins(self) -> dict[str, list[str]]:
        """Store → data files that somebody who reads needs to stay."""
        return {self.store.name: self.data_files}

    @cached_property
    def _entries(self) -> dict[str, tuple[str, ClipEntry]]:
        found = self.store.summaries(s.summary for s in self.snapshot.shards)
        entries: dict[str, tuple[str, ClipEntry]] = {}
        for name, summary in found.items():
            if summary is None:
                raise Damaged(
                    f"{self.store.shard_uri(name)} is missing or damaged; run `perfnet verify --remove_damaged`, "
                    "then `perfnet run`"
                )
            entries |= {c.clip_id: (summary.data or "", c) for c in summary.clips}
        return dict(sorted(entries.items()))

    @cached_property
    def clips(self) -> dict[str, ClipEntry]:
        """The clips that the store holds, by clip_id, sorted."""
        return {clip_id: entry for clip_id, (_, entry) in self._entries.items()}

    def window(self, clip_id: str, start: int, stop: int) -> list[Record]:
        """Records of frames [start, stop) of a clip.

        Raises:
            ValueError: the store does not hold the clip, or the window is not inside it.
        """
        return list(self.records(clip_id, start, stop))

    def records(self, clip_id: str, start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """The same, streamed; `stop` None means to the end."""
        if clip_id not in self._entries:
            raise ValueError(
                f"store {self.store.name} does not hold clip {clip_id!r}; see `perfnet status --rejected`"
            )
        data, entry = self._entries[clip_id]
        return self._shard(data).records(entry, start, entry.frames if stop is None else stop)

    def _shard(self, data: str) -> Any:
        if data not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                self._open.pop(next(iter(self._open))).close()
            self._open[data] = open_shard(self.store, data)
        return self._open[data]
