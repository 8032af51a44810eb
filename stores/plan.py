"""Plans one stage: which shards are fresh, which are stale and why, and what a stale shard needs.

Planning reads the clips table, the input stores' snapshots and one file listing; it reads no image.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stores import keys
from stores.checks import Damaged
from stores.clips import ClipsTable
from stores.earlier import done_before
from stores.identities import Identity
from stores.reasons import stale_reason
from stores.rejections import Rejection
from stores.store import Store, SummaryNames
from stores.summaries import ClipEntry, Encoding, ShardReference, ShardSummary, Snapshot, Source


@dataclass(frozen=True)
class TaskClip:
    """What a worker does for one clip: keep its rejection, copy it, or compute it.

    Attributes:
        video: the fields of a `Video`, for the first stage.
        inputs: where the clip lies in each input store, for the others.
        copy: where the very same clip lies already in this store.
        sealed: a rejection that stands until the video changes.
    """

    clip_id: str
    key: str
    video: Mapping[str, Any] | None = None
    inputs: tuple[Source, ...] = ()
    copy: Source | None = None
    sealed: Rejection | None = None


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to make one shard."""

    shard: int
    key: str
    clips: tuple[TaskClip, ...]

    def to_json(self) -> str:
        return json.dumps(self, default=vars, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: str) -> "ShardTask":
        values = json.loads(content)
        return cls(values["shard"], values["key"], tuple(_task_clip(c) for c in values["clips"]))


def _task_clip(values: dict[str, Any]) -> TaskClip:
    def source(found: dict[str, Any] | None) -> Source | None:
        return Source(found["data"], ClipEntry(**found["entry"])) if found else None

    inputs = tuple(s for s in map(source, values["inputs"]) if s)
    sealed = Rejection(**values["sealed"]) if values["sealed"] else None
    return TaskClip(values["clip_id"], values["key"], values["video"], inputs, source(values["copy"]), sealed)


@dataclass(frozen=True)
class StagePlan:
    """What has to be done to bring one store up to date.

    Attributes:
        expected: shard → key, for every shard.
        standing: shard → its reference, for the shards that are written, also with rejections to try again.
        fresh: those of them that need nothing.
        stale: the others, sorted.
        reason: why, in words; "" when nothing is stale and the snapshot says so.
        previous: the snapshot that readers see now.
        force: everything is computed, and nothing copied or left sealed.
        listing: names of the store's files when it was planned.
    """

    store: Store
    spec: Mapping[str, Any]
    encoding: Encoding
    expected: Mapping[int, str]
    standing: Mapping[int, ShardReference]
    fresh: Mapping[int, ShardReference]
    stale: tuple[int, ...]
    reason: str
    previous: Snapshot | None
    force: bool = False
    listing: frozenset[str] = frozenset()


def choose_num_shards(clips: int) -> int:
    """A power of two: about 16 clips a shard in large collections, shards enough to share out in small ones."""
    wanted = max(min(clips, 32), clips / 16)
    shards = 1
    while shards < wanted:
        shards *= 2
    return shards


class VideoClips(Mapping[int, list[TaskClip]]):
    """The clips table as the first stage's work, by shard; not yet known what of it is done.

    A shard's clips are made when they are asked for: of a large collection only stale shards stay in memory.
    """

    def __init__(
        self, clips: ClipsTable, identities: Mapping[str, Identity], spec: Mapping[str, Any], num_shards: int
    ) -> None:
        self.num_clips = len(clips)
        self._clips, self._identities = clips, identities
        self._key = keys.frames_clip_keys(spec)
        self._rows: list[list[int]] = [[] for _ in range(num_shards)]
        for row, clip_id in enumerate(clips.clip_ids):
            self._rows[keys.shard_of(clip_id, num_shards)].append(row)

    def __getitem__(self, shard: int) -> list[TaskClip]:
        return [self._clip(row) for row in self._rows[shard]]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._rows)))

    def __len__(self) -> int:
        return len(self._rows)

    def held(self, shard: int) -> str:
        """Digest of the (clip_id, clip key) pairs that the shard should hold."""
        return keys.held_digest((self._clips.clip_ids[row], self._key_of(row)) for row in self._rows[shard])

    def _key_of(self, row: int) -> str:
        clips = self._clips
        identity = self._identities[clips.uris[row]]
        return self._key(identity.digest, clips.starts_s[row], clips.stops_s[row])

    def _clip(self, row: int) -> TaskClip:
        clips = self._clips
        clip_id, start_s, stop_s = clips.clip_ids[row], clips.starts_s[row], clips.stops_s[row]
        identity = self._identities[clips.uris[row]]
        video = {
            "clip_id": clip_id,
            "uri": identity.uri,
            "start_s": start_s,
            "stop_s": stop_s,
            "bytes": identity.size_bytes,
            "modified": identity.mark,
        }
        return TaskClip(clip_id, self._key_of(row), video)


