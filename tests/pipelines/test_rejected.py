"""Rejected clips, as status and the report tell them, and how they recover."""

import json

import pyarrow.parquet as pq
from test_upkeep import CLIPS, STAGES, Workspace, ws

from pipelines import report_facts
from pipelines.config import load_config
from stores.reader import StoreReader

__all__ = ["ws"]


def test_rejected_clips_are_a_table_and_recover_by_themselves(ws: Workspace) -> None:
    """c03 is bad for ever, c05 for the moment: the next run tries c05 again, and it alone flows through all stores."""
    bad, shaky = (str(ws.video(c)) for c in ("c03", "c05"))
    ws.frames.frames_of = {u: n for u, n in ws.frames.frames_of.items() if u != bad}
    ws.frames.unreadable = [shaky]
    some = ("--max_rejected", "0.5")
    assert [ws.computed(stage, *some) for stage in STAGES] == [8, 6, 6, 6]
    listed = ws.perfnet("status", "--rejected")[1]
    assert sorted(listed.splitlines()) == [
        "frames\tc03\tdata\tdamaged\tafter 20 frames",
        "frames\tc05\ttransient\tio_error\tthe network is away",
    ]
    file = ws.folder / "rejected.parquet"
    assert ws.perfnet("status", "--rejected", "--output", str(file))[0] == 0
    table = pq.read_table(file)
    assert table.column_names == ["store", "clip_id", "cause", "reason", "detail"]
    assert {(r["clip_id"], r["cause"]) for r in table.to_pylist()} == {("c03", "data"), ("c05", "transient")}
    assert [ws.computed(stage, *some) for stage in STAGES] == [1, 0, 0, 0]  # tried again, in vain
    ws.frames.unreadable = []
    assert [ws.computed(stage, *some) for stage in STAGES] == [1, 1, 1, 1]
    ws.frames.frames_of[bad] = 9  # say a newer decoder can read it
    assert [ws.computed(stage, *some) for stage in STAGES] == [0, 0, 0, 0]
    assert [ws.computed(stage, "--retry_rejected") for stage in STAGES] == [1, 1, 1, 1]
    assert list(StoreReader(ws.path, "flow").clips) == CLIPS
    assert ws.perfnet("status", "--rejected")[1] == ""


def test_a_refused_store_tells_of_its_rejected_clips(ws: Workspace) -> None:
    """In the list, in the table and in the report alike, also where an earlier store stands."""
    bad = str(ws.video("c03"))
    ws.frames.frames_of = {u: n for u, n in ws.frames.frames_of.items() if u != bad}
    assert ws.prepare("frames")[0] == 1
    assert ws.perfnet("status", "--rejected")[1].startswith("frames\tc03\tdata\tdamaged")
    row = next(line for line in ws.perfnet("status")[1].splitlines() if line.startswith("frames "))
    assert row[26:43].split() == ["1"]  # the columns clips and rejected
    items = json.loads(ws.perfnet("status", "--json")[1])["items"]
    assert [item["rejected_waiting"] for item in items if "store" in item] == [1, None, None, None]
    assert reported(ws) == [("frames", "c03", "damaged")]
    assert ws.computed("frames", "--max_rejected", "0.5") == 0
    worse = str(ws.video("c05"))
    ws.frames.frames_of = {u: n for u, n in ws.frames.frames_of.items() if u != worse}
    ws.video("c05").write_bytes(b"another")
    assert ws.prepare("frames", "--max_rejected", "0.2")[0] == 1
    assert reported(ws) == [("frames", "c03", "damaged"), ("frames", "c05", "damaged")]


def reported(ws: Workspace) -> list[tuple[str, str, str]]:
    """Rejected clips as the report lists them."""
    config = load_config(None, {"workspace": ws.path})
    found = report_facts.rejected_clips(config, report_facts.store_facts(config))
    return [(row.store, row.clip_id, row.reason) for row in found.rows]


def test_output_alone_is_refused(ws: Workspace) -> None:
    assert "add --rejected" in ws.perfnet("status", "--output", "x.parquet")[2]
