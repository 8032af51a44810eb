"""Commits a store: checks what was rejected, then puts the snapshot."""

from collections.abc import Callable, Iterable

from stores import files
from stores.checks import StageFailed
from stores.plan import StagePlan, best_references
from stores.rejections import Rejection
from stores.store import Store, SummaryNames
from stores.summaries import ShardReference, Snapshot

_NAMED = 20


def rejected_in(store: Store, shards: Iterable[ShardReference]) -> list[Rejection]:
    """All rejected clips of these shards, from the summaries that have any."""
    names = [s.summary for s in shards if s.rejected_data or s.rejected_transient]
    return [r for summary in store.summaries(names).values() if summary for r in summary.rejected]


def build_snapshot(plan: StagePlan) -> Snapshot:
    """The snapshot of the plan's keys, from references known to be fresh and the summaries written since.

    Raises:
        StageFailed: a shard has no summary.
    """
    listing = plan.store.listing() if plan.stale else set()
    written = SummaryNames(listing, plan.encoding)
    names = {s: _written(plan, written.of(s, plan.expected[s])) for s in plan.stale}
    references = {**plan.fresh, **best_references(plan.store, plan.expected, names, listing)}
    for shard in plan.stale:
        if shard not in references:
            raise StageFailed(
                f"{plan.store.name}: shard {shard} was not written; "
                "finished shards are kept, run the same command again"
            )
    shards = tuple(references[shard] for shard in sorted(references))
    return Snapshot(plan.store.name, plan.spec, plan.encoding, shards)


def _written(plan: StagePlan, names: list[str]) -> list[str]:
    """The summaries that count: after --force the new ones, which are the old ones where the content is the same."""
    return [n for n in names if n not in plan.listing] or names if plan.force else names


def commit(
    plan: StagePlan, *, max_rejected: float, check: Callable[[Snapshot], None] = lambda snapshot: None
) -> Snapshot:
    """Puts the snapshot of a finished plan, unless it stands already.

    Args:
        check: raises for a snapshot that readers must not see.

    Raises:
        StageFailed: internal errors, too many rejected clips, or missing shards; names the first of them.
    """
    snapshot = build_snapshot(plan)
    check_rejected(plan, snapshot, max_rejected=max_rejected)
    check(snapshot)
    if plan.previous != snapshot:
        plan.store.put_snapshot(snapshot)
    return snapshot


def check_rejected(plan: StagePlan, snapshot: Snapshot, *, max_rejected: float) -> None:
    """Refuses a store with internal errors, or with a larger share of rejected clips than allowed."""
    if not snapshot.rejected:
        return
    rejected = rejected_in(plan.store, snapshot.shards)
    errors = [r for r in rejected if r.reason == "internal_error"]
    if errors:
        raise StageFailed(
            f"{plan.store.name}: {len(errors)} clips failed with an internal error; all other clips are kept\n"
            + _named(errors)
        )
    total = snapshot.totals["clips"] + snapshot.rejected
    if snapshot.rejected > max_rejected * total:
        raise StageFailed(
            f"{plan.store.name}: {snapshot.rejected} of {total} clips were rejected, more than max_rejected "
            f"{max_rejected:g} allows; all other clips are kept\n{_named(rejected)}\n"
            "repair or remove these videos, or allow more with --max_rejected"
        )


def _named(rejected: list[Rejection]) -> str:
    lines = [f"  {r.clip_id}: {r.reason}: {_last_line(r.detail)}".rstrip(": ") for r in rejected]
    more = [f"  … and {len(lines) - _NAMED} more: perfnet status --rejected"] if len(lines) > _NAMED else []
    return "\n".join(lines[:_NAMED] + more)


def _last_line(detail: str) -> str:
    """The line of a detail that says most: of a traceback the last."""
    lines = detail.strip().splitlines()
    return files.printable(lines[-1]) if lines else ""
