"""What `perfnet status` says: a table for people, JSON for machines."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.chain import Chain, selection
from pipelines.costs import cost_line, costs
from pipelines.prepare import last_job
from pipelines.stages import STAGES, store_name
from pipelines.units import duration, size
from stores.cost import Estimate
from stores.store import Store


@dataclass(frozen=True)
class ItemStatus:
    """One row: a store, a training or the evaluation.

    Attributes:
        item: as `perfnet run` takes it.
        name: of the store, where it is one.
        reason: why it is stale; "" when it is fresh.
        totals: clips, frames, rejected clips and bytes that readers of the store see now.
        last_job: counters, seconds and ended_s of the store's last job.
        waiting: clips rejected in shards that no snapshot lists yet, where readers see no store at all.
        cost: of bringing the store up to date, where it is stale.
    """

    item: str
    name: str
    reason: str
    totals: Mapping[str, int] | None = None
    last_job: dict[str, Any] | None = None
    waiting: int | None = None
    cost: Estimate | None = None


def status_of(chain: Chain) -> list[ItemStatus]:
    """All items of a chain, in order."""
    reasons = chain.plan(selection((), chain.config))
    estimates = costs(chain, [item for item, reason in reasons.items() if reason])
    found = []
    for item, reason in reasons.items():
        if item not in STAGES:
            found.append(ItemStatus(item, item, reason))
            continue
        workspace, name = chain.config.workspace, store_name(item, chain.config)
        snapshot = Store(workspace, name).snapshot()
        totals = snapshot.totals if snapshot else None  # a large store's snapshot takes a hundred megabytes
        waiting = _rejected_waiting(chain, item) if totals is None else None
        job, cost = last_job(workspace, name), estimates.get(item)
        found.append(ItemStatus(item, name, reason, totals, job, waiting, cost))
    return found


def _rejected_waiting(chain: Chain, stage: str) -> int | None:
    """What a store that was refused was often refused for; None where nothing of it is written."""
    planned = chain.planned(stage)
    return sum(s.rejected for s in planned.standing.values()) if planned and planned.standing else None


def show_status(found: list[ItemStatus]) -> None:
    """One row an item, and a line for what each stale store would cost."""
    print(
        f"{'item':<26} {'clips':>7} {'rejected':>8} {'frames':>9} {'repeated':>8} {'size':>9}  {'last run':<26} state"
    )
    for row in found:
        print(f"{row.name:<26} {_numbers(row):>45}  {_last_run(row):<26} {_state(row)}")
    for row in found:
        if row.cost:
            print(f"cost: {row.name}: {cost_line(row.cost)}")


def _state(row: ItemStatus) -> str:
    return f"stale: {row.reason}" if row.reason else "fresh"


def _numbers(row: ItemStatus) -> str:
    """Clips, rejected clips, frames, repeated frames and size, in columns."""
    totals = row.totals
    if totals is None:
        return "" if row.waiting is None else f"{'':>7} {row.waiting:>8}{'':>30}"
    rejected = totals["rejected_data"] + totals["rejected_transient"]
    repeated = totals["repeated"] / totals["frames"] if totals["frames"] else 0.0
    return (
        f"{totals['clips']:>7} {rejected:>8} {totals['frames']:>9} {repeated:>8.1%} "
        f"{size(totals['size_bytes']):>9}"
    )


def _last_run(row: ItemStatus) -> str:
    """When the store's last job ended, by the local clock, and how long it took."""
    if row.last_job is None:
        return ""
    ended = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.last_job["ended_s"]))
    return f"{ended}, {duration(row.last_job['seconds'])}"


def status_json(workspace: str, found: list[ItemStatus]) -> str:
    """The same for machines; bytes and core-hours are plain numbers, times are POSIX seconds."""
    return json.dumps({"workspace": workspace, "items": [_plain(row) for row in found]}, indent=2)


def _plain(row: ItemStatus) -> dict[str, Any]:
    about: dict[str, Any] = {
        "item": row.item,
        "state": "stale" if row.reason else "fresh",
        "reason": row.reason or None,
    }
    if row.item in STAGES:
        about["store"] = row.name
        about["totals"] = dict(row.totals) if row.totals is not None else None
        about["rejected_waiting"] = row.waiting
        about["last_job"] = row.last_job
        about["cost"] = asdict(row.cost) if row.cost else None
    return about