def expected_from_videos(spec: Mapping[str, Any], videos: VideoClips) -> dict[int, str]:
    """Shard keys of the first stage."""
    return {shard: keys.shard_key(spec, [videos.held(shard)]) for shard in videos}


def expected_from_inputs(
    spec: Mapping[str, Any], inputs: Sequence[Snapshot], clip_specs: Mapping[str, str] | None = None
) -> dict[int, str]:
    """Shard keys of any other stage, from what the input shards really hold.

    Args:
        clip_specs: clip_id → digest of what else determines that clip, for stages that have such a thing.
    """
    more: dict[int, list[tuple[str, str]]] = {}
    for clip_id, digest in (clip_specs or {}).items():
        more.setdefault(keys.shard_of(clip_id, inputs[0].encoding.num_shards), []).append((clip_id, digest))
    return {
        references[0].shard: keys.shard_key(
            spec,
            [
                *(r.held for r in references),
                *([] if clip_specs is None else [keys.held_digest(more.get(references[0].shard, []))]),
            ],
        )
        for references in zip(*(s.shards for s in inputs), strict=True)
    }


def plan_stage(
    store: Store,
    *,
    spec: Mapping[str, Any],
    encoding: Encoding,
    expected: Mapping[int, str],
    retry_rejected: bool = False,
    force: bool = False,
) -> StagePlan:
    """Compares what the store should hold with what it holds.

    Args:
        expected: shard → key.
        retry_rejected: take clips rejected for a `data` cause as stale too.
        force: take every shard as stale, whatever it holds.
    """
    previous, listing = store.snapshot(), store.listing()
    known = (
        {(r.key, r.shard): r for r in previous.shards} if previous and previous.encoding == encoding else {}
    )
    names = SummaryNames(listing, encoding)
    standing: dict[int, ShardReference] = {}
    unread: dict[int, list[str]] = {}
    for shard, key in expected.items():
        found = names.of(shard, key)
        reference = known.get((key, shard))
        settled = reference and (found == [reference.summary] or not reference.rejected)
        if reference and settled and reference.summary in found and _has_data(reference, listing):
            standing[shard] = reference
        elif found:
            unread[shard] = found
    standing |= best_references(store, expected, unread, listing)
    fresh = {
        shard: r
        for shard, r in standing.items()
        if not force and not r.rejected_transient and not (retry_rejected and r.rejected_data)
    }
    stale = tuple(sorted(set(expected) - set(fresh)))
    reason = stale_reason(stale, expected, spec, encoding, previous, listing)
    if force:
        reason = "to be computed again (--force)"
    elif not stale and not _is_committed(previous, spec, encoding, fresh):
        reason = "computed, not committed yet"  # cut short between the last summary and the snapshot
    return StagePlan(
        store, spec, encoding, expected, standing, fresh, stale, reason, previous, force, frozenset(listing)
    )


def _is_committed(
    previous: Snapshot | None,
    spec: Mapping[str, Any],
    encoding: Encoding,
    fresh: Mapping[int, ShardReference],
) -> bool:
    """Whether the snapshot that readers see lists just these shards."""
    if previous is None or previous.encoding != encoding:
        return False
    same_spec = keys.canonical_json(previous.spec) == keys.canonical_json(spec)
    return same_spec and previous.shards == tuple(fresh[shard] for shard in sorted(fresh))


