"""What bringing a store up to date would cost: clips and frames by its plan, time and bytes as measured before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stores.plan import ShardTask
from stores.summaries import ShardReference

_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class Rate:
    """What the clips that a store holds took and need.

    Attributes:
        milliseconds_per_frame: on one core; None where no time was measured.
    """

    milliseconds_per_frame: float | None
    bytes_per_frame: float
    frames_per_clip: float


def measured_rate(shards: Iterable[ShardReference]) -> Rate | None:
    """The rate over all clips of these shards; None where they hold none."""
    found = list(shards)
    frames, milliseconds = sum(s.frames for s in found), sum(s.milliseconds for s in found)
    if not frames:
        return None
    return Rate(
        milliseconds_per_frame=milliseconds / frames if milliseconds else None,
        bytes_per_frame=sum(s.size_bytes for s in found) / frames,
        frames_per_clip=frames / sum(s.clips for s in found),
    )


@dataclass(frozen=True)
class Work:
    """What a stage would do.

    Attributes:
        computed: clip_id → its frames, None where nobody knows them before decoding.
        copied: clips taken over from earlier shards.
    """

    computed: Mapping[str, int | None]
    copied: frozenset[str] = frozenset()


def work_of(tasks: Iterable[ShardTask]) -> Work:
    """The work of a plan as its inputs are now."""
    clips = [clip for task in tasks for clip in task.clips if not clip.sealed]
    return Work(
        {c.clip_id: c.inputs[0].entry.frames if c.inputs else None for c in clips if not c.copy},
        frozenset(c.clip_id for c in clips if c.copy),
    )


def work_after(own: Work | None, upstream: Sequence[Work], clip_ids: Iterable[str]) -> Work:
    """The work of a stage once its inputs have done theirs: what they compute changes here too.

    Args:
        own: its work as the inputs are now; None where an input is not committed yet: it computes all clips then.
        upstream: the work of its stale inputs.
        clip_ids: all clips.
    """
    changed: dict[str, int | None] = {}
    for work in upstream:
        for clip_id, frames in work.computed.items():
            changed[clip_id] = changed.get(clip_id) or frames
    if own is None:
        return Work({clip_id: changed.get(clip_id) for clip_id in clip_ids})
    computed = {**changed, **own.computed}
    copied = own.copied.union(*(work.copied for work in upstream))
    return Work(computed, copied - computed.keys())


@dataclass(frozen=True)
class Estimate:
    """The cost of a stage's work; None where nothing was measured from which it could be told."""

    clips: int
    copied: int
    frames: int | None
    core_hours: float | None
    size_bytes: int | None


def estimate(work: Work, rate: Rate | None, *, frames_per_clip: float | None = None) -> Estimate:
    """What the work costs at the rate measured in earlier runs of the same store.

    Args:
        frames_per_clip: for clips whose frames nobody knows, where the store has no rate of its own.
    """
    known = [frames for frames in work.computed.values() if frames is not None]
    unknown = len(work.computed) - len(known)
    mean = rate.frames_per_clip if rate else frames_per_clip
    if unknown and mean is None:
        return Estimate(len(work.computed), len(work.copied), None, None, None)
    frames = sum(known) + round(unknown * (mean or 0))
    milliseconds = rate.milliseconds_per_frame if rate else None
    return Estimate(
        clips=len(work.computed),
        copied=len(work.copied),
        frames=frames,
        core_hours=None if milliseconds is None else frames * milliseconds / _MS_PER_HOUR,
        size_bytes=round(frames * rate.bytes_per_frame) if rate else None,
    )
