"""Whether a store was computed from what another one holds now, told by keys alone."""

from collections.abc import Mapping, Sequence

from stores import keys
from stores.plan import expected_from_inputs
from stores.summaries import ClipEntry, Snapshot

ClipSpecs = Mapping[str, str] | None
"""clip_id → digest of what else determines that clip; None for stages that have no such thing."""


def follows(snapshot: Snapshot, inputs: Sequence[Snapshot], clip_specs: ClipSpecs = None) -> bool:
    """Whether every shard is what its stage would make of the inputs."""
    if any(s.encoding.num_shards != snapshot.encoding.num_shards for s in inputs):
        return False
    expected = expected_from_inputs(snapshot.spec, inputs, clip_specs)
    return {s.shard: s.key for s in snapshot.shards} == expected


def strangers(
    clips: Mapping[str, ClipEntry],
    snapshot: Snapshot,
    inputs: Sequence[Mapping[str, ClipEntry]],
    clip_specs: ClipSpecs = None,
) -> list[str]:
    """Clips that were computed from other clips than the inputs hold under these names; sorted.

    Args:
        clips: of the store whose snapshot is given; those that an input lacks are passed over.
    """

    def expected(clip_id: str) -> str:
        own = clip_specs.get(clip_id) if clip_specs else None
        return keys.clip_key(snapshot.spec, [*(i[clip_id].key for i in inputs), *([own] if own else [])])

    common = (c for c in clips if all(c in i for i in inputs))
    return sorted(c for c in common if clips[c].key != expected(c))
