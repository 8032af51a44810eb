"""A store is verified against what was committed; wrong indexes are found even where every checksum fits."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from test_counts import VIDEOS, run_chain, table_of

from stores import files
from stores.store import Store
from stores.summaries import ClipEntry, Encoding, ShardReference, ShardSummary, Snapshot
from stores.verify import remove_damaged, verify_store

STORES = ("frames", "pose", "render/rgb-bar-13-ratio", "flow")


@pytest.fixture(params=["parquet", "tfrecord"])
def ws(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    run_chain(str(tmp_path), table_of(VIDEOS), encoding=Encoding(request.param, 2))
    return str(tmp_path)


def rewrite(store: Store, shard: int = 0, **changes: Any) -> None:
    """Puts another summary in place of a shard's, and a snapshot that agrees with it."""
    snapshot = store.require_snapshot()
    reference = snapshot.shards[shard]
    summary = store.summary(reference.summary)
    assert summary is not None
    changed = replace(summary, **changes)
    files.remove(store.shard_uri(reference.summary))
    shards = list(snapshot.shards)
    shards[shard] = ShardReference.of(changed, store.put_summary(changed))
    store.put_snapshot(Snapshot(store.name, snapshot.spec, snapshot.encoding, tuple(shards)))


def summary_of(store: Store, shard: int = 0) -> ShardSummary:
    found = store.summary(store.require_snapshot().shards[shard].summary)
    assert found is not None
    return found


def problems(store: Store) -> list[str]:
    return [d.problem for d in verify_store(store)]


def test_whole_stores_are_whole(ws: str) -> None:
    looked: list[tuple[int, int]] = []
    for name in STORES:
        assert verify_store(Store(ws, name), lambda done, total: looked.append((done, total))) == []
    assert looked == [(1, 2), (2, 2)] * 4


def test_a_clip_index_that_names_other_clips_is_found(ws: str) -> None:
    """Two clips of equal length would else be read as each other."""
    store = Store(ws, "frames")
    first, second, *others = summary_of(store).clips
    swapped = [
        ClipEntry(**asdict(second) | {"clip_id": first.clip_id, "key": first.key}),
        ClipEntry(**asdict(first) | {"clip_id": second.clip_id, "key": second.key}),
    ]
    rewrite(store, clips=(*swapped, *others))
    (problem,) = problems(store)
    assert first.clip_id in problem


@pytest.mark.parametrize("change", [{"frames": 1}, {"rows": 1}, {"frames": 40, "rows": 40}])
def test_wrong_counts_are_found(ws: str, change: dict[str, int]) -> None:
    store = Store(ws, "frames")
    *others, last = summary_of(store).clips
    assert last.frames > 2
    rewrite(store, clips=(*others, ClipEntry(**asdict(last) | change)))
    assert len(problems(store)) == 1


def test_a_clip_that_is_left_out_or_listed_twice_is_found(ws: str) -> None:
    store = Store(ws, "flow")
    clips = summary_of(store).clips
    rewrite(store, clips=(*clips, clips[0]))
    assert "twice" in problems(store)[0]
    if store.require_snapshot().encoding.format == "parquet":
        rewrite(store, clips=clips[1:])
        assert "does not name each once" in problems(store)[0]


def test_a_summary_that_disagrees_with_its_file_is_found(ws: str) -> None:
    store = Store(ws, "pose")
    before = summary_of(store)
    wrong = {"sha256": "0" * 64, "size_bytes": before.size_bytes + 1}
    if before.encoding.format == "parquet":  # a TFRecord file does not know its key
        wrong["key"] = "0" * 64
    for name, value in wrong.items():
        rewrite(store, **{name: value})
        assert len(problems(store)) == 1
        rewrite(store, **{name: getattr(before, name)})
    assert problems(store) == []


def test_a_snapshot_that_disagrees_with_its_summaries_is_found(ws: str) -> None:
    store = Store(ws, "frames")
    path = Path(store.folder) / "snapshot.json"
    values = json.loads(path.read_bytes())
    values["shards"][1]["frames"] += 1
    path.write_text(json.dumps(values))
    (damage,) = verify_store(store)
    assert damage.name == f"shards/{values['shards'][1]['summary']}"
    assert "says frames" in damage.problem
    remove_damaged(ws, [damage])
    shard = values["shards"][1]
    assert (
        run_chain(ws, table_of(VIDEOS), encoding=store.require_snapshot().encoding)[0]["frames"]
        == shard["clips"]
    )
    assert verify_store(store) == []


def test_a_file_of_another_store_is_found(tmp_path: Path) -> None:
    """Flow under the name of frames, with the right checksum."""
    run_chain(str(tmp_path), table_of(VIDEOS), encoding=Encoding("parquet", 1))
    frames, flow = Store(str(tmp_path), "frames"), Store(str(tmp_path), "flow")
    other = summary_of(flow)
    files.put_file(files.local_path(flow.shard_uri(str(other.data))), frames.shard_uri(str(other.data)))
    rewrite(frames, data=other.data, sha256=other.sha256, size_bytes=other.size_bytes)
    assert problems(frames) == ["has another schema than store frames"]


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no committed snapshot; run `perfnet run flow`"):
        verify_store(Store(str(tmp_path), "flow"))
