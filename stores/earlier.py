"""What earlier runs have done of a clip: rows that can be copied, rejections that stand.

Any run counts, whatever became of it: one that was refused or killed, one of another layout, one before the snapshot.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from stores import keys
from stores.rejections import Rejection
from stores.store import Store, place_of_summary
from stores.summaries import Snapshot, Source

Clip = tuple[str, str]
"""clip_id and clip key."""


def done_before(
    store: Store,
    spec: Mapping[str, Any],
    *,
    num_shards: int,
    stale: Iterable[int],
    previous: Snapshot | None,
) -> tuple[dict[Clip, Source], dict[Clip, Rejection]]:
    """Where clips of the stale shards lie already, and rejections for the data's sake.

    Args:
        num_shards: how many there are to be.
        stale: shards of these.
        previous: the snapshot that readers see now; what it lists is preferred.
    """
    listing = store.listing()
    listed = {s.summary for s in previous.shards} if previous else set()
    own = keys.canonical_json(spec)
    names = summaries_with_clips_of(stale, num_shards, listing)
    if previous and keys.canonical_json(previous.spec) != own:
        names = [n for n in names if n not in listed]  # thousands, and they are of that spec
    copies: dict[Clip, Source] = {}
    sealed: dict[Clip, Rejection] = {}
    for summary in store.summaries(sorted(names, key=lambda n: (n in listed, n))).values():
        if summary is None or keys.canonical_json(summary.spec) != own:
            continue
        sealed |= {(r.clip_id, r.key): r for r in summary.rejected if r.cause == "data"}
        if summary.data in listing:
            copies |= {(c.clip_id, c.key): Source(summary.data or "", c) for c in summary.clips}
    return copies, sealed


def summaries_with_clips_of(shards: Iterable[int], num_shards: int, listing: Iterable[str]) -> list[str]:
    """Summaries that can hold clips of these shards, of any layout.

    A clip is in the shard that its hash h says: in s = h mod N now and in p = h mod P then. Both can only be where
    s and p are the same modulo the greatest common divisor of N and P.
    """
    wanted: dict[int, set[int]] = {}
    shards, found = list(shards), []
    for name in listing:
        place = place_of_summary(name)
        if place is None:
            continue
        common = math.gcd(num_shards, place.num_shards)
        if common not in wanted:
            wanted[common] = {s % common for s in shards}
        if place.shard % common in wanted[common]:
            found.append(name)
    return found


def written_num_shards(listing: Iterable[str]) -> int | None:
    """How many shards a store has, by the names of its summaries; None where it has none.

    Where there are several numbers, after one was changed, it is the one of which the largest share is written.
    """
    written: dict[int, set[int]] = {}
    for place in filter(None, map(place_of_summary, listing)):
        written.setdefault(place.num_shards, set()).add(place.shard)
    return max(written, key=lambda n: (len(written[n]) / n, n), default=None)