def _has_data(shard: ShardReference | ShardSummary, listing: set[str]) -> bool:
    return shard.data is None or shard.data in listing


def best_references(
    store: Store, expected: Mapping[int, str], names: Mapping[int, Sequence[str]], listing: set[str]
) -> dict[int, ShardReference]:
    """The best whole summary of each shard whose data file is there; shards that have none are left out.

    Args:
        names: shard → its summaries.
    """
    shard_of = {name: shard for shard, found in names.items() for name in found}
    best: dict[int, ShardReference] = {}
    for name, summary in store.summaries(shard_of).items():
        shard = shard_of[name]
        if summary is None or summary.key != expected[shard] or not _has_data(summary, listing):
            continue
        reference = ShardReference.of(summary, name)
        if shard not in best or reference.preference < best[shard].preference:
            best[shard] = reference
    return best


def build_tasks(
    plan: StagePlan,
    *,
    videos: Mapping[int, Sequence[TaskClip]] | None = None,
    inputs: Sequence[tuple[Store, Snapshot]] = (),
    clip_specs: Mapping[str, str] | None = None,
    retry_rejected: bool = False,
) -> list[ShardTask]:
    """The work of the stale shards: for each clip copy, keep the rejection, or compute."""
    if not plan.stale:
        return []
    if videos is None:
        videos = _clips_of_inputs(plan, inputs, clip_specs or {})
    copies, sealed = (
        ({}, {})
        if plan.force
        else done_before(
            plan.store,
            plan.spec,
            num_shards=plan.encoding.num_shards,
            stale=plan.stale,
            previous=plan.previous,
        )
    )
    tasks = []
    for shard in plan.stale:
        clips = []
        for clip in sorted(videos[shard], key=lambda c: c.clip_id):
            copy = copies.get((clip.clip_id, clip.key))
            rejection = None if retry_rejected or copy else sealed.get((clip.clip_id, clip.key))
            clips.append(TaskClip(clip.clip_id, clip.key, clip.video, clip.inputs, copy, rejection))
        tasks.append(ShardTask(shard, plan.expected[shard], tuple(clips)))
    return tasks


def _clips_of_inputs(
    plan: StagePlan, inputs: Sequence[tuple[Store, Snapshot]], clip_specs: Mapping[str, str]
) -> dict[int, list[TaskClip]]:
    """Clips that every input store holds, in the stale shards."""
    held: list[dict[int, dict[str, Source]]] = []
    stale = set(plan.stale)
    for store, snapshot in inputs:
        names = {s.summary: s.shard for s in snapshot.shards if s.shard in stale}
        held.append({names[n]: _sources(store, n, s) for n, s in store.summaries(names).items()})
    shards: dict[int, list[TaskClip]] = {}
    for shard in plan.stale:
        first, *others = [h[shard] for h in held]
        common = [c for c in first if all(c in o for o in others)]
        shards[shard] = [
            _derived(plan.spec, c, [first[c], *(o[c] for o in others)], clip_specs.get(c)) for c in common
        ]
    return shards


def _sources(store: Store, name: str, summary: ShardSummary | None) -> dict[str, Source]:
    if summary is None:
        raise Damaged(
            f"{store.shard_uri(name)} is missing or damaged; run `perfnet verify --remove_damaged`, "
            f"then `perfnet run {store.name.split('/')[0]}`"
        )
    return {c.clip_id: Source(summary.data or "", c) for c in summary.clips}


def _derived(
    spec: Mapping[str, Any], clip_id: str, sources: Sequence[Source], clip_spec: str | None
) -> TaskClip:
    own = [clip_spec] if clip_spec else []
    key = keys.clip_key(spec, [*(s.entry.key for s in sources), *own])
    return TaskClip(clip_id, key, None, tuple(sources))
