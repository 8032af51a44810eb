"""Brings one shard up to date: copies, keeps rejections, computes. Knows no Beam."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stores.formats import DamagedShard, ShardNotWritten
from stores.plan import ShardTask, TaskClip
from stores.rejections import ClipRejected, Rejection
from stores.shards import ShardBuilder, open_shard
from stores.store import Store
from stores.summaries import Encoding, ShardSummary, Source, library_versions
from transforms.stage import Stage, Video

_DETAIL_CHARACTERS = 4000


@dataclass(frozen=True)
class _ShardClip:
    """A clip of an input store, streamed from its data file."""

    store: Store
    source: Source

    @property
    def clip_id(self) -> str:
        return self.source.entry.clip_id

    @property
    def frames(self) -> int:
        return self.source.entry.frames

    @property
    def width_px(self) -> int:
        return self.source.entry.width_px

    @property
    def height_px(self) -> int:
        return self.source.entry.height_px

    def records(self) -> Iterator[Any]:
        reader = open_shard(self.store, self.source.data)
        try:
            yield from reader.records(self.source.entry, 0, self.frames)
        finally:
            reader.close()


@dataclass(frozen=True)
class ShardUpdate:
    """Applies one stage to shards of one store.

    Attributes:
        spec: the stage's spec, as planned; recorded in each shard.
    """

    stage: Stage
    store: Store
    encoding: Encoding
    spec: Mapping[str, Any]

    def run(
        self,
        task: ShardTask,
        *,
        on_start: Callable[[str], None] = lambda clip_id: None,
        on_done: Callable[[str, int, str | None], None] = lambda clip_id, frames, reason: None,
    ) -> ShardSummary:
        """Makes and commits one shard; returns its summary.

        Args:
            on_start: called with the clip_id before a clip is computed.
            on_done: called after it with the clip_id, its frames and the reason it was rejected for, if it was.
        """
        rejected: list[Rejection] = []
        attempted = copied = milliseconds = 0
        with ShardBuilder(self.store, task.shard, task.key, self.encoding, self.spec) as builder:
            for clip in task.clips:
                if clip.copy and self._copied(builder, clip.copy):
                    copied += 1
                    continue
                if clip.sealed:
                    rejected.append(clip.sealed)
                    continue
                on_start(clip.clip_id)
                rejection, took_ms = self._timed(builder, clip)
                milliseconds += took_ms
                rejected += [rejection] if rejection else []
                attempted += 1
                on_done(clip.clip_id, *self._outcome(builder, rejection))
            data, sha256, size_bytes = builder.publish()
        assert len(builder.entries) + len(rejected) == len(task.clips)
        summary = ShardSummary(
            store=self.store.name,
            shard=task.shard,
            key=task.key,
            encoding=self.encoding,
            spec=self.spec,
            data=data,
            sha256=sha256,
            size_bytes=size_bytes,
            clips=tuple(builder.entries),
            rejected=tuple(rejected),
            computed=attempted,
            copied=copied,
            milliseconds=milliseconds,
            versions=library_versions(),
        )
        self.store.put_summary(summary)
        return summary

    @staticmethod
    def _outcome(builder: ShardBuilder, rejection: Rejection | None) -> tuple[int, str | None]:
        return (0, rejection.reason) if rejection else (builder.entries[-1].frames, None)

    def _copied(self, builder: ShardBuilder, source: Source) -> bool:
        """Takes a clip over; False where its shard is gone or damaged, so that the clip is computed instead."""
        reader = open_shard(self.store, source.data)
        try:
            builder.copy(source.entry, reader)
            return True
        except (DamagedShard, FileNotFoundError):
            return False
        finally:
            reader.close()

    def _timed(self, builder: ShardBuilder, clip: TaskClip) -> tuple[Rejection | None, int]:
        """Computes one clip; notes in its entry how long that took, in milliseconds."""
        started = time.monotonic()
        rejection = self._compute(builder, clip)
        took_ms = round((time.monotonic() - started) * 1000)
        if rejection is None:
            builder.entries[-1] = replace(builder.entries[-1], milliseconds=took_ms)
        return rejection, took_ms

    def _compute(self, builder: ShardBuilder, clip: TaskClip) -> Rejection | None:
        """Computes one clip into the shard, or says why it could not.

        Raises:
            ShardNotWritten: no fault of the clip.
        """
        try:
            inputs = self._inputs(clip)
            output = self.stage.process(*inputs)
            builder.compute(
                clip.clip_id,
                clip.key,
                output.records,
                width_px=output.width_px,
                height_px=output.height_px,
                expected_frames=self._expected_frames(clip),
            )
            return None
        except ShardNotWritten:
            raise
        except ClipRejected as found:
            return self._rejection(clip, found.reason, found.detail)
        except (OSError, DamagedShard) as error:
            return self._rejection(clip, "io_error", f"{type(error).__name__}: {error}")
        except Exception:  # noqa: BLE001  a bad program is reported, and everyone else's work is kept
            return self._rejection(clip, "internal_error", traceback.format_exc())

    def _inputs(self, clip: TaskClip) -> list[Any]:
        if clip.video is not None:
            return [Video(**clip.video)]
        stores = [Store(self.store.workspace, name) for name in self.stage.inputs]
        return [_ShardClip(store, source) for store, source in zip(stores, clip.inputs, strict=True)]

    def _expected_frames(self, clip: TaskClip) -> int | None:
        """A clip of N frames has N records, and N - 1 flows; nobody knows it of a video."""
        if not clip.inputs:
            return None
        return clip.inputs[0].entry.frames - (self.store.name == "flow")

    @staticmethod
    def _rejection(clip: TaskClip, reason: str, detail: str) -> Rejection:
        found = ClipRejected(reason, detail)
        return Rejection(clip.clip_id, clip.key, found.cause, reason, detail[-_DETAIL_CHARACTERS:])
