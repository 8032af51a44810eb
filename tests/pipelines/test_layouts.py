"""Stores that are not of one piece: a layout change cut short, a snapshot cut short, one store behind another."""

from pathlib import Path

import pytest
from test_upkeep import CLIPS, STAGES, Workspace, ws

from stores.checks import StageFailed
from stores.commit import commit
from stores.plan import plan_stage
from stores.reader import StoreReader
from stores.store import Store

__all__ = ["ws"]
FOUR, EIGHT = ("--store.num_shards", "4"), ("--store.num_shards", "8")


def snapshots(ws: Workspace) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(ws.path).glob("**/snapshot.json"))]


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_layout_change_that_was_cut_short_goes_on(ws: Workspace, done: int) -> None:
    """Some stores have eight shards and the others four; nothing is computed, and status says what is left."""
    assert [ws.computed(stage, *FOUR) for stage in STAGES] == [8, 8, 8, 8]
    assert [ws.computed(stage, *EIGHT) for stage in STAGES[:done]] == [0] * done
    code, out, _ = ws.perfnet("status", *EIGHT)
    assert code == 0
    costs = [line for line in out.splitlines() if line.startswith("cost: ")]
    assert len(costs) == 4 - done
    assert all("computes 0 clips" in line for line in costs)
    assert [ws.computed(stage, *EIGHT) for stage in STAGES] == [0, 0, 0, 0]
    assert {StoreReader(ws.path, n).snapshot.encoding.num_shards for n in ("frames", "pose", "flow")} == {8}
    assert ws.perfnet("verify", "--quiet")[0] == 0


def test_stores_of_other_layouts_are_named(ws: Workspace) -> None:
    assert [ws.computed(stage, *FOUR) for stage in STAGES] == [8, 8, 8, 8]
    assert ws.computed("frames", *EIGHT) == 0
    code, _, said = ws.prepare("render", *EIGHT)
    assert code == 2
    assert "store pose has 4 shards and frames 8; run `perfnet run pose` first" in said


def test_a_snapshot_cut_short_does_not_change_the_layout(ws: Workspace) -> None:
    """The configuration names no number of shards, and by the number of clips there would be others."""
    assert ws.computed("frames", *FOUR) == 8
    path = Path(ws.path) / "frames" / "snapshot.json"
    before = path.read_bytes()
    path.write_bytes(before[:100])
    assert ws.computed("frames") == 0
    assert path.read_bytes() == before
    path.write_bytes(before[:100])
    assert ws.computed("frames", "--store.format", "tfrecord") == 0
    assert StoreReader(ws.path, "frames").snapshot.encoding.num_shards == 4


def test_render_waits_for_pose_of_the_same_frames(ws: Workspace) -> None:
    """One clip more, or one replaced: drawing yesterday's people on today's frames is refused, and nothing changes."""
    ws.list_clips(CLIPS[:7])
    assert [ws.computed(stage) for stage in STAGES] == [7, 7, 7, 7]
    for change in (lambda: ws.list_clips(CLIPS), lambda: ws.video("c02").write_bytes(b"another video")):
        change()
        assert ws.computed("frames") == 1
        before = snapshots(ws)
        for how in ((), ("--commit",)):
            code, _, said = ws.prepare("render", *how)
            assert code in (1, 2)
            assert how or "store pose was computed from other frames" in said
            assert how or "run `perfnet run pose` first" in said
        assert snapshots(ws) == before
        assert [ws.computed(stage) for stage in STAGES] == [0, 1, 1, 1]


def test_a_snapshot_that_is_refused_is_not_put(ws: Workspace) -> None:
    assert ws.computed("frames") == 8
    store = Store(ws.path, "frames")
    snapshot = store.require_snapshot()
    path = Path(ws.path) / "frames" / "snapshot.json"
    path.unlink()
    expected = {s.shard: s.key for s in snapshot.shards}
    plan = plan_stage(store, spec=snapshot.spec, encoding=snapshot.encoding, expected=expected)

    def refuse(found: object) -> None:
        raise StageFailed(f"refused {found == snapshot}")

    with pytest.raises(StageFailed, match="refused True"):
        commit(plan, max_rejected=0, check=refuse)
    assert not path.exists()
