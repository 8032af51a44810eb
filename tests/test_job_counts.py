"""What each change computes and copies over real videos and real stages, as the jobs' own counters tell it."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from fault_site import STAGES, Site, samples, site

from pipelines.chain import Chain
from pipelines.progress import Screen
from stores.clips import make_clips, read_clips, write_clips

__all__ = ["samples", "site"]
pytestmark = pytest.mark.slow
CLIPS = 6
NONE = dict.fromkeys(STAGES, 0)


def counted(site: Site, counter: str, **options: Any) -> dict[str, int]:
    """Brings all stores up to date; stage → what its job counted, 0 where there was no job."""
    chain = Chain(site.config(**options), Screen(quiet=True))
    chain.run(STAGES)
    return {o.store.split("/")[0]: o.counters.get(counter, 0) for o in chain.outcomes}


def list_clips(site: Site, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Writes another clips table: the rows of the present one, changed."""
    table = read_clips(site.workspace)
    rows = [
        {"clip_id": c, "uri": u, "stop_s": s, "label": label}
        for c, u, s, label in zip(table.clip_ids, table.uris, table.stops_s, table.labels, strict=True)
    ]
    write_clips(site.workspace, make_clips(change(rows)))


def test_each_change_computes_what_it_must(site: Site) -> None:
    one, each = dict.fromkeys(STAGES, 1), dict.fromkeys(STAGES, CLIPS)
    assert counted(site, "computed") == each
    assert counted(site, "computed") == NONE
    list_clips(site, lambda rows: [*rows, {**rows[0], "clip_id": "one more", "stop_s": 0.3}])
    assert counted(site, "computed") == one
    list_clips(site, lambda rows: [row for row in rows if row["clip_id"] != "one more"])
    assert counted(site, "computed") == NONE
    shutil.copy(site.clip("approach"), site.clip("rise"))
    assert counted(site, "computed") == one
    list_clips(site, lambda rows: [{**row, "label": "other " + row["label"]} for row in rows])
    assert counted(site, "clips") == NONE  # no job at all
    wider = {"flow.bound_px": 15.0}
    assert counted(site, "computed", **wider) == {**NONE, "flow": CLIPS}


@pytest.mark.parametrize("layout", [{"store.format": "tfrecord"}, {"store.num_shards": 16}], ids=str)
def test_another_layout_copies_each_clip(site: Site, layout: dict[str, Any]) -> None:
    assert counted(site, "computed") == dict.fromkeys(STAGES, CLIPS)
    chain = Chain(site.config(**layout), Screen(quiet=True))
    chain.run(STAGES)
    for outcome in chain.outcomes:
        found = {name: outcome.counters.get(name, 0) for name in ("computed", "copied", "rejected")}
        assert found == {"computed": 0, "copied": CLIPS, "rejected": 0}, outcome.store
